"""Pillow's bicubic resize of 8-bit images, to the last bit, for whole batches and on any device.

Networks of FD-DINOv2 and CLIP were given images that Pillow had resized. Resizes of other libraries are off by a level
here and there, or by many where they lack the antialias, and distances move with them (Parmar et al. 2022).
"""

from functools import lru_cache

import torch
from jaxtyping import Float64, UInt8
from torch import Tensor

BITS = 22  # of the fraction of Pillow's fixed-point weights: 32 - 8 - 2
A = -0.5  # of the cubic
REACH = 2.0  # of the cubic, in pixels of the coarser image


def pil_resize(pixels: UInt8[Tensor, "B 3 H W"], size: tuple[int, int]) -> UInt8[Tensor, "B 3 h w"]:
    """What `Image.resize((w, h), Image.Resampling.BICUBIC)` gives for each image, size being (h, w).

    Across first, rounded to 8 bits, then down, as Pillow did before version 13 and published numbers have it; since
    then it goes down first where the height shrinks by much more than the width, which differs by some levels. Products
    of whole numbers below 2^53 are exact in float64.
    """
    h, w = size
    x = pixels.double()
    if w != x.shape[3]:
        x = _levels(x @ _weights(x.shape[3], w).to(x.device).T)
    if h != x.shape[2]:
        x = _levels(_weights(x.shape[2], h).to(x.device) @ x)
    return x.to(torch.uint8)


def pil_square(pixels: UInt8[Tensor, "B 3 H W"], side: int) -> UInt8[Tensor, "B 3 {side} {side}"]:
    """The short side to `side`, then the square in the middle: torchvision's Resize and CenterCrop on PIL images."""
    H, W = pixels.shape[2:]
    short = min(H, W)
    h, w = side * H // short, side * W // short
    top, left = round((h - side) / 2), round((w - side) / 2)
    return pil_resize(pixels, (h, w))[:, :, top : top + side, left : left + side]


def _levels(x: Float64[Tensor, "B 3 h w"]) -> Float64[Tensor, "B 3 h w"]:
    return ((x + 2.0 ** (BITS - 1)) / 2.0**BITS).floor().clamp(0, 255)


@lru_cache(maxsize=32)
def _weights(before: int, after: int) -> Float64[Tensor, "{after} {before}"]:
    """Row i: what each pixel of a line contributes to pixel i of the resized one, times 2^22, whole numbers."""
    scale = before / after
    wide = max(scale, 1.0)  # the antialias: the cubic spans pixels of the coarser image
    centre = (torch.arange(after, dtype=torch.float64) + 0.5) * scale
    first = (centre - REACH * wide + 0.5).to(torch.int64).clamp(min=0)
    last = (centre + REACH * wide + 0.5).to(torch.int64).clamp(max=before)  # not included
    at = torch.arange(before)
    far = ((at + 0.5 - centre[:, None]) / wide).abs()
    near = ((A + 2) * far - (A + 3)) * far * far + 1
    outer = (((far - 5) * far + 8) * far - 4) * A
    weights = torch.where(far < 1, near, torch.where(far < REACH, outer, 0.0))
    weights = weights * ((at >= first[:, None]) & (at < last[:, None]))
    weights = weights / weights.sum(1, keepdim=True)
    return (weights * 2.0**BITS + 0.5 * weights.sign()).trunc()
