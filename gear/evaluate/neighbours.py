"""Whether images lie where the other set has images: precision, recall, density, coverage, by nearest neighbours."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

HELD = 10_000_000  # distances at a time, 80 MB

Progress = Callable[[int, int], None]
Each = dict[str, Float64[np.ndarray, "_"]]


class NeighbourError(ValueError):
    """Features whose neighbours cannot be told: what was needed, what came."""


@dataclass(frozen=True)
class PrecisionRecall:
    """
    precision: share of fake images within the reach of a real one. recall: share of real images within that of a fake.
    each: by these names, a value for every image, of which they are the means.
    """

    precision: float
    recall: float
    each: Each = field(default_factory=dict, repr=False, compare=False)


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
    each: Each = field(default_factory=dict, repr=False, compare=False)


def precision_recall(
    real: Float[np.ndarray, "n D"],
    fake: Float[np.ndarray, "m _"],
    k: int = 3,
    *,
    on: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> PrecisionRecall:
    """Kynkaanniemi et al. 2019, eq. 1, as ADM's evaluator has it: an image reaches as far as its k-th nearest
    neighbour in its own set, itself not counted, and what lies exactly that far is within.

    In float64; see `_Sets.squared` for what counts as equal. ADM's evaluator takes squared distances in float16 where
    they fit, which rounds those of 300 to quarters. Both numbers depend on n. on: where to compute; progress: takes
    the images done and all. Raises `NeighbourError` for k or fewer images, unequal D, or features that are not finite.
    """
    sets = _Sets(real, fake, k, on, progress)
    reach_real, reach_fake = sets.reach(sets.real, k), sets.reach(sets.fake, k)
    in_real, in_fake = torch.zeros(len(fake), dtype=torch.bool, device=on), []
    for rows, d in sets.squared(sets.real, sets.fake):
        in_real |= (d <= reach_real[rows, None] + sets.slack).any(0)
        in_fake.append((d <= reach_fake + sets.slack).any(1))
    return PrecisionRecall(**_means(precision=in_real, recall=torch.cat(in_fake)))


def prdc(
    real: Float[np.ndarray, "n D"],
    fake: Float[np.ndarray, "m _"],
    k: int = 5,
    *,
    on: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> Prdc:
    """Naeem et al. 2020, eq. 3 to 6, as their package `prdc` has them: reach as in `precision_recall`, but what lies
    exactly that far is outside. Of images that are all alike nothing is within anything. Else as that."""
    sets = _Sets(real, fake, k, on, progress)
    reach_real, reach_fake = sets.reach(sets.real, k), sets.reach(sets.fake, k)
    hits, recalled, covered = torch.zeros(len(fake), dtype=torch.int64, device=on), [], []
    for rows, d in sets.squared(sets.real, sets.fake):
        within = d < reach_real[rows, None] - sets.slack
        hits += within.sum(0)
        covered.append(within.any(1))
        recalled.append((d < reach_fake - sets.slack).any(1))
    found = _means(
        precision=hits > 0, recall=torch.cat(recalled), density=hits.double() / k, coverage=torch.cat(covered)
    )
    found["density"] = hits.double().mean().item() / k
    return Prdc(**found)


class _Sets:
    """Both sets in float64, about the mean of the real one. slack: above the rounding of their squared distances."""

    def __init__(
        self, real: np.ndarray, fake: np.ndarray, k: int, on: torch.device | str, progress: Progress | None
    ) -> None:
        if real.shape[1] != fake.shape[1]:
            raise NeighbourError(
                f"both sets must come from one network; one has {real.shape[1]} channels, the other {fake.shape[1]}."
            )
        if k < 1 or min(len(real), len(fake)) <= k:
            raise NeighbourError(
                f"a k-th neighbour needs more than k images and k at least 1; k is {k}, with {len(real)} real and "
                f"{len(fake)} generated images."
            )
        self.real, self.fake = (torch.from_numpy(np.array(s, dtype=np.float64)).to(on) for s in (real, fake))
        for name, features in (("real", self.real), ("generated", self.fake)):
            if bad := int((~features.isfinite().all(dim=1)).sum()):
                raise NeighbourError(
                    f"features must be finite; {bad} of {len(features)} vectors of the {name} images hold NaN or "
                    "infinity, which a diverged model or half precision makes."
                )
        middle = self.real.mean(0)
        self.real -= middle
        self.fake -= middle
        largest = max(s.square().sum(1).max().item() for s in (self.real, self.fake))
        self.slack = 4 * real.shape[1] * torch.finfo(torch.float64).eps * largest
        self.done, self.total, self.progress = 0, 2 * len(real) + len(fake), progress

    def reach(self, s: Float64[Tensor, "n D"], k: int) -> Float64[Tensor, "n"]:
        """The squared distance to the k-th nearest of the others; that to itself is the smallest."""
        return torch.cat([d.topk(k + 1, dim=1, largest=False).values[:, -1] for _, d in self.squared(s, s)])

    def squared(
        self, x: Float64[Tensor, "n D"], y: Float64[Tensor, "m D"]
    ) -> Iterator[tuple[slice, Float64[Tensor, "b m"]]]:
        """|x|^2 + |y|^2 - 2 x.y, a block of rows at a time.

        Near zero this cancels: float32 would leave 1e-4 between identical images. In float64, about the mean, less than
        `slack` is left, 1e-9 or so, and distances closer than that count as equal: copies of an image are treated
        alike, whatever rounding makes of them.
        """
        x_norms, y_norms = x.square().sum(1), y.square().sum(1)
        block = max(1, HELD // len(y))
        for start in range(0, len(x), block):
            rows = slice(start, min(start + block, len(x)))
            yield rows, torch.addmm(x_norms[rows, None] + y_norms, x[rows], y.T, alpha=-2)
            self.done += rows.stop - start
            if self.progress:
                self.progress(self.done, self.total)


def _means(**values: Tensor) -> dict[str, Any]:
    """The mean of each, and under "each" the values."""
    each = {name: of.double().cpu().numpy() for name, of in values.items()}
    return {name: float(of.mean()) for name, of in each.items()} | {"each": each}
