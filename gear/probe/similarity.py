"""How alike two sets of features of the same n things are (Table 4, Figure 5a, b, d, e): linear CKA and CKNNA.

Row i of X (n x D) and of Y (n x C) belongs to the same image or patch. The kernels are K = X X^T and L = Y Y^T, and
HSIC(K, L) measures how they covary. Neither measure ever holds an n x n matrix.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from gear.assignment import exact, full

BLOCK = 1 << 22  # entries of a kernel held at once: 16 MiB of float32


def cka(X: Float[Tensor, "n D"], Y: Float[Tensor, "n C"]) -> float:
    """Linear CKA, HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)), in [0, 1], with the biased estimator of HSIC that its
    authors use, tr(K H L H) / (n - 1)^2 with H = I - 1 / n (Kornblith et al. 2019, eqs. 3 and 4).

    On n rows it is inflated: noise against independent noise has sqrt(D C / ((n + D) (n + C))), which is 0.5 where
    n = D = C, and `cka_unbiased` has 0. NaN where all rows of X or of Y are equal. n >= 2. In float64.
    """
    return _normalised(hsic_biased, _centred(X), _centred(Y))


def cka_unbiased(X: Float[Tensor, "n D"], Y: Float[Tensor, "n C"]) -> float:
    """`cka` with the unbiased estimator of HSIC (Song et al. 2012, eq. 5), as Nguyen et al. (2021) have it; at most 1,
    and about 0, of either sign, where there is no relation. n >= 4."""
    if len(X) < 4:
        raise ValueError(f"the unbiased estimator of HSIC needs 4 rows; there are {len(X)}.")
    return _normalised(hsic_unbiased, _centred(X), _centred(Y))


def cknna(X: Float[Tensor, "n D"], Y: Float[Tensor, "n C"], k: int = 10) -> float:
    """Centred kernel nearest-neighbour alignment (Huh et al. 2024, the Platonic Representation Hypothesis) as their
    code computes it: unbiased CKA of kernels that are 0 but at pairs (i, j) where x_j is among the k rows of the
    largest <x_i, x_j>, j != i, and y_j likewise.

        CKNNA = HSIC(M K, M L) / sqrt(HSIC(M_K K, M_K K) HSIC(M_L L, M_L L)),    M = M_K M_L, elementwise

    2 <= k < n; n - 1 gives `cka_unbiased`. M is not symmetric, so neither, quite, is CKNNA. Rows are taken as they are:
    their code gives it rows of unit length, after it has cut outliers at the 0.95 quantile, which ours does not. Their
    1e-6 in the denominator is left out; NaN where it is not above 0.
    Equal rows, as of patches that share a codeword, are tied, and torch.topk decides.
    """
    return cknna_of(neighbours(X, k), neighbours(Y, k))


@dataclass(frozen=True)
class Neighbours:
    """The kernel of n rows at the k largest entries of each of its rows, the diagonal left out.

    places: i n + j of entry (i, j), ascending. values: K_ij there.
    """

    n: int
    places: Int64[Tensor, "nk"]
    values: Float64[Tensor, "nk"]


def neighbours(X: Float[Tensor, "n D"], k: int) -> Neighbours:
    """In float32, or float64 as X is; a block of rows at a time."""
    X, n = full(X), len(X)
    if not 2 <= k < n or n < 4:
        raise ValueError(f"CKNNA needs 2 <= k < n and n >= 4; k is {k}, and there are n = {n} rows.")
    found = []
    with exact(X.device):
        for start in range(0, n, rows := max(1, BLOCK // n)):
            K = X[start : start + rows] @ X.T
            K.diagonal(start).fill_(-torch.inf)
            found.append(K.topk(k, dim=1))
    values, columns = (torch.cat(part) for part in zip(*found, strict=True))
    places, order = (torch.arange(n, device=X.device)[:, None] * n + columns).flatten().sort()
    return Neighbours(n, places, values.flatten()[order].double())


def cknna_of(x: Neighbours, y: Neighbours) -> float:
    """`cknna`, for features that are compared with several others."""
    return _normalised(_hsic_of_shared, x, y)


def _hsic_of_shared(x: Neighbours, y: Neighbours) -> Float64[Tensor, ""]:
    """HSIC(P, Q) by Song et al.'s eq. 5, P and Q being both kernels at the places that they share, and 0 elsewhere."""
    n, shared = x.n, torch.isin(x.places, y.places)
    places, p, q = x.places[shared], x.values[shared], y.values[torch.isin(y.places, x.places)]
    i, j = places // n, places % n
    both_ways = torch.isin(j * n + i, places)  # tr(P Q) is over P_ij Q_ji, and Q_ji = Q_ij where it is not 0
    columns, rows = (p.new_zeros(n).index_add_(0, at, v) for at, v in ((j, p), (i, q)))
    return _eq5(p[both_ways] @ q[both_ways], p.sum(), q.sum(), columns @ rows, n)


def hsic_biased(X: Float64[Tensor, "n D"], Y: Float64[Tensor, "n C"]) -> Float64[Tensor, ""]:
    """tr(K H L H) / (n - 1)^2 = |X^T Y|_F^2 / (n - 1)^2, of centred columns."""
    return (X.T @ Y).square().sum() / (len(X) - 1) ** 2


def hsic_unbiased(X: Float64[Tensor, "n D"], Y: Float64[Tensor, "n C"]) -> Float64[Tensor, ""]:
    """Song et al. (2012), eq. 5, of centred columns, without the kernels: the estimator leaves out their diagonals
    |x_i|^2 and |y_i|^2, and as the rows of X X^T sum to 0, those of the rest sum to -|x_i|^2."""
    k, l = X.square().sum(1), Y.square().sum(1)  # noqa: E741
    return _eq5((X.T @ Y).square().sum() - k @ l, -k.sum(), -l.sum(), k @ l, len(X))


def _eq5(trace: Tensor, total_k: Tensor, total_l: Tensor, between: Tensor, n: int) -> Float64[Tensor, ""]:
    """(tr(K L) + 1'K1 1'L1 / ((n-1) (n-2)) - 2 / (n-2) 1'K L1) / (n (n-3)), of kernels without their diagonals."""
    return (trace + total_k * total_l / ((n - 1) * (n - 2)) - 2 * between / (n - 2)) / (n * (n - 3))


def _normalised(hsic: Callable, x: object, y: object) -> float:
    xx, yy = hsic(x, x), hsic(y, y)
    if not (xx > 0 and yy > 0):
        return float("nan")
    return float(hsic(x, y) / (xx.sqrt() * yy.sqrt()))


def _centred(X: Float[Tensor, "n D"]) -> Float64[Tensor, "n D"]:
    """Its columns; one that is constant becomes 0, not what rounding leaves of it."""
    X = X.double()
    return torch.where(X.amax(0) > X.amin(0), X - X.mean(0), 0.0)
