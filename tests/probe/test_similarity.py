"""CKA and CKNNA: identities, and twins in float64 that hold every kernel and loop over every pair."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from gear.probe import similarity
from gear.probe.similarity import cka, cka_unbiased, cknna, hsic_unbiased

EXACT = 1e-10  # float64, sums of some thousand products


def pair(n: int = 12, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Related features of 5 and 3 channels, far from centred."""
    X = torch.randn(n, 5, dtype=dtype) + 2
    return X, X[:, :3] * torch.tensor([3, 1, 1]) + torch.randn(n, 3, dtype=dtype) - 1


def kernel(X: Tensor) -> list[list[float]]:
    return [[sum(a * b for a, b in zip(x, y, strict=True)) for y in X.tolist()] for x in X.tolist()]


def twin_biased(X: Tensor, Y: Tensor) -> float:
    """tr(K H L H), up to the factor, which cancels."""
    n = len(X)
    H = torch.eye(n, dtype=torch.float64) - 1 / n
    K, L = (torch.tensor(kernel(t), dtype=torch.float64) for t in (X, Y))
    return float(torch.trace(K @ H @ L @ H))


def twin_cka(X: Tensor, Y: Tensor) -> float:
    return twin_biased(X, Y) / math.sqrt(twin_biased(X, X) * twin_biased(Y, Y))


def eq5(K: list[list[float]], L: list[list[float]]) -> float:
    """Song et al.'s unbiased HSIC of kernels with zero diagonals, as the code of Huh et al. has it for any matrix."""
    n = len(K)
    all_ = range(n)
    trace = sum(K[i][j] * L[j][i] for i in all_ for j in all_)
    total = sum(map(sum, K)) * sum(map(sum, L))
    between = sum(K[i][j] * L[j][r] for i in all_ for j in all_ for r in all_)
    return (trace + total / ((n - 1) * (n - 2)) - 2 * between / (n - 2)) / (n * (n - 3))


def u_statistic(X: Tensor, Y: Tensor) -> float:
    """What eq. 5 is a short form of: the mean over all four different rows (Song et al. 2012, section 4)."""
    K, L = kernel(X), kernel(Y)
    terms = [K[i][j] * (L[i][j] + L[q][r] - 2 * L[i][q]) for i, j, q, r in itertools.permutations(range(len(X)), 4)]
    return sum(terms) / len(terms)


def twin_cknna(X: Tensor, Y: Tensor, k: int) -> float:
    kernels = kernel(X), kernel(Y)
    n = range(len(X))
    near = [[sorted((j for j in n if j != i), key=lambda j: -K[i][j])[:k] for i in n] for K in kernels]

    def hsic(a: int, b: int) -> float:
        shared = [[j in near[a][i] and j in near[b][i] for j in n] for i in n]
        K, L = ([[kernels[s][i][j] * shared[i][j] for j in n] for i in n] for s in (a, b))
        return eq5(K, L)

    return hsic(0, 1) / math.sqrt(hsic(0, 0) * hsic(1, 1))


def test_cka_equals_its_twin():
    X, Y = pair()
    assert cka(X, Y) == pytest.approx(twin_cka(X, Y), abs=EXACT)


def test_unbiased_cka_equals_the_mean_over_quadruples():
    X, Y = pair(7)
    expected = u_statistic(X, Y) / math.sqrt(u_statistic(X, X) * u_statistic(Y, Y))
    assert cka_unbiased(X, Y) == pytest.approx(expected, abs=EXACT)
    centred = [t - t.mean(0) for t in (X, Y)]
    assert float(hsic_unbiased(*centred)) == pytest.approx(u_statistic(X, Y), rel=EXACT)


@pytest.mark.parametrize("k", [2, 3, 8, 11])
def test_cknna_equals_its_twin(k, monkeypatch):
    monkeypatch.setattr(similarity, "BLOCK", 5 * 12)  # several blocks, the last one short
    X, Y = pair()
    assert cknna(X, Y, k) == pytest.approx(twin_cknna(X, Y, k), abs=EXACT)


def test_float32_is_as_good_as_it_can_be():
    X, Y = pair(200, torch.float32)
    for measure in (cka, cka_unbiased, cknna):
        assert measure(X, Y) == pytest.approx(measure(X.double(), Y.double()), abs=1e-5)


@pytest.mark.parametrize("measure", [cka, cka_unbiased, cknna])
def test_invariances(measure):
    X, Y = pair(40)
    Q, _ = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64))
    assert measure(X, X) == pytest.approx(1, abs=EXACT)
    assert measure(X, X @ Q) == pytest.approx(1, abs=EXACT)
    assert measure(X, 7 * X) == pytest.approx(1, abs=EXACT)
    assert measure(X @ Q, Y / 3) == pytest.approx(measure(X, Y), abs=EXACT)
    assert abs(measure(X, Y)) < 0.99
    order = torch.randperm(40)
    assert measure(X[order], Y[order]) == pytest.approx(measure(X, Y), abs=EXACT)


@pytest.mark.parametrize("measure", [cka, cka_unbiased])
def test_cka_does_not_see_the_mean_and_does_see_the_scale_of_a_channel(measure):
    X, Y = pair(40)
    assert measure(X + 100, Y - 3) == pytest.approx(measure(X, Y), abs=1e-8)
    assert measure(X * torch.tensor([9, 1, 1, 1, 1]), Y) != pytest.approx(measure(X, Y), abs=0.01)


def test_cknna_of_all_neighbours_is_unbiased_cka():
    X, Y = pair(30)
    assert cknna(X, Y, 29) == pytest.approx(cka_unbiased(X, Y), abs=EXACT)
    assert cknna(X, Y, 10) != pytest.approx(cka_unbiased(X, Y), abs=0.01)


def test_noise():
    """Biased CKA of independent noise is what the docstring says, and the unbiased one 0."""
    n, D, C = 400, 200, 300
    X, Y = torch.randn(n, D), torch.randn(n, C)
    assert cka(X, Y) == pytest.approx(math.sqrt(D * C / ((n + D) * (n + C))), abs=0.01)
    assert cka_unbiased(X, Y) == pytest.approx(0, abs=0.01)
    assert abs(cknna(X, Y)) < 0.1


def test_what_is_undefined_is_nan():
    X, _ = pair(20)
    X, same = X[:19], torch.full((19, 3), 0.1, dtype=torch.float64)
    assert (same - same.mean(0)).any()  # rounding is not to be taken for features
    for measure in (cka, cka_unbiased):
        assert math.isnan(measure(X, same))
        assert math.isnan(measure(same, same))
    apart = cknna(torch.eye(20), torch.eye(20))  # no inner product but 0
    assert math.isnan(apart)


def test_no_shared_neighbours():
    angles = torch.arange(12) * 2 * math.pi / 12
    circle = torch.stack([angles.cos(), angles.sin()], 1)
    far = circle[(torch.arange(12) * 5) % 12]  # neighbours on one circle are five steps apart on the other
    assert cknna(circle, far, 2) == 0.0


def test_too_few_rows():
    with pytest.raises(ValueError, match="2 <= k < n and n >= 4; k is 10, and there are n = 10"):
        cknna(torch.randn(10, 3), torch.randn(10, 3))
    with pytest.raises(ValueError, match="k is 1,"):
        cknna(torch.randn(10, 3), torch.randn(10, 3), 1)
    with pytest.raises(ValueError, match="needs 4 rows; there are 3"):
        cka_unbiased(torch.randn(3, 2), torch.randn(3, 2))
