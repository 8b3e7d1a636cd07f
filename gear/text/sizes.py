"""How large a text encoder is, without its weights: what `gear plan` counts with."""

from dataclasses import dataclass
from functools import cache

import torch
from torch import nn

from gear.store import pretrained
from gear.store.networks import ON_THE_HUB
from gear.text.files import SETTINGS, configuration, explained, refuse_code
from gear.text.network import UNUSED, reader


@dataclass(frozen=True)
class Size:
    """width: C, channels of a state. parameters: all of them. matrices: those that each token is multiplied with."""

    width: int
    parameters: int
    matrices: int


KNOWN = {  # those that have short names, for which nothing is read
    "qwen3-1.7b": Size(2048, 1_720_574_976, 1_409_286_144),
    "minilm": Size(384, 22_713_216, 10_616_832),
}


@cache
def size(encoder: str) -> Size:
    """Of an encoder by its name, a repository on the hub or a folder, of which the configuration is fetched and read.
    Raises `TextError`."""
    if encoder in KNOWN:
        return KNOWN[encoder]
    with explained():
        library = pretrained.transformers()
        folder = pretrained.folder(ON_THE_HUB.get(encoder, encoder), optional=(SETTINGS,), weights=())
    refuse_code(folder)
    with torch.device("meta"):
        return of(reader(library.AutoModel.from_config(configuration(folder))))


def of(net: nn.Module) -> Size:
    """Of a network of transformers."""
    linear = ((name, module) for name, module in net.named_modules() if isinstance(module, nn.Linear))
    config = getattr(net, "config")  # noqa: B009  (every network of transformers has one, which `nn.Module` does not say)
    return Size(
        config.hidden_size,
        sum(p.numel() for p in net.parameters()),
        sum(module.weight.numel() for name, module in linear if not name.startswith(UNUSED)),
    )
