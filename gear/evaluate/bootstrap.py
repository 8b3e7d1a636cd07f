"""How far a number would move with other images of the same kind: intervals by resampling the images."""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from jaxtyping import Float, Int

RESAMPLES = 1000
GROUPS = 20
BLOCK = 100  # resamples whose indices are held at once


@dataclass(frozen=True)
class Interval:
    """low and high, in the units of the number."""

    low: float
    high: float

    def pair(self) -> list[float]:
        """As results.json has it."""
        return [self.low, self.high]


def interval(
    statistic: Callable[[Int[np.ndarray, "n"]], float],
    n: int,
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Percentile bootstrap over n images (Efron 1979): `statistic` of the indices of a resample, with replacement.

    It is as biased as the statistic: images that come twice look to a Frechet or nearest-neighbour distance like fewer
    images, so intervals of those lie on the far side of the value. Use `jackknife` there, and `mmd2_interval` for KID.
    Raises ValueError for n < 2.
    """
    _check(n, level)
    random = np.random.default_rng(seed)
    return percentiles(np.array([statistic(random.integers(0, n, n)) for _ in range(resamples)], np.float64), level)


def mean_interval(
    values: Float[np.ndarray, "n"], resamples: int = RESAMPLES, seed: int = 0, level: float = 0.95
) -> Interval:
    """`interval` of the mean of one value an image: PSNR, SSIM, LPIPS, CLIP score, right or wrong."""
    return interval(lambda chosen: float(values[chosen].mean()), len(values), resamples, seed, level)


@dataclass(frozen=True)
class Jackknife:
    """
    value: of all images. sd: its standard error. bias: its expected excess over the value of infinitely many images, as
    far as that falls with 1 / n, which a Frechet distance's does. interval: value +- z sd, about the value at this n,
    not about what it would be at infinite n.
    """

    value: float
    sd: float
    bias: float
    interval: Interval


def jackknife(
    statistic: Callable[[Int[np.ndarray, "kept"]], float],
    n: int,
    groups: int = GROUPS,
    seed: int = 0,
    level: float = 0.95,
) -> Jackknife:
    """Delete-a-group jackknife (Kott 2001): `statistic` of all indices, then of all but each of the random groups.

    `groups` + 1 evaluations, none with an image twice: for statistics that are dear, or biased in n. Raises ValueError
    for n < 2.
    """
    _check(n, level)
    groups = min(groups, n)
    group = np.random.default_rng(seed).permutation(np.arange(n) % groups)
    value = statistic(np.arange(n))
    left = np.array([statistic(np.flatnonzero(group != g)) for g in range(groups)], np.float64)
    return jackknifed(value, left, level)


def jackknifed(value: float, left: Float[np.ndarray, "G"], level: float = 0.95) -> Jackknife:
    """`jackknife` of a value and those that remain without each of G equal groups."""
    G = len(left)
    sd = float(np.sqrt((G - 1) / G * np.square(left - left.mean()).sum()))
    z = NormalDist().inv_cdf((1 + level) / 2)
    return Jackknife(value, sd, (G - 1) * (left.mean().item() - value), Interval(value - z * sd, value + z * sd))


def percentiles(found: Float[np.ndarray, "R"], level: float) -> Interval:
    """The middle `level` of resampled values."""
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


def _check(n: int, level: float) -> None:
    if n < 2:
        raise ValueError(f"an interval needs at least 2 images; {n} came.")
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1; it is {level}.")
