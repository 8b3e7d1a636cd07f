"""The Frechet distance against closed forms and against the matrix square root that papers write."""

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


@pytest.mark.parametrize("n", [900, 400, 200], ids=["n > D", "n just above D", "n < D"])
def test_the_shortcut_of_many_channels_equals_the_singular_values(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """And where there is none, as of equal sets whose covariance is all but singular, it is not taken."""
    features = torch.randn(2, n, 300).double() * torch.logspace(0, -3, 300)
    a, b = gaussian(features[0]), gaussian(1.1 * features[1] + 0.1)
    found, equal = frechet(a, b), frechet(a, a)
    monkeypatch.setattr("gear.evaluate.frechet.SMALL", 300)
    assert frechet(a, b) == pytest.approx(found, rel=1e-10)
    assert 0 <= equal < 1e-7 * a.covariance.trace()
    if n > 300:
        assert found == pytest.approx(twin(features[0], 1.1 * features[1] + 0.1), rel=1e-8)


def test_no_shortcut_where_it_would_cost_digits() -> None:
    """Ten channels are shared, and each set has 290 of its own, with little in them: of the singular values as many are
    0, and the roots of eigenvalues that are only rounding would each put 1e-8 in their place."""
    turn = torch.linalg.qr(torch.randn(600, 600).double()).Q
    shared, own_a, own_b = (turn[:, part] for part in (slice(10), slice(10, 300), slice(300, 590)))
    a, b = (shared @ shared.T + 1e-4 * own @ own.T for own in (own_a, own_b))
    distance = frechet(*(Gaussian(torch.zeros(600).double(), S, 1000) for S in (a, b)))
    assert distance == pytest.approx(2 * 290 * 1e-4, rel=1e-9)


def test_images_all_alike_have_no_covariance() -> None:
    """A generator that draws one image only: what is left is the distance of the means, and the other's trace."""
    features = correlated(50, 8)
    one = gaussian(torch.full((10, 8), 3.0))
    apart = (features.mean(0) - 3).square().sum() + features.var(0).sum()
    assert frechet(one, gaussian(features)) == pytest.approx(apart.item(), rel=1e-12)
    assert frechet(one, one) == 0


def test_a_part_can_be_taken_out_again() -> None:
    features = correlated(60, 7) + 100
    whole, part = Moments(7), Moments(7)
    whole.add(features)
    part.add(features[:20])
    rest = whole.without(part).gaussian()
    assert rest.n == 40
    torch.testing.assert_close(rest.mean, features[20:].mean(0))
    torch.testing.assert_close(rest.covariance, torch.cov(features[20:].T), rtol=1e-9, atol=1e-9)


def test_a_distance_in_2048_channels() -> None:
    """Of S and 4 S, whose roots commute: (2 - 1)^2 tr S."""
    factor = torch.randn(2048, 2500).double()
    S = factor @ factor.T / 2500
    one, four = (Gaussian(torch.zeros(2048).double(), scale * S, 2500) for scale in (1, 4))
    assert frechet(one, four) == pytest.approx(S.trace().item(), rel=1e-9)


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


@pytest.mark.parametrize("kind", ["negative", "asymmetric"])
def test_what_is_no_covariance_is_refused(kind: str) -> None:
    """Minus the identity had a distance of 0 to anything."""
    S = torch.eye(4).double()
    S = -S if kind == "negative" else S + torch.ones(4, 4).triu(1)
    with pytest.raises(FrechetError, match="symmetric, with a diagonal of 0 or more"):
        frechet(Gaussian(torch.zeros(4).double(), S, 9), gaussian(torch.randn(50, 4)))
