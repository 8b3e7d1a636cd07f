"""KID and MMD against a double loop over images, torch-fidelity, and what a distance must do."""

import numpy as np
import pytest
import torch
from torch_fidelity.metric_kid import kid_features_to_metric

from gear.evaluate import kernel
from gear.evaluate.kernel import KernelError, kid, mmd2, mmd2_interval


def features(n: int, channels: int = 16, scale: float = 1.0) -> np.ndarray:
    return np.abs(np.random.randn(n, channels) * scale).astype(np.float32)


def twin(x: np.ndarray, y: np.ndarray) -> float:
    """Binkowski et al. 2018, eq. 4, pair by pair."""

    def k(a: np.ndarray, b: np.ndarray) -> float:
        return (sum(float(p) * float(q) for p, q in zip(a, b, strict=True)) / len(a) + 1) ** 3

    def within(s: np.ndarray) -> float:
        return sum(k(s[i], s[j]) for i in range(len(s)) for j in range(len(s)) if i != j) / (len(s) * (len(s) - 1))

    between = sum(k(a, b) for a in x for b in y) / (len(x) * len(y))
    return within(x) + within(y) - 2 * between


def test_all_at_once_equals_a_loop_over_the_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = features(11), features(7, scale=1.5)
    assert mmd2(x, y) == pytest.approx(twin(x, y), rel=1e-6)
    assert mmd2(x, x) == pytest.approx(twin(x, x), rel=1e-6)
    monkeypatch.setattr(kernel, "BLOCK", 3)  # in blocks that are not whole
    assert mmd2(x.astype(np.float64), y.astype(np.float64)) == pytest.approx(twin(x, y), rel=1e-12)


@pytest.mark.parametrize("seed", [0, 2020])
def test_it_equals_torch_fidelity(seed: int) -> None:
    a, b = features(80), features(60, scale=1.2)
    found = kid(a, b, subsets=10, size=40, seed=seed)
    options = {"kid_subsets": 10, "kid_subset_size": 40, "rng_seed": seed, "verbose": False}
    theirs = kid_features_to_metric(torch.from_numpy(a).double(), torch.from_numpy(b).double(), **options)
    assert found.mean == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-6)
    assert found.sd == pytest.approx(theirs["kernel_inception_distance_std"], rel=1e-5)
    assert (found.subsets, found.size) == (10, 40)


def test_one_subset_of_all_images_is_all_at_once() -> None:
    a, b = features(30), features(30, scale=2)
    assert kid(a, b, subsets=2, size=30).mean == pytest.approx(mmd2(a, b), rel=1e-6)
    assert kid(a, b, subsets=2, size=30).sd < 1e-6


def test_small_sets_take_smaller_subsets() -> None:
    """Halves: subsets of everything would all be the same one."""
    found = kid(features(50), features(21), subsets=5)
    assert found.size == 10
    assert found.sd > 0


def test_it_is_unbiased_in_the_number_of_images() -> None:
    """Between sets of one kind it is 0 on average, below it half of the time."""
    found = [mmd2(features(20), features(20)) for _ in range(100)]
    assert abs(np.mean(found)) < 3 * np.std(found) / 10
    assert 20 < sum(value < 0 for value in found) < 80


def test_it_grows_with_what_is_done_to_the_features() -> None:
    a, noise = features(200), np.random.randn(200, 16).astype(np.float32)
    found = [kid(a, a[::-1] + s * noise, subsets=10, size=100).mean for s in (0.2, 0.5, 1.0, 2.0)]
    assert found == sorted(found)


def test_the_interval_holds_the_value_as_often_as_it_says() -> None:
    """About the unbiased estimate: pairs of an image with itself would put it above."""
    a, b = features(400), features(400, scale=1.3)
    truth = mmd2(features(3000), features(3000, scale=1.3))
    found = mmd2_interval(a, b)
    assert found.low < mmd2(a, b) < found.high
    assert mmd2_interval(a, b) == found  # seeded
    parts = [mmd2_interval(features(60), features(60, scale=1.3), resamples=200, level=0.9) for _ in range(50)]
    assert sum(each.low < truth < each.high for each in parts) >= 37  # 45 on average


def test_images_all_alike_and_half_precision() -> None:
    """Of ones only: (1 + 1)^3 + (4 / 2 + 1 ...) by hand; float16 is taken in float32."""
    x, y = np.ones((10, 4), np.float32), np.zeros((12, 4), np.float32)
    assert mmd2(x, y) == pytest.approx(8 + 1 - 2)
    assert mmd2(x, x) == pytest.approx(0, abs=1e-12)
    assert mmd2(x.astype(np.float16), y.astype(np.float16)) == pytest.approx(7)


def test_what_has_no_distance() -> None:
    a = features(10)
    with pytest.raises(KernelError, match="one has 16 channels, the other 5"):
        kid(a, features(10, 5))
    with pytest.raises(KernelError, match="at least 4 images in each set; 3 came"):
        kid(a, a[:3])
    with pytest.raises(KernelError, match="at least 1 subset of at least 2 images; 0 of 1000"):
        kid(a, a, subsets=0)
    broken = a.copy()
    broken[3, 2] = np.nan
    with pytest.raises(KernelError, match="1 of 10 vectors hold NaN"):
        mmd2(a, broken)


def test_any_seed_of_samples_is_one_of_subsets() -> None:
    a, b = (np.random.default_rng(i).standard_normal((40, 8)) for i in range(2))
    assert kid(a, b, 5, 10, seed=2**32 + 3) == kid(a, b, 5, 10, seed=3)
