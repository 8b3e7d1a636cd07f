"""What the public files call their tensors: of each family the names and shapes, of each layout the parts."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from gear import config as cfg
from gear.store.strict import faults
from gear.tokenizer.critic import Critic
from gear.tokenizer.tokenizer import Tokenizer

Layout = Literal["gear", "lightning", "llamagen", "bare"]


class ReleasedError(ValueError):
    """A released file that cannot be used: which, what was expected, what came, what to do."""


class NoTokenizer(ReleasedError):
    """A whole file of weights, but not of a tokenizer: it may be for another reader."""


@dataclass(frozen=True)
class Parts:
    """Where a layout keeps the live and the averaged tokenizer, and the critic; "" is the file itself."""

    live: str
    averaged: str | None
    critic: str | None


LAYOUTS: dict[Layout, Parts] = {  # in the order they are looked for
    "gear": Parts("vq", "vq_ema", "discriminator"),
    "lightning": Parts("state_dict", None, None),  # average and critic stand between the tokenizer's tensors, see below
    "llamagen": Parts("model", "ema", "discriminator"),
    "bare": Parts("", None, None),
}
PARTS = {part for parts in LAYOUTS.values() for part in (parts.live, parts.averaged, parts.critic) if part}

# Inside a Lightning state dict. LitEma names a tensor without its dots, as a buffer's name may have none.
AVERAGED, CRITIC = "model_ema.", "loss.discriminator."
COUNTERS = {"decay": torch.tensor(0.999), "num_updates": torch.tensor(-1, dtype=torch.int32)}  # LitEma's own defaults
HELPERS = ("loss", "inception", "lpips")  # networks of the losses and metrics, in the average too

# LlamaGen counts the codewords of its last 65,536 tokens in a buffer of the model, and will not load without it.
USAGE, USED = "quantize.codebook_used", 65536

TAMING = {  # LlamaGen's names, which are ours, in those of taming-transformers; IBQ has these
    r"^encoder\.conv_blocks\.": "encoder.down.",
    r"\.res\.": ".block.",
    r"\.mid\.0\.": ".mid.block_1.",
    r"\.mid\.1\.": ".mid.attn_1.",
    r"\.mid\.2\.": ".mid.block_2.",
}


@dataclass(frozen=True)
class Slot:
    """A tensor of a family: our name for it, and a meta tensor of its shape and kind."""

    name: str
    like: Tensor


class _Blank(TorchFunctionMode):
    """Modules made under it have parameters on the meta device, which are not initialised.

    `torch.device("meta")` would initialise them, and at a few operations import all of torch.compile for that.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__module__", None) == torch.nn.init.__name__:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}) | ({"device": "meta"} if func is torch.empty else {}))


@lru_cache(maxsize=64)
def slots(family: cfg.Tokenizer) -> Mapping[str, Slot]:
    """Every tensor of a family by its public name. Only the networks count, not the critic or the losses."""
    with _Blank():
        state = Tokenizer(family.quantizer, family.backbone).state_dict()
    return {public_name(name, family): Slot(name, like) for name, like in state.items()}


def public_name(name: str, family: cfg.Tokenizer) -> str:
    """Our name of a tensor as the files of its family have it. It is another one for IBQ only, whose decoder counts its
    levels from the highest resolution and ours from the lowest."""
    if not isinstance(family.quantizer, cfg.IBQ):
        return name
    highest = len(family.backbone.multipliers) - 1
    name = re.sub(r"^decoder\.conv_blocks\.(\d+)", lambda level: f"decoder.up.{highest - int(level[1])}", name)
    for ours, theirs in TAMING.items():
        name = re.sub(ours, theirs, name)
    return name


def dotless(name: str) -> str:
    """LitEma's name of a parameter."""
    return name.replace(".", "")


def critic_faults(found: Mapping[str, Tensor]) -> list[str]:
    """What keeps tensors, if there are any, from being a PatchGAN `Critic` of some width and depth."""
    if not found:
        return []
    width = found["main.0.bias"].numel() if "main.0.bias" in found else 64
    convolutions = sum(t.ndim == 4 for t in found.values())
    with _Blank():
        patchgan = Critic(width, layers=max(convolutions - 2, 0))
    return faults(found, patchgan.state_dict())
