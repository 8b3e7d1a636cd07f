"""What a piece of code has to do, and how long that takes at least: the floors of `bench`.

Operations: of matrix products, convolutions and attention, counted while the code runs (`gear.counting`). Bytes: the
operands and results of each of those, moved once; all between them is taken as free, as where it is fused. Where code
does more than it must, as recomputing what it did not keep, a formula stands beside it, and not this count.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bench.ceilings import ceilings
from gear.counting import Flops, counter
from gear.generator import Generator

NONE = Flops(0, 0)
# Bytes of an update for each float32 parameter. Clipping reads the gradient for its norm; the optimiser can scale it as
# it reads it. AdamW reads p, g, m, v and writes p, m, v. The average is read and written, p being at hand by then.
CLIPPING, ADAMW, AVERAGES = 4, 28, 8


@dataclass(frozen=True)
class Work:
    """flops: by the precision of their operands. moved: bytes. exponentials: of float32."""

    flops: Flops = NONE
    moved: float = 0.0
    exponentials: float = 0.0

    def __add__(self, other: "Work") -> "Work":
        """One after the other."""
        return Work(self.flops + other.flops, self.moved + other.moved, self.exponentials + other.exponentials)

    def seconds(self, device: str) -> float:
        """At least, on this machine."""
        return ceilings(device).floor(self.flops.float32, self.flops.bfloat16, self.moved, self.exponentials)

    def bound(self, device: str) -> str:
        """What takes longest of it."""
        at, flops = ceilings(device), self.flops
        seconds = {
            "arithmetic": at.floor(float32=flops.float32, bfloat16=flops.bfloat16),
            "exponentials": at.floor(exponentials=self.exponentials),
            "bytes": at.floor(moved=self.moved),
        }
        return max(seconds, key=seconds.__getitem__)


class Moved(TorchDispatchMode):
    """The bytes of operands and results of what `operations` names."""

    def __init__(self, operations: Any):
        super().__init__()
        self.operations, self.bytes = operations, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if getattr(func, "_overloadpacket", None) in self.operations:
            written = (kwargs or {}).get("out", out)
            self.bytes += sum(t.nbytes for t in tree_leaves((args, written)) if isinstance(t, Tensor))
        return out


def counted(call: Callable[[], object]) -> Work:
    """Of a call, which is made."""
    operations = counter()
    moved = Moved(operations.flop_registry)
    with moved, operations:  # the inner mode first takes composite operations apart
        call()
    return Work(operations.counted(), moved.bytes)


def floor(call: Callable[[], object], device: str = "cpu") -> float:
    """Seconds that a call takes at least."""
    with torch.random.fork_rng(devices=[]):
        return counted(call).seconds(device)


def update(parameters: int) -> Work:
    """Clipping, AdamW and average of so many."""
    return Work(moved=(CLIPPING + ADAMW + AVERAGES) * parameters)


def token(net: Generator, rows: int, past: float, weight: float, number: float) -> Work:
    """A further token of each of `rows` sequences: the products of blocks and head, and attention to `past` rows each.

    net: of ordinary linear layers, also where lighter ones run. weight, number: bytes of a number of a matrix, and of
    keys and values; products are of float32 where the latter have 4 bytes, else of bfloat16.
    """
    matrices = sum(p.numel() for part in (net.layers, net.output) for p in part.parameters() if p.dim() == 2)
    keys = 2 * len(net.layers) * past * net.embedding.shape[1]  # and values
    operations = round(2 * rows * (matrices + keys))
    flops = Flops(0, operations) if number == 4 else Flops(operations, 0)
    return Work(flops, weight * matrices + number * rows * keys)
