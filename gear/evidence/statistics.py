"""Means, spreads and paired differences over seeds.

A seed is a whole repetition, warm-up included, so seeds are independent and two arms of one seed share all but what
sets them apart: their difference is taken seed by seed. Intervals are Student's, since seeds are few.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """Over `n` seeds: the mean, the sample's standard deviation, and the bounds of the mean's 95 % interval; the last
    three None for one seed."""

    mean: float
    sd: float | None
    low: float | None
    high: float | None
    n: int


def estimate(values: Sequence[float]) -> Estimate:
    """Raises ValueError for no value."""
    x = np.asarray(values, float)
    if len(x) == 0:
        raise ValueError("there is nothing to estimate a mean from: no value came.")
    if len(x) == 1:
        return Estimate(float(x[0]), None, None, None, 1)
    sd = float(x.std(ddof=1))
    reach = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(x) - 1)) * sd / len(x) ** 0.5
    mean = float(x.mean())
    return Estimate(mean, sd, mean - reach, mean + reach, len(x))


def paired(arm: Mapping[int, float], other: Mapping[int, float]) -> Estimate | None:
    """Of `arm` less `other`, over the seeds that both have; None if there are none."""
    seeds = sorted(arm.keys() & other.keys())
    return estimate([arm[seed] - other[seed] for seed in seeds]) if seeds else None


def reached(curve: Sequence[tuple[float, float]], level: float) -> float | None:
    """Where a curve of (x, y), x increasing, first comes down to `level`, between two points along a straight line;
    None if it never does."""
    before = None
    for x, y in curve:
        if y <= level:
            if before is None or before[1] == y:
                return x
            share = (before[1] - level) / (before[1] - y)
            return before[0] + share * (x - before[0])
        before = (x, y)
    return None
