"""Operations and bytes of a piece of code, counted while it runs, on tensors that have no contents if one likes."""

import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from gear import tiles
from gear.tokenizer import norm_tiles


@dataclass(frozen=True)
class Flops:
    """Floating-point operations, a multiplication and an addition counted as two, by the precision of their operands:
    what autocast makes bfloat16, and what is float32 without it or for all that (A, LPIPS, a frozen tokenizer).

    tf32: of the float32 ones, those that TF32 may do, which A's never are."""

    bfloat16: int
    float32: int
    tf32: int = 0

    @property
    def total(self) -> int:
        return self.bfloat16 + self.float32

    def __add__(self, other: "Flops") -> "Flops":
        return Flops(self.bfloat16 + other.bfloat16, self.float32 + other.float32, self.tf32 + other.tf32)

    def __sub__(self, other: "Flops") -> "Flops":
        return Flops(self.bfloat16 - other.bfloat16, self.float32 - other.float32, self.tf32 - other.tf32)

    def __mul__(self, times: int) -> "Flops":
        return Flops(self.bfloat16 * times, self.float32 * times, self.tf32 * times)


class Alive(TorchDispatchMode):
    """The bytes of all storages that exist while it is on: `at_first`, now, and at the `peak`."""

    def __init__(self, there: Iterable[Tensor]):
        super().__init__()
        self.now = self.peak = 0
        self.known: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()
        for tensor in there:
            self._see(tensor)
        self.at_first = self.now

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._see(leaf)
        return out

    def _see(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage not in self.known and tensor.device.type != "meta":  # `frozen` keeps structures without memory
            self.known.add(storage)
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._gone, storage.nbytes())

    def _gone(self, size: int) -> None:
        self.now -= size


class _Shapes(FakeTensorMode):
    """FakeTensorMode whose tensors can be in a module that is deep-copied, as the average of a model is."""

    def __deepcopy__(self, memo: dict[int, Any]) -> "_Shapes":
        return self


@contextmanager
def shapes_only() -> Iterator[None]:
    """Tensors without contents. `Module.to`, which such tensors do not survive, does nothing: all is on one device.

    The read-outs go over more of A at once, for 120 MiB more, and group norms over more of an image, for 190, because
    every tile has to be traced.
    """
    stay: Callable[..., nn.Module] = lambda module, *_, **__: module  # noqa: E731
    of_a = patch.object(tiles, "ENTRIES", 16 * tiles.ENTRIES)
    of_images = patch.object(norm_tiles, "TILE", 64 * norm_tiles.TILE)
    with _Shapes(), patch.object(nn.Module, "to", stay), of_a, of_images, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of data_ptr(), which modules ask for when they are copied
        yield


class Counter(FlopCounterMode):
    """torch's, which also counts apart what has operands of 32 bits or more, and of it what runs while TF32 is
    allowed."""

    float32 = tf32 = 0

    def _count_flops(self, func_packet: Any, out: Any, args: Any, kwargs: Any) -> Any:
        before = self.get_total_flops()
        out = super()._count_flops(func_packet, out, args, kwargs)
        first = next((t for t in args if isinstance(t, Tensor) and t.is_floating_point()), None)
        if first is not None and first.dtype.itemsize >= 4:
            found = self.get_total_flops() - before
            self.float32 += found
            self.tf32 += 0 if torch.get_float32_matmul_precision() == "highest" else found
        return out

    def counted(self) -> Flops:
        return Flops(self.get_total_flops() - self.float32, self.float32, self.tf32)


def counter() -> Counter:
    """torch's, and what it leaves out: attention on a CPU, products added in place."""
    aten = torch.ops.aten

    def forward(q: Any, k: Any, v: Any, *_: Any, **__: Any) -> int:
        return sdpa_flop_count(q, k, v)

    def backward(grad: Any, q: Any, k: Any, v: Any, *_: Any, **__: Any) -> int:
        return sdpa_backward_flop_count(grad, q, k, v)

    formulas = {
        aten._scaled_dot_product_flash_attention_for_cpu: forward,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: backward,
    }
    operations = Counter(display=False, custom_mapping=formulas)
    operations.flop_registry[aten.addmm_] = operations.flop_registry[aten.addmm]
    return operations
