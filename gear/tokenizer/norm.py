"""Group normalisation with the swish that mostly follows it."""

from functools import cache
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class Norm(nn.GroupNorm):
    """`nn.GroupNorm` with eps 1e-6; on CUDA both of its calls are one pass over channels-last memory each way."""

    def __init__(self, channels: int, groups: int):
        super().__init__(groups, channels, eps=1e-6)

    def forward(self, input: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
        return super().forward(input) if _kernels(input) is None else self._fused(input, swish=False)

    def swish(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
        """norm(x) sigmoid(norm(x))."""
        if _kernels(x) is not None:
            return self._fused(x, swish=True)
        y = super().forward(x)
        return F.silu(y, inplace=not y.requires_grad)

    def _fused(self, x: Tensor, swish: bool) -> Tensor:
        kernels = _kernels(x)
        assert kernels is not None
        low = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else x.dtype
        return kernels.Normalise.apply(x, self.weight, self.bias, self.num_groups, self.eps, swish, low)


def _kernels(x: Tensor) -> ModuleType | None:
    """`torch.compile` fuses what it finds in its own way; float64 is for tests."""
    if not x.is_cuda or x.dtype == torch.float64 or torch.compiler.is_compiling():
        return None
    return _triton()


@cache
def _triton() -> ModuleType | None:
    return import_module("gear.tokenizer.norm_kernels") if find_spec("triton") is not None else None
