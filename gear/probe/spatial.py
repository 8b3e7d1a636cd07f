"""How smooth feature maps are in space (Figure 5c and f): Moran's I, and the share of high frequencies.

f holds one vector of C channels for each of N = h w positions in raster order, for B images. Both measures are of
single images, so that their spread over images can be shown; both are NaN for a map that is the same everywhere.
"""

from collections.abc import Callable
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from gear.assignment import full

RADIUS = 0.25  # cycles a token: half of what a grid can hold along an axis
BLOCK = 1 << 18  # entries of f at once: 1 MiB of float32, which a core's cache holds (four times as fast)


def morans_i(f: Float[Tensor, "B N C"], grid: tuple[int, int]) -> Float[Tensor, "B"]:
    """Moran's I (Moran 1950), the mean over channels of

        I = N / W  sum_ij w_ij (x_i - m) (x_j - m) / sum_i (x_i - m)^2,    m = mean(x),  W = sum_ij w_ij

    with w_ij = 1 for rook neighbours (a common edge) and 0 otherwise: binary weights, not row-standardised. 1 is where
    neighbours are equal, -1 a checkerboard, -1 / (N - 1) no order. Channels that are constant over the image are left
    out of the mean.
    """
    h, w = grid
    if h * w < 2:
        raise ValueError("Moran's I compares neighbours: a grid of 1 x 1 has none.")

    def of(part: Tensor) -> Tensor:
        y, squares = _centred(part)
        m = y.unflatten(1, grid)
        joined = (m[:, 1:] * m[:, :-1]).sum((1, 2)) + (m[:, :, 1:] * m[:, :, :-1]).sum((1, 2))
        varies = squares > 0
        per_channel = torch.where(varies, joined / squares, 0.0)
        return per_channel.sum(1) / varies.sum(1) * (h * w / (h * (w - 1) + w * (h - 1)))  # 0 / 0 where none varies

    return _in_blocks(of, f)


def high_frequency_share(
    f: Float[Tensor, "B N C"], grid: tuple[int, int], radius: float = RADIUS
) -> Float[Tensor, "B"]:
    """The FFT high-frequency ratio: of the energy of the map's two-dimensional discrete Fourier transform,

        sum_{r > radius} |F_c(v, u)|^2 / sum_{r > 0} |F_c(v, u)|^2,    r = sqrt(v^2 + u^2) in cycles a token

    energies summed over channels c, v and u in [-1/2, 1/2), no window. The constant term (r = 0) is in neither sum. In
    [0, 1]; white noise has the share of the frequencies that are high, 0.81 on 16 x 16. The paper names the measure and
    does not define it; this definition is ours.

    The low frequencies are few, so what is computed is their part, by projection, and by Parseval's theorem the rest is
    the high ones': a sixth of the time of the whole transform.
    """
    low = low_frequencies(grid, radius).to(f.device, full(f).dtype)

    def of(part: Tensor) -> Tensor:
        y, squares = _centred(part)
        total = squares.sum(1)
        share = (1 - (low @ y).square().sum((1, 2)) / total).clamp(0, 1)
        return torch.where(total > 0, share, torch.nan)

    return _in_blocks(of, f)


@lru_cache(maxsize=8)
def low_frequencies(grid: tuple[int, int], radius: float) -> Float[Tensor, "m N"]:
    """An orthonormal basis of the maps of frequencies 0 < r <= radius: cosines and sines. Float64."""
    if not 0 < radius < 0.5:
        raise ValueError(f"radius must be between 0 and 0.5 cycles a token; it is {radius}.")
    h, w = grid
    v, u = torch.meshgrid(*(torch.fft.fftfreq(n, dtype=torch.float64) for n in grid), indexing="ij")
    once = (v > 0) | ((v == 0) & (u > 0))  # (v, u) and (-v, -u) are one pair of waves; r < 1/2 is never its own
    chosen = once & (torch.hypot(v, u) <= radius + 1e-9)
    y, x = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in grid), indexing="ij")
    phase = 2 * torch.pi * (v[chosen][:, None] * y.flatten() + u[chosen][:, None] * x.flatten())
    return torch.cat([phase.cos(), phase.sin()]) * (2 / (h * w)) ** 0.5


def _centred(f: Tensor) -> tuple[Float[Tensor, "B N C"], Float[Tensor, "B C"]]:
    """f - m for each image and channel, and the sum of its squares, 0 where they are what rounding leaves."""
    f = full(f)
    m = f.mean(1, keepdim=True)
    y = f - m
    squares, rounding = y.square().sum(1), 4 * torch.finfo(f.dtype).eps * m[:, 0].abs()
    return y, torch.where(squares > f.shape[1] * rounding.square(), squares, 0.0)


def _in_blocks(of: Callable[[Tensor], Tensor], f: Tensor) -> Float[Tensor, "B"]:
    return torch.cat([of(part) for part in f.split(max(1, BLOCK // f[0].numel()))])
