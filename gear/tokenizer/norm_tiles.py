"""Group normalisation and swish of channels-last images, where there are no Triton kernels: the backward pass.

torch's takes 35 ms of two cores for 8 million bfloat16 values of channels-last images, where channels-first ones take
2.5, and keeps what the swish was given beside x. This one keeps x alone and goes over it twice, a tile at a time in
float32. What bounds it: bytes, x and dy twice and dx once.

    n = (x - mean_g) / sqrt(var_g + eps);  a = w n + b;  y = a sigmoid(a), or a
    db = sum da;  dw = sum da n;  dx = (w da - mean_g(w da) - n mean_g(w da n)) / sqrt(var_g + eps)

B images, P positions, C channels in G groups of C / G. da = dL/da is made anew for dx, which needs all of its sums.
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from gear.tiles import full

TILE = 1 << 18  # values at once: 1 MiB of float32, which a core's own cache holds


class Normalise(torch.autograd.Function):
    """y of x, B x C x H x W, in its type and layout; w and b, C."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, b: Tensor, groups: int, eps: float, swish: bool) -> Tensor:
        if not (x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last)):
            x = x.contiguous(memory_format=torch.channels_last)
        if x.is_cuda:  # which takes no mixed types
            x = x.to(torch.promote_types(x.dtype, w.dtype))
        y, mean, rstd = torch.native_group_norm(x, w, b, len(x), x.shape[1], x.shape[2:].numel(), groups, eps)
        ctx.save_for_backward(x, w, b, mean, rstd)
        ctx.swish = swish
        return F.silu(y, inplace=True) if swish else y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, w, b, mean, rstd = ctx.saved_tensors
        (h, wide), groups = x.shape[2:], mean.shape[1]
        x, dy = (t.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1).flatten(1, 2) for t in (x, dy))
        B, P, C = x.shape
        w, b = (full(t).view(groups, -1) for t in (w, b))
        mean, rstd = (full(t)[..., None] for t in (mean, rstd))
        scale = rstd * w  # [B G C/G], as are the others below
        shift = b - mean * scale
        by_channel, from_zero = (t.reshape(B, 1, C) for t in (scale, shift))
        sums = scale.new_zeros(2, B, C)
        for images, _, part, da in _slopes(x, dy, by_channel, from_zero, ctx.swish):
            sums[0, images] += da.sum(1)
            sums[1, images] += da.mul_(part).sum(1)
        of_da, of_da_x = sums.double().view(2, B, groups, C // groups)
        # In float64, as there are few: the difference loses digits.
        of_da_n = rstd * (of_da_x - mean * of_da)
        mean_da, mean_da_n = ((w * t).mean(-1, keepdim=True) / P for t in (of_da, of_da_n))
        by_x = -rstd.square() * mean_da_n
        rest = -by_x * mean - rstd * mean_da
        by_x, rest = (t.to(scale).expand_as(scale).reshape(B, 1, C) for t in (by_x, rest))
        dx = torch.empty_like(x)
        for images, places, part, da in _slopes(x, dy, by_channel, from_zero, ctx.swish):
            dx[images, places] = da.mul_(by_channel[images]).addcmul_(part, by_x[images]).add_(rest[images])
        dx = dx.unflatten(1, (h, wide)).permute(0, 3, 1, 2)
        dw, db = (t.sum(0).flatten() for t in (of_da_n, of_da))
        return dx, dw, db, None, None, None


def _slopes(
    x: Float[Tensor, "B P C"],
    dy: Float[Tensor, "B P C"],
    scale: Float[Tensor, "B 1 C"],
    shift: Float[Tensor, "B 1 C"],
    swish: bool,
) -> Iterator[tuple[slice, slice, Tensor, Tensor]]:
    """Which images and positions, x and dL/da there; wide, in memory that the next tile uses again."""
    B, P, C = x.shape
    positions = max(1, min(P, TILE // C))
    images = max(1, min(B, TILE // (P * C)))
    memory = scale.new_empty(3, images * positions * C)
    for i in range(0, B, images):
        for p in range(0, P, positions):
            at = slice(i, min(i + images, B)), slice(p, min(p + positions, P))
            part, slope = x[at], dy[at]
            wide_x, wide_dy, a = (m[: part.numel()].view(part.shape) for m in memory)
            if part.dtype != scale.dtype:
                part, slope = wide_x.copy_(part), wide_dy.copy_(slope)
            if swish:
                torch.addcmul(shift[at[0]], part, scale[at[0]], out=a)
                torch.ops.aten.silu_backward.grad_input(slope, a, grad_input=a)
                yield *at, part, a
            else:
                yield *at, part, a.copy_(slope)
