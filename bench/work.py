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

NONE = Flops(0, 0)


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
    operations, aten = counter(), torch.ops.aten
    operations.flop_registry[aten.addmm_] = operations.flop_registry[aten.addmm]  # torch leaves it out
    moved = Moved(operations.flop_registry)
    with moved, operations:  # the inner mode first takes composite operations apart
        call()
    return Work(operations.counted(), moved.bytes)


def floor(call: Callable[[], object], device: str = "cpu") -> float:
    """Seconds that a call takes at least."""
    with torch.random.fork_rng(devices=[]):
        return counted(call).seconds(device)
