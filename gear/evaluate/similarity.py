"""Structural similarity, in the two forms that tables call SSIM; they differ in the third digit or the second.

On the device of the images, in batches: scikit-image's loop would hold up a GPU. Both equal what scikit-image makes of
the same pixels in float64.
"""

import math
from collections.abc import Callable

from jaxtyping import Float, Float64, UInt8
from torch import Tensor

PEAK = 255  # levels
C1, C2 = (0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2
SIDE = 7  # px, of the uniform window
REACH, SIGMA = 5, 1.5  # px, of the Gaussian one, which is 11 wide


def ssim(x_hat: UInt8[Tensor, "B 3 H W"], x: UInt8[Tensor, "B 3 H W"]) -> Float64[Tensor, "B"]:
    """scikit-image's `structural_similarity` as it is by default: 7 x 7 uniform windows, covariances over 48, the mean
    over windows that lie within the image, then over channels; the SSIM of the paper's tables. At most 1.

    Of 8-bit images, so of [0, 1] in steps of 1 / 255. Raises ValueError below 7 px.
    """
    return _similarity(x_hat, x, SIDE, _uniform, SIDE**2 / (SIDE**2 - 1))


def ssim_gaussian(x_hat: UInt8[Tensor, "B 3 H W"], x: UInt8[Tensor, "B 3 H W"]) -> Float64[Tensor, "B"]:
    """Of Wang et al. 2004, eq. 13: 11 x 11 Gaussian windows, sigma 1.5 px, covariances over n; scikit-image's with
    gaussian_weights=True and use_sample_covariance=False. Else as `ssim`. Raises ValueError below 11 px."""
    return _similarity(x_hat, x, 2 * REACH + 1, _gaussian, 1.0)


def _similarity(x_hat: Tensor, x: Tensor, side: int, windows: Callable[[Tensor], Tensor], norm: float) -> Tensor:
    if min(x.shape[-2:]) < side:
        raise ValueError(
            f"this SSIM needs images of at least {side} x {side} px; they are {x.shape[-2]} x {x.shape[-1]}."
        )
    a, b = x_hat.float(), x.float()
    mean_a, mean_b, squares, products = (windows(t) for t in (a, b, a * a + b * b, a * b))
    mm, m2 = mean_a * mean_b, mean_a.square_().add_(mean_b.square_())
    covariance = products.sub_(mm).mul_(2 * norm).add_(C2)
    variances = squares.sub_(m2).mul_(norm).add_(C2)
    return mm.mul_(2).add_(C1).div_(m2.add_(C1)).mul_(covariance).div_(variances).mean((1, 2, 3))


def _uniform(t: Float[Tensor, "B 3 H W"]) -> Float64[Tensor, "B 3 h w"]:
    """The means of all windows. Sums of 2, then 4, then 7 whole numbers along each axis, exact: all are below 2^24."""
    for axis in (3, 2):
        n = t.shape[axis]
        two = t.narrow(axis, 0, n - 1) + t.narrow(axis, 1, n - 1)
        four = two.narrow(axis, 0, n - 3) + two.narrow(axis, 2, n - 3)
        t = (four.narrow(axis, 0, n - 6) + two.narrow(axis, 4, n - 6)).add_(t.narrow(axis, 6, n - 6))
    return t.double().div_(SIDE**2)


def _gaussian(t: Float[Tensor, "B 3 H W"]) -> Float64[Tensor, "B 3 h w"]:
    """The weighted means of all windows: sums of shifted images, as torch convolves float64 slowly."""
    weights = [math.exp(-0.5 * (i / SIGMA) ** 2) for i in range(REACH + 1)]
    total = weights[0] + 2 * sum(weights[1:])
    t = t.double()
    for axis in (2, 3):
        n = t.shape[axis] - 2 * REACH
        out = t.narrow(axis, REACH, n) * (weights[0] / total)
        for i in range(1, REACH + 1):
            out.add_(t.narrow(axis, REACH - i, n) + t.narrow(axis, REACH + i, n), alpha=weights[i] / total)
        t = out
    return t
