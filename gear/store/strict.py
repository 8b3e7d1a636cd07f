"""Whether tensors are exactly those of a module: one rule and one wording for every reader of weights."""

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

WRAPPERS = {"module", "_orig_mod"}  # what DDP and torch.compile put into names


class Like(NamedTuple):
    """What is wanted of a tensor. A tensor may stand for it, on the meta device too."""

    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32


def faults(found: Mapping[str, Any], wanted: Mapping[str, Tensor | Like]) -> list[str]:
    """What keeps `found` from being the `wanted` tensors, a phrase each, by their names: one that is missing or left
    over, no plain tensor or none at all, of another shape, of another kind of number (of real ones the precision is
    free), or with NaN or infinity in float32."""
    wrong = []
    for name in sorted(wanted.keys() | found.keys()):
        if name not in found:
            wrong.append(f"it lacks {name}")
        elif name not in wanted:
            wrong.append(f"{name} has no place here")
        elif not _plain(t := found[name]):
            wrong.append(f"its {name} is no plain tensor")
        elif t.shape != (like := wanted[name]).shape:
            wrong.append(f"its {name} is {tuple(t.shape)} and should be {tuple(like.shape)}")
        elif (t.dtype.is_floating_point, t.is_complex()) != (like.dtype.is_floating_point, like.dtype.is_complex):
            wrong.append(f"its {name} is of {t.dtype} and should be of {like.dtype}")
        elif not finite(t):
            wrong.append(f"its {name} has NaN or infinity")
    return wrong


def finite(t: Tensor) -> bool:
    """Whether every number of it is, as float32 too, which some 8-bit numbers must become to be asked. By the least and
    the largest, which are NaN where one is: 20 times as fast as asking each."""
    if not t.is_floating_point() or not t.numel():
        return True if not t.is_complex() else bool(t.isfinite().all())
    return all(bound.isfinite() for bound in t.float().aminmax())


def not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """The name of the first tensor that holds a NaN or an infinity."""
    return next((name for name, t in tensors.items() if not finite(t)), None)


def some(phrases: Collection[str], between: str = "; ", most: int = 3) -> str:
    """The first few of many."""
    more = f", and {len(phrases) - most} more" if len(phrases) > most else ""
    return between.join(list(phrases)[:most]) + more


def clean(name: str) -> str:
    """A name without what `torch.compile` and DDP wrapped around the module."""
    return ".".join(part for part in name.split(".") if part not in WRAPPERS) or name


def _plain(t: Any) -> bool:
    return isinstance(t, Tensor) and t.layout is torch.strided and not t.is_quantized and not t.is_meta
