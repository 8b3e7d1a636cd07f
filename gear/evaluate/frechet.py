"""The Frechet distance between two sets of feature vectors; with pooled Inception features it is the FID.

One distance for all uses: float64, on the CPU, from means and covariances that may be collected in batches. The network
that made the features is not its business, and a distance means nothing without naming it (Heusel et al. 2017, eq. 6).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

ROWS = 4096  # converted to float64 at a time


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
    is not symmetric, and singular covariances (n <= D) need no offset on the diagonal. For D = 1280 about 2 seconds.
    Distances are biased upwards by small n: compare only those of equal n. Raises `FrechetError` if D differs.
    """
    if len(a.mean) != len(b.mean):
        raise FrechetError(
            f"both sets must come from one network; one has {len(a.mean)} channels, the other {len(b.mean)}."
        )
    for g in (a, b):
        if not (g.mean.isfinite().all() and g.covariance.isfinite().all()):
            raise FrechetError("means and covariances must be finite; NaN or infinity came.")
    between = torch.linalg.svdvals(_root(a.covariance).T @ _root(b.covariance)).sum()
    within = a.covariance.trace() + b.covariance.trace()
    distance = (a.mean - b.mean).square().sum() + within - 2 * between
    return max(distance.item(), 0.0)  # of equal sets rounding may leave -1e-12


def _root(S: Float64[Tensor, "D D"]) -> Float64[Tensor, "D r"]:
    """R with S = R R^T, r the numerical rank: rounding leaves eigenvalues of +-D eps max where there are none."""
    values, vectors = torch.linalg.eigh(S)
    kept = values > values[-1].clamp(min=0) * len(S) * torch.finfo(S.dtype).eps
    return vectors[:, kept] * values[kept].sqrt()
