"""How far a number would move with other images of the same kind: intervals by resampling the images."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import torch
from jaxtyping import Float, Int

from gear.evaluate.frechet import Gaussian, Moments, frechet

RESAMPLES = 1000
GROUPS = 20


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
    group = _grouped(n, groups, seed)
    value = statistic(np.arange(n))
    return _jackknife(value, [statistic(np.flatnonzero(group != g)) for g in range(group.max() + 1)], level)


def frechet_jackknife(
    features: Float[np.ndarray, "n D"],
    reference: Gaussian | Float[np.ndarray, "_ D"],
    groups: int = GROUPS,
    seed: int = 0,
    level: float = 0.95,
    progress: Callable[[int, int], None] | None = None,
) -> Jackknife:
    """`jackknife` of the Frechet distance, from moments that are collected once; of 2048 channels in half a minute.

    reference: a Gaussian that stays as it is, so that the interval is that of other samples against this very
    reference; or the features of the same n images before something was done to them, which are left out with them.
    `bias` is what few images add to the distance: an FID's interval is about what it is at n. sd is cautious, up to
    twice the true one where the distance is mostly bias. progress: takes the distances done and all. Raises
    `FrechetError` as `frechet` does, ValueError for n < 4.
    """
    n = len(features)
    if n < 4:
        raise ValueError(f"the interval of a Frechet distance needs at least 4 images; {n} came.")
    if not isinstance(reference, Gaussian) and len(reference) != n:
        raise ValueError(f"features that are left out in pairs must be as many; {n} and {len(reference)} came.")
    group = _grouped(n, min(groups, n // 2), seed)
    sets = [features] if isinstance(reference, Gaussian) else [features, reference]
    parts = [[_moments(s[np.flatnonzero(group == g)]) for g in range(group.max() + 1)] for s in sets]
    whole = [_merged(of) for of in parts]
    found: list[float] = []
    for g in range(-1, len(parts[0])):
        kept = [m if g < 0 else m.without(of[g]) for m, of in zip(whole, parts, strict=True)]
        fixed = [reference] if isinstance(reference, Gaussian) else []
        a, b = [m.gaussian() for m in kept] + fixed
        found.append(frechet(a, b))
        if progress:
            progress(len(found), len(parts[0]) + 1)
    return _jackknife(found[0], found[1:], level)


def _moments(features: np.ndarray) -> Moments:
    moments = Moments(features.shape[1])
    moments.add(torch.from_numpy(np.array(features)))
    return moments


def _merged(parts: Sequence[Moments]) -> Moments:
    whole = Moments(len(parts[0].mean))
    for part in parts:
        whole.merge(part)
    return whole


def _grouped(n: int, groups: int, seed: int) -> Int[np.ndarray, "n"]:
    """The group of each image, at random, of sizes that differ by one at most."""
    if groups < 2:
        raise ValueError(f"a jackknife needs at least 2 groups; groups is {groups}.")
    return np.random.default_rng(seed).permutation(np.arange(n) % groups)


def _jackknife(value: float, without: Sequence[float], level: float) -> Jackknife:
    left, G = np.array(without, np.float64), len(without)
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
