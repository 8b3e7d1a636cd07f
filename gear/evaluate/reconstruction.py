"""How far reconstructions are from their originals, image by image, in 8-bit pixels and float64."""

import torch
from jaxtyping import Float64, UInt8
from torch import Tensor

from gear.evaluate.similarity import PEAK


def psnr(x_hat: UInt8[Tensor, "B 3 H W"], x: UInt8[Tensor, "B 3 H W"]) -> Float64[Tensor, "B"]:
    """Peak signal-to-noise ratio, 10 log10(255^2 / mean squared error), in dB; higher is better.

    The mean over a set is the mean of these, not the PSNR of the mean error. Two identical images would give infinity,
    and the mean with it: their error counts as one level in one value, the least by which two images can differ, so
    they reach 48.1 + 10 log10(3 H W) dB, 89 dB at 64 px.
    """
    least = 1 / x.shape[1:].numel()
    return 10 * (PEAK**2 / _error(x_hat, x).square().mean((1, 2, 3)).clamp(min=least)).log10()


def l1(x_hat: UInt8[Tensor, "B 3 H W"], x: UInt8[Tensor, "B 3 H W"]) -> Float64[Tensor, "B"]:
    """Mean absolute error of images in [0, 1]; half of `gear.losses.reconstruction`, whose images are in [-1, 1]."""
    return _error(x_hat, x).abs().mean((1, 2, 3)) / PEAK


def _error(x_hat: UInt8[Tensor, "B 3 H W"], x: UInt8[Tensor, "B 3 H W"]) -> Float64[Tensor, "B 3 H W"]:
    """In levels, signed."""
    return x_hat.to(torch.float64) - x.to(torch.float64)
