"""Group normalisation with the swish that mostly follows it."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from gear.cuda import compiled
from gear.tokenizer import norm_tiles


class Norm(nn.GroupNorm):
    """`nn.GroupNorm` with eps 1e-6, of channels-last images; what it keeps for the backward pass is its input."""

    def __init__(self, channels: int, groups: int):
        super().__init__(groups, channels, eps=1e-6)

    def forward(self, input: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
        return self._normalised(input, swish=False)

    def swish(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
        """norm(x) sigmoid(norm(x))."""
        return self._normalised(x, swish=True)

    def _normalised(self, x: Tensor, swish: bool) -> Tensor:
        if torch.compiler.is_compiling():  # which fuses what it finds in its own way
            y = super().forward(x)
            return F.silu(y) if swish else y
        given = x, self.weight, self.bias, self.num_groups, self.eps, swish
        if x.is_cuda and x.dtype != torch.float64 and (kernels := compiled("gear.tokenizer.norm_kernels")) is not None:
            low = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else x.dtype
            return kernels.Normalise.apply(*given, low)
        return norm_tiles.Normalise.apply(*given)
