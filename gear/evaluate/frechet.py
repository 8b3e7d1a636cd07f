"""The Frechet distance between two sets of feature vectors; with pooled Inception features it is the FID.

One distance for all uses: float64, on the CPU, from means and covariances that may be collected in batches. The network
that made the features is not its business, and a distance means nothing without naming it (Heusel et al. 2017, eq. 6).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from scipy.linalg import get_lapack_funcs
from torch import Tensor

ROWS = 4096  # converted to float64 at a time
SKEW = 1e-5  # of the largest entry: by how much a covariance kept in float32 may miss being symmetric
EXACT = 1e-8  # of the traces: what a shortcut may cost at worst, 1e-6 of an FID
SMALL = 256  # singular values of matrices up to here take no time


class FrechetError(ValueError):
    """Features or moments that have no Frechet distance: what was needed, what came."""


@dataclass(frozen=True)
class Gaussian:
    """
    mean: of n feature vectors. covariance: theirs, unbiased (divided by n - 1); its rank is at most n - 1.
    """

    mean: Float64[Tensor, "D"]
    covariance: Float64[Tensor, "D D"]
    n: int


class Moments:
    """Mean and covariance of vectors that come in batches, in any order, and from several processes.

    Kept about the running mean (Chan, Golub and LeVeque 1979), so that features far from zero lose no digits, as sums
    of squares would.
    """

    def __init__(self, channels: int):
        self.n = 0
        self.mean = torch.zeros(channels, dtype=torch.float64)
        self.scatter = torch.zeros(channels, channels, dtype=torch.float64)  # sum of (x - mean)(x - mean)^T

    def add(self, features: Float[Tensor, "n D"]) -> None:
        """Counts a batch. Raises `FrechetError` for features that are not finite or of another length."""
        for rows in features.detach().split(ROWS):
            rows = rows.to("cpu", torch.float64)
            if not rows.isfinite().all():
                bad = int((~rows.isfinite().all(dim=1)).sum())
                raise FrechetError(
                    f"features must be finite; {bad} of {len(rows)} vectors hold NaN or infinity, "
                    "which a diverged model or half precision makes."
                )
            mean = rows.mean(0)
            self._merge(len(rows), mean, (rows - mean).T @ (rows - mean))

    def merge(self, other: "Moments") -> None:
        """Adds all that `other` has counted, as if `add` had seen it here. Raises as `add` does."""
        self._merge(other.n, other.mean, other.scatter)

    def _merge(self, n: int, mean: Float64[Tensor, "_"], scatter: Float64[Tensor, "_ _"]) -> None:
        if len(mean) != len(self.mean):
            raise FrechetError(f"features must have {len(self.mean)} channels as before; they have {len(mean)}.")
        if n == 0:
            return
        total, apart = self.n + n, mean - self.mean
        self.scatter += scatter + torch.outer(apart, apart) * (self.n * n / total)
        self.mean += apart * (n / total)
        self.n = total

    def without(self, other: "Moments") -> "Moments":
        """Those of all but what `other` has counted, which is a smaller part of what is counted here."""
        rest = Moments(len(self.mean))
        rest.n = self.n - other.n
        apart = (other.mean - self.mean) * (self.n / rest.n)  # from the mean of the rest
        rest.mean = other.mean - apart
        rest.scatter = self.scatter - other.scatter - torch.outer(apart, apart) * (rest.n * other.n / self.n)
        return rest

    def gaussian(self) -> Gaussian:
        """The moments so far. Raises `FrechetError` if fewer than two vectors came."""
        if self.n < 2:
            raise FrechetError(f"a covariance needs at least 2 feature vectors; {self.n} came.")
        return Gaussian(self.mean.clone(), self.scatter / (self.n - 1), self.n)


def gaussian(features: Float[Tensor, "n D"]) -> Gaussian:
    """Mean and covariance of n vectors, of any float dtype. Raises `FrechetError` if n < 2 or not all finite."""
    moments = Moments(features.shape[1])
    moments.add(features)
    return moments.gaussian()


def frechet(a: Gaussian, b: Gaussian) -> float:
    """|m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)), in squared units of the features; 0 or more.

    With S = R R^T, tr (S_a S_b)^(1/2) is the sum of the singular values of R_a^T R_b: no square root of a product that
    is not symmetric, and singular covariances (n <= D, or all images alike) need no offset on the diagonal. For
    D = 2048 about 2 seconds. Distances are biased upwards by small n, by about a constant over n: compare only those of
    equal n. Raises `FrechetError` if D differs.
    """
    if len(a.mean) != len(b.mean):
        raise FrechetError(
            f"both sets must come from one network; one has {len(a.mean)} channels, the other {len(b.mean)}."
        )
    for g in (a, b):
        if not (g.mean.isfinite().all() and g.covariance.isfinite().all()):
            raise FrechetError("means and covariances must be finite; NaN or infinity came.")
        if not _is_covariance(g.covariance):
            raise FrechetError(
                "a covariance must be symmetric, with a diagonal of 0 or more, which this one is not: its file is "
                "damaged, or holds something else."
            )
    within = a.covariance.trace() + b.covariance.trace()
    between = _nuclear(_root(a.covariance).T @ _root(b.covariance), EXACT * within)
    distance = (a.mean - b.mean).square().sum() + within - 2 * between
    return max(distance.item(), 0.0)  # of equal sets rounding may leave -1e-12


def _is_covariance(S: Float64[Tensor, "D D"]) -> bool:
    most = SKEW * S.abs().max()
    return bool(((S - S.T).abs() <= most).all() and (S.diagonal() >= -most).all())


def _nuclear(P: Float64[Tensor, "r s"], error: Float64[Tensor, ""]) -> Float64[Tensor, ""]:
    """The sum of the singular values, from the eigenvalues of P^T P where their rounding can cost no more than `error`:
    a fifth of the time. An eigenvalue v is off by about eps sqrt(r) of the largest, its root by that over 2 sqrt(v)."""
    if min(P.shape) > SMALL:
        values = torch.linalg.eigvalsh(P.T @ P if len(P) > P.shape[1] else P @ P.T).clamp(min=0)
        off = torch.finfo(P.dtype).eps * len(values) ** 0.5 * values[-1]
        if (off / (values.sqrt() + off.sqrt())).sum() <= error:
            return values.sqrt().sum()
    return torch.linalg.svdvals(P).sum()


def _root(S: Float64[Tensor, "D D"]) -> Float64[Tensor, "D r"]:
    """R with S = R R^T, r the numerical rank, by Cholesky with pivots: of those below D eps max there is nothing but
    rounding."""
    largest = S.diagonal().max().item()
    if largest <= 0:  # of images all alike
        return S[:, :0]
    tolerance = len(S) * torch.finfo(S.dtype).eps * largest
    (pstrf,) = get_lapack_funcs(("pstrf",), dtype="d")
    factor, pivots, rank, _ = pstrf(S.numpy(), tol=tolerance, lower=1)
    R = torch.zeros_like(S)
    R[torch.from_numpy(pivots).long() - 1] = torch.from_numpy(factor).tril()  # counted from 1; above is S still
    return R[:, :rank]
