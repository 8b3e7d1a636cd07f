"""Group normalisation and swish of channels-last images as Triton kernels, for CUDA.

torch's own group norm asks for channels-first memory there, so around every one of them the convolutions' channels-last
images are copied twice, and under autocast it works on float32 copies. These read and write the images where they lie,
in their own type, and compute in float32; the backward pass keeps x alone. What bounds them: bytes. Forward x is read
twice and y written; backward x and dy are read twice and dx written.

    a = w (x - mean_g) / sqrt(var_g + eps) + b;  y = a sigmoid(a), or a

B images, P positions, C channels in groups of C / G. Sums are over parts of the positions first, then over the parts in
a fixed order: no atomics, equal inputs give equal bits.
"""

from typing import Any

import torch
import triton  # pyright: ignore[reportMissingImports]  (a CPU build of torch comes without)
import triton.language as tl  # pyright: ignore[reportMissingImports]
from torch import Tensor
from torch.autograd.function import once_differentiable
from triton.language import constexpr  # pyright: ignore[reportMissingImports]

from gear.kernels import kernel

PARTS = 64  # of the positions of an image: with 32 images 2,048 programs, which fill any GPU
TILE = 8192  # values in a program's hands at once


@kernel
def _sums(x_ptr, sums_ptr, P, C, CP: constexpr, ROWS: constexpr, PARTS: constexpr):
    """Of each channel over a part of the positions: sum of x, sum of x^2."""
    image, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    channel = tl.arange(0, CP)
    one, two = tl.zeros([CP], tl.float32), tl.zeros([CP], tl.float32)
    length = tl.cdiv(P, PARTS)
    end = tl.minimum((part + 1) * length, P)
    for start in range(part * length, end, ROWS):
        row = start + tl.arange(0, ROWS)
        inside = (row < end)[:, None] & (channel < C)[None, :]
        at = image * P * C + row[:, None] * C + channel[None, :]
        x = tl.load(x_ptr + at, mask=inside, other=0.0).to(tl.float32)
        one, two = one + tl.sum(x, 0), two + tl.sum(x * x, 0)
    out = sums_ptr + (image * PARTS + part) * 2 * C + channel
    tl.store(out, one, mask=channel < C)
    tl.store(out + C, two, mask=channel < C)


@kernel
def _affine(x_ptr, y_ptr, scale_ptr, shift_ptr, P, C, CP: constexpr, ROWS: constexpr, SWISH: constexpr):
    """y = swish(scale x + shift), scale and shift of each image and channel."""
    image, channel = tl.program_id(0).to(tl.int64), tl.arange(0, CP)
    row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    inside = (row < P)[:, None] & (channel < C)[None, :]
    at = image * P * C + row[:, None] * C + channel[None, :]
    scale = tl.load(scale_ptr + image * C + channel, mask=channel < C, other=0.0)
    shift = tl.load(shift_ptr + image * C + channel, mask=channel < C, other=0.0)
    y = tl.load(x_ptr + at, mask=inside, other=0.0).to(tl.float32) * scale[None, :] + shift[None, :]
    if SWISH:
        y = y * tl.sigmoid(y)
    tl.store(y_ptr + at, y.to(y_ptr.dtype.element_ty), mask=inside)


@kernel
def _grad_sums(
    x_ptr, dy_ptr, scale_ptr, shift_ptr, sums_ptr, P, C,
    CP: constexpr, ROWS: constexpr, PARTS: constexpr, SWISH: constexpr,
):  # fmt: skip
    """Of each channel over a part of the positions: sum of da, sum of da x."""
    image, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    channel = tl.arange(0, CP)
    scale = tl.load(scale_ptr + image * C + channel, mask=channel < C, other=0.0)
    shift = tl.load(shift_ptr + image * C + channel, mask=channel < C, other=0.0)
    one, two = tl.zeros([CP], tl.float32), tl.zeros([CP], tl.float32)
    length = tl.cdiv(P, PARTS)
    end = tl.minimum((part + 1) * length, P)
    for start in range(part * length, end, ROWS):
        row = start + tl.arange(0, ROWS)
        inside = (row < end)[:, None] & (channel < C)[None, :]
        at = image * P * C + row[:, None] * C + channel[None, :]
        x = tl.load(x_ptr + at, mask=inside, other=0.0).to(tl.float32)
        da = tl.load(dy_ptr + at, mask=inside, other=0.0).to(tl.float32)
        if SWISH:
            a = x * scale[None, :] + shift[None, :]
            gate = tl.sigmoid(a)
            da = da * gate * (1 + a * (1 - gate))
        one, two = one + tl.sum(da, 0), two + tl.sum(da * x, 0)
    out = sums_ptr + (image * PARTS + part) * 2 * C + channel
    tl.store(out, one, mask=channel < C)
    tl.store(out + C, two, mask=channel < C)


