"""f(x) of eq. 5: what a target encoder is, and two ways to normalise its features.

An encoder is a class in a file of its own and answers three questions: `__init__(weights_path, layer)`, which file it
is and which of its layers; `preprocess(pixels, grid)`, what it is shown; `features(pixels, grid)`, what it sees there.
"""

from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn


@runtime_checkable
class Target(Protocol):
    """A frozen vision encoder whose patch features the generator is aligned to.

    name: its name in `Config.target`, and the key of its features in a batch. channels: C, their width.
    """

    name: str
    channels: int

    def features(self, pixels: UInt8[Tensor, "B 3 H W"], grid: tuple[int, int]) -> Float[Tensor, "B N C"]:
        """One vector a token: the image is resized so that the encoder's own patches are the grid h x w.

        N = h w in row-major order; float32, on the device of `pixels`, which must be the encoder's; no gradient.
        """
        ...

    def to(self, device: torch.device) -> "Target": ...


def resized(pixels: UInt8[Tensor, "B 3 H W"], size: tuple[int, int]) -> Float[Tensor, "B 3 h w"]:
    """Bicubic with antialias, kept in [0, 255], float32; pixels of that size already are only converted."""
    if pixels.shape[2:] == size:
        return pixels.float()
    return F.interpolate(pixels.float(), size, mode="bicubic", antialias=True).clamp(0, 255)


class SpatiallyNormalised(nn.Module):
    """A target whose channels are normalised over the positions of each image, as iREPA has it (Singh et al. 2025):

        g = f - alpha mean(f),  g / (std(g) + 1e-6)

    mean and standard deviation (unbiased) over the N tokens of one image, for each channel. Appendix A: alpha = 0.6 for
    SigLIP 2 and V-JEPA 2.1; the released code does so for CLIP too. With alpha = 0 only the spread is normalised.
    """

    def __init__(self, target: Target, alpha: float = 0.6):
        super().__init__()
        self.target, self.name, self.channels, self.alpha = target, target.name, target.channels, alpha

    def features(self, pixels: UInt8[Tensor, "B 3 H W"], grid: tuple[int, int]) -> Float[Tensor, "B N C"]:
        f = self.target.features(pixels, grid)
        g = f - self.alpha * f.mean(1, keepdim=True)
        return g / (g.std(1, correction=1, keepdim=True) + 1e-6)


class Standardised(nn.Module):
    """A target whose channels have mean 0 and variance 1 over images and positions: (f(x) - mean) / std.

    Eq. 5 compares by the cosine, which a mean that all images share inflates and a few wide channels dominate. DINOv2
    ends in a LayerNorm and the release uses it as it is. EfficientNet-Lite0's map is the output of a linear bottleneck:
    spreads differ 2.5-fold between channels, and two different images agree at the same position by a cosine of 0.38
    (emoji) or 0.18 (CIFAR-10), standardised by 0.23 or 0.10. The best constant vector for each position, which knows
    nothing of the image, reaches 0.61 or 0.41, standardised 0.47 or 0.30: so much less is there to be had for nothing.

    The buffers `mean` and `std` are what a run has to keep.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, target: Target, mean: Float[Tensor, "C"], std: Float[Tensor, "C"]):
        super().__init__()
        self.target, self.name, self.channels = target, target.name, target.channels
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def features(self, pixels: UInt8[Tensor, "B 3 H W"], grid: tuple[int, int]) -> Float[Tensor, "B N C"]:
        return (self.target.features(pixels, grid) - self.mean) / self.std


@torch.no_grad()
def fit_standardisation(
    target: Target, pixels: UInt8[Tensor, "M 3 H W"], grid: tuple[int, int], batch: int = 64
) -> Standardised:
    """Mean and standard deviation of each channel over all positions of `pixels`; a few hundred images are enough.

    A channel that never varies becomes 0. Sums are in float64, over `batch` images at a time.
    """
    count, total, squares = 0, torch.zeros(()), torch.zeros(())
    for part in pixels.split(batch):
        f = target.features(part, grid).flatten(0, 1).double()
        count, total, squares = count + len(f), total + f.sum(0), squares + f.square().sum(0)
    mean = total / count
    variance = squares / count - mean.square()
    std = torch.where(variance > 1e-12, variance.sqrt(), torch.inf)
    return Standardised(target, mean.float(), std.float())
