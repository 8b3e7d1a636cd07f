"""Means, intervals and crossings against numbers by hand and by scipy's own test."""

import numpy as np
import pytest
from scipy import stats

from gear.evidence.statistics import estimate, paired, reached


def test_an_estimate_by_hand() -> None:
    found = estimate([1.0, 2.0, 3.0])
    assert (found.mean, found.sd, found.n) == (2.0, 1.0, 3)
    # the 97.5 % quantile of Student's t with two degrees of freedom is 4.3027; over the root of three 2.4841
    assert (found.low, found.high) == (pytest.approx(2 - 2.4841, abs=1e-4), pytest.approx(2 + 2.4841, abs=1e-4))


def test_one_value_has_no_spread() -> None:
    found = estimate([4.0])
    assert (found.mean, found.sd, found.low, found.high, found.n) == (4.0, None, None, None, 1)


def test_no_value_is_refused() -> None:
    with pytest.raises(ValueError, match="no value came"):
        estimate([])


@pytest.mark.parametrize("n", [2, 3, 8])
def test_the_paired_interval_is_that_of_students_test(n: int) -> None:
    a, b = np.random.default_rng(n).normal(size=(2, n))
    found = paired(dict(enumerate(a.tolist())), dict(enumerate(b.tolist())))
    by_scipy = stats.ttest_rel(a, b).confidence_interval(0.95)
    assert found is not None
    assert (found.low, found.high) == (pytest.approx(by_scipy.low), pytest.approx(by_scipy.high))


def test_pairs_are_of_the_seeds_that_both_have() -> None:
    found = paired({0: 5.0, 1: 7.0, 3: 100.0}, {1: 4.0, 0: 4.0, 2: -100.0})
    assert found is not None
    assert (found.mean, found.n) == (2.0, 2)
    assert paired({0: 1.0}, {1: 1.0}) is None


@pytest.mark.parametrize(
    ("level", "step"),
    [
        (9.0, 100.0),  # it is there at its first point
        (5.0, 200.0),  # at a point
        (4.0, 250.0),  # between two
        (2.5, 450.0),  # the first time counts: it had risen again
        (1.0, None),
    ],
)
def test_reached(level: float, step: float | None) -> None:
    assert reached([(100.0, 9.0), (200.0, 5.0), (300.0, 3.0), (400.0, 3.0), (500.0, 2.0), (600.0, 4.0)], level) == step


def test_an_empty_curve_reaches_nothing() -> None:
    assert reached([], 1.0) is None
