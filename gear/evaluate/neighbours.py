"""Whether images lie where the other set has images: precision, recall, density, coverage, by nearest neighbours."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

BLOCK = 1000  # rows of distances at a time: 80 MB for 10,000 images


class NeighbourError(ValueError):
    """Features whose neighbours cannot be told: what was needed, what came."""


@dataclass(frozen=True)
class PrecisionRecall:
    """
    precision: share of fake images within the reach of a real one. recall: share of real images within that of a fake.
    """

    precision: float
    recall: float


@dataclass(frozen=True)
class Prdc:
    """
    precision, recall: as above. density: of how many real images' reach a fake one is within, over k; 0 or more, about
    1 where the sets are alike. coverage: share of real images with a fake one in their reach.
    """

    precision: float
    recall: float
    density: float
    coverage: float


def precision_recall(real: Float[np.ndarray, "n D"], fake: Float[np.ndarray, "m _"], k: int = 3) -> PrecisionRecall:
    """Kynkaanniemi et al. 2019, eq. 1, as ADM's evaluator has it: an image reaches as far as its k-th nearest
    neighbour in its own set, itself not counted, and what lies exactly that far is within.

    float64; see `_squared` for what counts as equal. ADM's evaluator takes distances in float16 where they fit, whose
    rounding (0.5 in squared distances of 500) moves either by about 0.001. Both depend on n: 10,000 of each is ADM's.
    Raises `NeighbourError` for k or fewer images, unequal D, or features that are not finite.
    """
    x, y, slack = _prepared(real, fake, k)
    reach_x, reach_y = _reach(x, k), _reach(y, k)
    in_real, in_fake = torch.zeros(len(y), dtype=torch.bool), []
    for rows, d in _squared(x, y):
        in_real |= (d <= reach_x[rows, None] + slack).any(0)
        in_fake.append((d <= reach_y + slack).any(1))
    return PrecisionRecall(_share(in_real), _share(torch.cat(in_fake)))


def prdc(real: Float[np.ndarray, "n D"], fake: Float[np.ndarray, "m _"], k: int = 5) -> Prdc:
    """Naeem et al. 2020, eq. 3 to 6, as their package `prdc` has them: reach as in `precision_recall`, but what lies
    exactly that far is outside. Of images that are all alike nothing is within anything. Raises as that does."""
    x, y, slack = _prepared(real, fake, k)
    reach_x, reach_y = _reach(x, k), _reach(y, k)
    hits, recalled, covered = torch.zeros(len(y), dtype=torch.int64), [], []
    for rows, d in _squared(x, y):
        within = d < reach_x[rows, None] - slack
        hits += within.sum(0)
        covered.append(within.any(1))
        recalled.append((d < reach_y - slack).any(1))
    density = hits.double().mean().item() / k
    return Prdc(_share(hits > 0), _share(torch.cat(recalled)), density, _share(torch.cat(covered)))


def _reach(x: Float64[Tensor, "n D"], k: int) -> Float64[Tensor, "n"]:
    """The squared distance to the k-th nearest of the others; that to itself is the smallest."""
    return torch.cat([d.kthvalue(k + 1, dim=1).values for _, d in _squared(x, x)])


def _squared(x: Float64[Tensor, "n D"], y: Float64[Tensor, "m D"]) -> Iterator[tuple[slice, Float64[Tensor, "b m"]]]:
    """|x|^2 + |y|^2 - 2 x.y, a block of rows at a time.

    Near zero this cancels: float32 would leave 1e-4 between identical images. In float64, about the mean, the error is
    below `slack` of `_prepared`, 1e-10 or so, and distances closer than that count as equal, so that images that are
    copies are treated alike whatever rounding makes of them.
    """
    x_norms, y_norms = x.square().sum(1), y.square().sum(1)
    for start in range(0, len(x), BLOCK):
        rows = slice(start, start + BLOCK)
        yield rows, torch.addmm(x_norms[rows, None] + y_norms, x[rows], y.T, alpha=-2)


def _prepared(real: np.ndarray, fake: np.ndarray, k: int) -> tuple[Tensor, Tensor, float]:
    """Both about the mean of the real ones, and what the rounding of their squared distances is below."""
    if real.shape[1] != fake.shape[1]:
        raise NeighbourError(
            f"both sets must come from one network; one has {real.shape[1]} channels, the other {fake.shape[1]}."
        )
    if k < 1 or min(len(real), len(fake)) <= k:
        raise NeighbourError(
            f"a k-th neighbour needs more than k images and k at least 1; k is {k}, with {len(real)} real and "
            f"{len(fake)} generated images."
        )
    x, y = (torch.from_numpy(np.array(features, dtype=np.float64)) for features in (real, fake))
    for name, features in (("real", x), ("generated", y)):
        if bad := int((~features.isfinite().all(dim=1)).sum()):
            raise NeighbourError(
                f"features must be finite; {bad} of {len(features)} vectors of the {name} images hold NaN or infinity, "
                "which a diverged model or half precision makes."
            )
    middle = x.mean(0)
    x -= middle
    y -= middle
    largest = max(x.square().sum(1).max().item(), y.square().sum(1).max().item())
    return x, y, 4 * x.shape[1] * torch.finfo(torch.float64).eps * largest


def _share(of: Tensor) -> float:
    return of.double().mean().item()
