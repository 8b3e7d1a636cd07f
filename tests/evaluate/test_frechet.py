"""The Frechet distance against closed forms and against the matrix square root that papers write."""

import time

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torch import Tensor

from gear.evaluate.frechet import FrechetError, Gaussian, Moments, frechet, gaussian


def normal(variances: Tensor, mean: Tensor) -> Gaussian:
    return Gaussian(mean.double(), variances.double().diag(), n=1000)


def correlated(n: int, channels: int, shift: float = 0.0) -> Tensor:
    return torch.randn(n, channels).double() @ torch.randn(channels, channels).double() + shift


def twin(a: Tensor, b: Tensor) -> float:
    """|m_a - m_b|^2 + tr(S_a + S_b - 2 sqrtm(S_a S_b)), term by term."""
    S_a, S_b = torch.cov(a.T).numpy(), torch.cov(b.T).numpy()
    root = np.real(np.asarray(sqrtm(S_a @ S_b)))
    return ((a.mean(0) - b.mean(0)) ** 2).sum().item() + (S_a + S_b - 2 * root).trace()


def test_diagonal_gaussians() -> None:
    """Where covariances commute: |m_a - m_b|^2 + |sqrt(v_a) - sqrt(v_b)|^2, zero variances too."""
    v_a, v_b = torch.tensor([4.0, 1.0, 0.0, 9.0]), torch.tensor([1.0, 0.0, 0.0, 16.0])
    m_a, m_b = torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([1.0, 0.0, 3.0, 7.0])
    assert frechet(normal(v_a, m_a), normal(v_b, m_b)) == pytest.approx((4 + 9) + (1 + 1 + 0 + 1), rel=1e-12)


@pytest.mark.parametrize("n", [500, 6], ids=["n > D", "n < D"])
def test_equal_sets_are_0_apart_and_a_shift_counts_squared(n: int) -> None:
    features = correlated(n, 12)
    a, scale = gaussian(features), features.var(0).sum().item()
    assert 0 <= frechet(a, a) < 1e-11 * scale
    assert frechet(a, gaussian(features + 3)) == pytest.approx(12 * 9, rel=1e-9)


def test_it_is_symmetric_and_scales_with_the_square() -> None:
    a, b = correlated(40, 8), correlated(50, 8, shift=1)
    distance = frechet(gaussian(a), gaussian(b))
    assert frechet(gaussian(b), gaussian(a)) == pytest.approx(distance, rel=1e-12)
    assert frechet(gaussian(10 * a), gaussian(10 * b)) == pytest.approx(100 * distance, rel=1e-10)


def test_it_equals_the_matrix_square_root() -> None:
    a, b = correlated(300, 20), correlated(200, 20, shift=0.5)
    assert frechet(gaussian(a), gaussian(b)) == pytest.approx(twin(a, b), rel=1e-9)


@pytest.mark.filterwarnings("ignore:Matrix is singular")  # the twin's own difficulty
def test_it_equals_the_matrix_square_root_where_n_is_less_than_D() -> None:
    """Both covariances are singular, and sqrtm has half the digits left."""
    a, b = correlated(10, 30), correlated(15, 30, shift=0.5)
    assert frechet(gaussian(a), gaussian(b)) == pytest.approx(twin(a, b), rel=1e-5)


def test_disjoint_supports_leave_both_traces() -> None:
    """R_a^T R_b = 0: nothing overlaps. A square root of eigenvalues that are only rounding would take some off."""
    a, b = torch.zeros(9, 40).double(), torch.zeros(9, 40).double()
    a[:, :20], b[:, 20:] = torch.randn(9, 20).double(), torch.randn(9, 20).double()
    expected = (a.mean(0) - b.mean(0)).square().sum() + a.var(0).sum() + b.var(0).sum()
    assert frechet(gaussian(a), gaussian(b)) == pytest.approx(expected.item(), rel=1e-12)


def test_a_rotation_does_not_matter() -> None:
    a, b = correlated(12, 20), correlated(30, 20)
    turn = torch.linalg.qr(torch.randn(20, 20).double()).Q
    assert frechet(gaussian(a @ turn), gaussian(b @ turn)) == pytest.approx(frechet(gaussian(a), gaussian(b)), rel=1e-9)


@pytest.mark.parametrize("offset", [0.0, 1e5])
def test_batches_and_merged_parts_give_what_all_at_once_gives(offset: float) -> None:
    """Far from zero too, where the mean of squares minus the square of the mean has no digit left in the covariance."""
    features = correlated(101, 7) + offset
    halves = Moments(7), Moments(7)
    for i, part in enumerate(features.split(13)):
        halves[i % 2].add(part)
    halves[0].merge(Moments(7))  # a process that saw nothing
    halves[0].merge(halves[1])
    for moments in (halves[0].gaussian(), gaussian(features)):
        assert moments.n == 101
        torch.testing.assert_close(moments.mean, features.mean(0))
        torch.testing.assert_close(moments.covariance, torch.cov(features.T), rtol=1e-8, atol=1e-8)


def test_half_precision_features_are_counted_in_float64() -> None:
    features = torch.randn(100, 4).to(torch.float16) + 100
    torch.testing.assert_close(gaussian(features).covariance, torch.cov(features.double().T))


def test_a_distance_in_1280_channels_takes_seconds() -> None:
    features = torch.randn(2, 1000, 1280)
    a, b = gaussian(features[0]), gaussian(2 * features[1])
    start = time.process_time()
    distance = frechet(a, b)
    assert time.process_time() - start < 6  # 1 s on a quiet core
    assert distance > 1280


def test_what_has_no_distance() -> None:
    features = torch.randn(5, 3)
    with pytest.raises(FrechetError, match="at least 2 feature vectors; 1 came"):
        gaussian(features[:1])
    with pytest.raises(FrechetError, match="1 of 5 vectors hold NaN"):
        gaussian(features.index_fill(0, torch.tensor([2]), float("nan")))
    with pytest.raises(FrechetError, match="one has 3 channels, the other 4"):
        frechet(gaussian(features), gaussian(torch.randn(5, 4)))
    with pytest.raises(FrechetError, match="3 channels as before; they have 4"):
        Moments(3).add(torch.randn(5, 4))
    broken = Gaussian(torch.zeros(3).double(), torch.full((3, 3), torch.inf).double(), 5)
    with pytest.raises(FrechetError, match="must be finite"):
        frechet(broken, gaussian(features))