@kernel
def _grad_x(
    x_ptr, dy_ptr, dx_ptr, scale_ptr, shift_ptr, slope_ptr, level_ptr, P, C,
    CP: constexpr, ROWS: constexpr, SWISH: constexpr,
):  # fmt: skip
    """dx = scale da - slope x - level, slope and level of each image and channel."""
    image, channel = tl.program_id(0).to(tl.int64), tl.arange(0, CP)
    row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    inside = (row < P)[:, None] & (channel < C)[None, :]
    at = image * P * C + row[:, None] * C + channel[None, :]
    known = image * C + channel
    scale = tl.load(scale_ptr + known, mask=channel < C, other=0.0)
    shift = tl.load(shift_ptr + known, mask=channel < C, other=0.0)
    slope = tl.load(slope_ptr + known, mask=channel < C, other=0.0)
    level = tl.load(level_ptr + known, mask=channel < C, other=0.0)
    x = tl.load(x_ptr + at, mask=inside, other=0.0).to(tl.float32)
    da = tl.load(dy_ptr + at, mask=inside, other=0.0).to(tl.float32)
    if SWISH:
        a = x * scale[None, :] + shift[None, :]
        gate = tl.sigmoid(a)
        da = da * gate * (1 + a * (1 - gate))
    dx = da * scale[None, :] - x * slope[None, :] - level[None, :]
    tl.store(dx_ptr + at, dx.to(dx_ptr.dtype.element_ty), mask=inside)


class Normalise(torch.autograd.Function):
    """y of x, B x C x H x W, of the type `out`, channels last; w and b float32, C."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, w: Tensor, b: Tensor, groups: int, eps: float, swish: bool, out: torch.dtype
    ) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        B, C, P = x.shape[0], x.shape[1], x.shape[2] * x.shape[3]
        tile = {"CP": 1 << (C - 1).bit_length(), "num_warps": 8}
        tile["ROWS"] = max(1, TILE // tile["CP"])
        sums = torch.empty(B, PARTS, 2, C, device=x.device)
        _sums[(B, PARTS)](x, sums, P, C, **tile, PARTS=PARTS)
        # Of few values, so in float64: the mean square less the squared mean loses no digits.
        mean, square = (sums.double().sum(1).unflatten(-1, (groups, -1)).sum(-1) * (groups / (C * P))).unbind(1)
        rstd = (square - mean.square()).clamp_min(0).add(eps).rsqrt()
        mean, rstd = (t.repeat_interleave(C // groups, 1, output_size=C) for t in (mean, rstd))
        scale = (rstd * w).float()
        shift = (b - mean * rstd * w).float()
        y = torch.empty_like(x, dtype=out)
        _affine[(B, triton.cdiv(P, tile["ROWS"]))](x, y, scale, shift, P, C, **tile, SWISH=swish)
        ctx.save_for_backward(x, w, scale, shift, mean.float(), rstd.float())
        ctx.groups, ctx.swish, ctx.tile = groups, swish, tile
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, w, scale, shift, mean, rstd = ctx.saved_tensors
        B, C, P = x.shape[0], x.shape[1], x.shape[2] * x.shape[3]
        dy = dy.contiguous(memory_format=torch.channels_last)
        sums = torch.empty(B, PARTS, 2, C, device=x.device)
        _grad_sums[(B, PARTS)](x, dy, scale, shift, sums, P, C, **ctx.tile, PARTS=PARTS, SWISH=ctx.swish)
        da, da_x = sums.double().sum(1).unbind(1)
        da_n = (da_x - mean * da) * rstd  # with n = (x - mean) rstd, the normalised x
        first, second = (
            (t * w).unflatten(-1, (ctx.groups, -1)).mean(-1).repeat_interleave(C // ctx.groups, 1, output_size=C) / P
            for t in (da, da_n)
        )
        # dx = rstd (w da - first - n second)
        slope = rstd.square() * second
        level = (rstd * first - slope * mean).float()
        dx = torch.empty_like(x)
        _grad_x[(B, triton.cdiv(P, ctx.tile["ROWS"]))](
            x, dy, dx, scale, shift, slope.float(), level, P, C, **ctx.tile, SWISH=ctx.swish
        )
        return dx, da_n.sum(0).float(), da.sum(0).float(), None, None, None, None
