"""A released file's tensors by the part they are in, without what trainers wrapped around their names."""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from gear.store import torch_file
from gear.store.foreign import UnreadableFile
from gear.store.strict import clean
from gear.tokenizer.released.names import PARTS, NoTokenizer, ReleasedError

OURS = "gear-"  # how the format begins that our own files name in their header


def opened(path: Path) -> dict[str, Any]:
    """What a file holds, see `gear.store.torch_file`. Raises ReleasedError, also for a file of gear's own."""
    if is_ours(path):
        raise ReleasedError(f"{path} was written by gear itself, and is not a released file: give its folder instead.")
    try:
        return torch_file.read(path)
    except UnreadableFile as error:
        raise ReleasedError(str(error)) from error


def is_ours(path: Path) -> bool:
    """Whether a file is a checkpoint or a saved model of gear. Only its header is read."""
    return (torch_file.header(path) or {}).get("format", "").startswith(OURS)


def groups(path: Path, contents: Mapping[str, Any]) -> dict[str, dict[str, Tensor]]:
    """The tensors of a file by the part they are in ("vq", "state_dict", ...; "" for the file itself) and by name.

    Names are without the wrappers of DDP and torch.compile. All else, such as optimiser states, is left out. Raises
    ReleasedError.
    """
    found: defaultdict[str, dict[str, Tensor]] = defaultdict(dict)

    def put(part: str, name: str, tensor: Tensor) -> None:
        if name in found[part]:
            raise ReleasedError(f"{path} holds {name} twice: with and without module. or _orig_mod. before it.")
        found[part][name] = tensor

    for key, value in contents.items():
        if isinstance(value, Mapping) and key in PARTS:
            for name, tensor in value.items():
                if isinstance(tensor, Tensor):
                    put(key, clean(str(name)), tensor)
        elif isinstance(value, Tensor):
            name = clean(key)
            part, _, rest = name.partition(".")
            put(*((part, rest) if part in PARTS else ("", name)), value)
    if not found:
        held = ", ".join(list(contents)[:6]) or "nothing"
        raise NoTokenizer(f"{path} holds {held}, and no weights of a tokenizer. Give a file that has them.")
    return dict(found)
