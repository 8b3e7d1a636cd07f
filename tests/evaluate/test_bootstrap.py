"""Intervals against textbook standard errors, and how often they hold what they should."""

from functools import partial

import numpy as np
import pytest
import torch

from gear.evaluate.bootstrap import (
    Interval,
    frechet_jackknife,
    interval,
    jackknife,
    mean_interval,
)
from gear.evaluate.frechet import FrechetError, frechet, gaussian


def distance(a: np.ndarray, b: np.ndarray) -> float:
    return frechet(gaussian(torch.from_numpy(a)), gaussian(torch.from_numpy(b)))


def test_the_interval_of_a_mean_is_1_96_standard_errors() -> None:
    values = np.random.randn(400) * 3 + 20
    found, error = mean_interval(values, resamples=4000), values.std() / 20
    assert found.low == pytest.approx(values.mean() - 1.96 * error, abs=0.1 * error)
    assert found.high == pytest.approx(values.mean() + 1.96 * error, abs=0.1 * error)
    assert mean_interval(values.astype(np.float32)).low == pytest.approx(found.low, abs=0.1 * error)
    narrow = mean_interval(values, level=0.5)
    assert narrow.high - narrow.low == pytest.approx(2 * 0.674 * error, rel=0.1)


def test_it_holds_the_truth_as_often_as_it_says() -> None:
    found = [mean_interval(np.random.rand(50), resamples=200, level=0.9) for _ in range(100)]
    assert 80 <= sum(each.low < 0.5 < each.high for each in found) <= 98


def test_it_is_seeded_and_takes_any_statistic() -> None:
    values = np.random.randn(60)
    median = partial(interval, lambda chosen: float(np.median(values[chosen])), 60, 300)
    assert median(seed=1) == median(seed=1) != median(seed=2)
    assert median().low < np.median(values) < median().high
    assert Interval(1.0, 2.0).pair() == [1, 2]


def test_the_jackknife_of_a_mean_is_its_standard_error() -> None:
    """Leaving out one at a time gives s / sqrt(n) exactly, and no bias; leaving out groups about the same."""
    values = np.random.randn(200)
    mean = partial(jackknife, lambda kept: float(values[kept].mean()), 200)
    one = mean(groups=200)
    assert one.value == pytest.approx(values.mean())
    assert one.sd == pytest.approx(values.std(ddof=1) / np.sqrt(200), rel=1e-9)
    assert one.bias == pytest.approx(0, abs=1e-10)
    assert one.interval.pair() == pytest.approx([one.value - 1.96 * one.sd, one.value + 1.96 * one.sd], abs=1e-4)
    assert mean(groups=20).sd == pytest.approx(one.sd, rel=0.5)


def test_the_jackknife_finds_a_bias_that_falls_with_n() -> None:
    """The variance divided by n is (n - 1) / n of the unbiased one."""
    values = np.random.randn(100)
    found = jackknife(lambda kept: float(values[kept].var()), 100, groups=100)
    assert found.value - found.bias == pytest.approx(values.var(ddof=1), rel=1e-9)


def test_that_of_a_frechet_distance_equals_leaving_images_out() -> None:
    a, b = np.random.randn(60, 5) + 10, np.random.randn(80, 5) * 1.3 + 10
    reference = gaussian(torch.from_numpy(b))
    found = frechet_jackknife(a, reference, groups=6)
    slow = jackknife(lambda kept: frechet(gaussian(torch.from_numpy(a[kept])), reference), 60, groups=6)
    assert vars(found)["value"] == pytest.approx(distance(a, b), rel=1e-9)
    assert (found.sd, found.bias) == pytest.approx((slow.sd, slow.bias), rel=1e-6)


def test_pairs_are_left_out_together() -> None:
    """Reconstructions have moved with their originals: whichever stay, the distance is nearly that of all."""
    a, seen = np.random.randn(100, 4), []
    found = frechet_jackknife(a + 2, a, groups=5, progress=lambda done, total: seen.append((done, total)))
    slow = jackknife(lambda kept: distance(a[kept] + 2, a[kept]), 100, groups=5)
    assert found.value == pytest.approx(16, rel=1e-9)
    assert found.sd == pytest.approx(slow.sd, abs=1e-9)
    assert found.sd < 1e-9
    assert seen == [(i, 6) for i in range(1, 7)]


def test_the_bias_of_a_frechet_distance_of_few_images_is_found() -> None:
    """Between sets of one kind the distance is all bias; a percentile bootstrap would put the interval above it."""
    reference = gaussian(torch.randn(50_000, 6))
    few = np.random.randn(100, 6)
    found = frechet_jackknife(few, reference)
    assert found.bias == pytest.approx(found.value, rel=0.7)
    assert abs(found.value - found.bias) < 0.7 * found.value
    above = interval(lambda chosen: frechet(gaussian(torch.from_numpy(few[chosen])), reference), 100, resamples=100)
    assert found.value < above.low


def test_what_has_no_interval() -> None:
    with pytest.raises(ValueError, match="at least 2 images; 1 came"):
        mean_interval(np.ones(1))
    with pytest.raises(ValueError, match="level must be between 0 and 1; it is 95"):
        mean_interval(np.ones(3), level=95.0)
    a = np.random.randn(10, 3)
    with pytest.raises(ValueError, match="at least 4 images; 3 came"):
        frechet_jackknife(a[:3], a[:3])
    with pytest.raises(ValueError, match="must be as many; 10 and 9"):
        frechet_jackknife(a, a[:9])
    with pytest.raises(ValueError, match="at least 2 groups; groups is 1"):
        frechet_jackknife(a, a, groups=1)
    with pytest.raises(FrechetError, match="must be finite"):
        frechet_jackknife(np.full((10, 3), np.nan), a)
