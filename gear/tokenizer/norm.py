"""Group normalisation with the swish that mostly follows it."""

from types import ModuleType

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from gear.cuda import compiled


class Norm(nn.GroupNorm):
    """`nn.GroupNorm` with eps 1e-6; on CUDA both of its calls are one pass over channels-last memory each way."""

    def __init__(self, channels: int, groups: int):
        super().__init__(groups, channels, eps=1e-6)

    def forward(self, input: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
        kernels = _kernels(input)
        return super().forward(input) if kernels is None else self._fused(kernels, input, swish=False)

    def swish(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
        """norm(x) sigmoid(norm(x))."""
        if (kernels := _kernels(x)) is not None:
            return self._fused(kernels, x, swish=True)
        y = super().forward(x)
        return F.silu(y, inplace=not y.requires_grad)

    def _fused(self, kernels: ModuleType, x: Tensor, swish: bool) -> Tensor:
        low = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else x.dtype
        return kernels.Normalise.apply(x, self.weight, self.bias, self.num_groups, self.eps, swish, low)


def _kernels(x: Tensor) -> ModuleType | None:
    """`torch.compile` fuses what it finds in its own way; float64 is for tests."""
    if not x.is_cuda or x.dtype == torch.float64 or torch.compiler.is_compiling():
        return None
    return compiled("gear.tokenizer.norm_kernels")
