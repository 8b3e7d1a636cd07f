"""The kernel distance between two sets of feature vectors: KID in Inception's, MMD in DINOv2's.

Unlike the Frechet distance it is unbiased in the number of images, and so the one to read where there are few.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from gear.evaluate.bootstrap import RESAMPLES, Interval, percentiles

BLOCK = 1000  # rows of a kernel matrix at a time

Progress = Callable[[int, int], None]


class KernelError(ValueError):
    """Features that have no kernel distance: what was needed, what came."""


@dataclass(frozen=True)
class Kid:
    """
    mean: of the squared MMD over random subsets, unbiased, so it may be just below 0. sd: over the subsets, which share
    images: not a standard error. subsets of `size` images each.
    """

    mean: float
    sd: float
    subsets: int
    size: int


def kid(
    a: Float[np.ndarray, "n D"],
    b: Float[np.ndarray, "m _"],
    subsets: int = 100,
    size: int = 1000,
    seed: int = 0,
    *,
    progress: Progress | None = None,
) -> Kid:
    """Mean squared MMD with the kernel (x.y / D + 1)^3 over random subsets (Binkowski et al. 2018).

    Subsets are drawn without replacement, as torch-fidelity draws them with rng_seed = seed, so the numbers are equal.
    Where a set has fewer than `size` images, subsets are half the smaller set. Products in the features' dtype, all
    else in float64. progress: takes the subsets done and all. Raises `KernelError` for features that are not finite, of
    unequal D, or fewer than 4.
    """
    _check(a, b)
    if subsets < 1 or size < 2:
        raise KernelError(f"KID needs at least 1 subset of at least 2 images; {subsets} of {size} were asked for.")
    if (least := min(len(a), len(b))) < size:
        size = least // 2
    random = np.random.RandomState(seed % 2**32)  # the generator of torch-fidelity, which takes no more
    found = np.empty(subsets)
    for i in range(subsets):
        x, y = (_rows(s, random.choice(len(s), size, replace=False)) for s in (a, b))
        found[i] = _mmd2(x, y)
        if progress:
            progress(i + 1, subsets)
    return Kid(found.mean().item(), found.std().item(), subsets, size)


def mmd2(x: Float[np.ndarray, "n D"], y: Float[np.ndarray, "m _"]) -> float:
    """The unbiased squared MMD of all images at once, the kernel as in `kid`. Raises as `kid` does."""
    _check(x, y)
    u, v = (torch.ones(1, len(s), dtype=torch.float64) for s in (x, y))
    return _weighted(x, y, u, v).item()


def mmd2_interval(
    x: Float[np.ndarray, "n D"],
    y: Float[np.ndarray, "m _"],
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = 0.95,
    *,
    progress: Progress | None = None,
) -> Interval:
    """Percentile bootstrap of `mmd2` over the images of both sets.

    A resample holds images twice, and an image's kernel with itself would lift every resample above the estimate; pairs
    of one image are left out of the means, as the unbiased estimate leaves them out. progress: takes the images done
    and all. Raises as `kid` does.
    """
    _check(x, y)
    random = np.random.default_rng(seed)
    u, v = (torch.from_numpy(random.multinomial(len(s), np.full(len(s), 1 / len(s)), resamples)) for s in (x, y))
    return percentiles(_weighted(x, y, u.double(), v.double(), progress).numpy(), level)


def _weighted(
    x: Float[np.ndarray, "n D"],
    y: Float[np.ndarray, "m D"],
    u: Float64[Tensor, "R n"],
    v: Float64[Tensor, "R m"],
    progress: Progress | None = None,
) -> Float64[Tensor, "R"]:
    """mmd2 of R reweighted sets: image i counts u_i times, and never pairs with itself."""
    done, total = 0, 2 * len(x) + len(y)

    def mean(a: np.ndarray, b: np.ndarray, w: Tensor, z: Tensor, within: bool) -> Tensor:
        nonlocal done
        found = torch.zeros(len(w), dtype=torch.float64)
        other = _rows(b, slice(None))
        for start in range(0, len(a), BLOCK):
            rows = slice(start, min(start + BLOCK, len(a)))
            k = _kernel(_rows(a, rows), other)
            if within:
                k.diagonal(start).zero_()
            found += (w[:, rows] @ k * z).sum(1)
            done += rows.stop - start
            if progress:
                progress(done, total)
        return found / (w.sum(1) * z.sum(1) - ((w * z).sum(1) if within else 0))

    return mean(x, x, u, u, True) + mean(y, y, v, v, True) - 2 * mean(x, y, u, v, False)


def _mmd2(x: Float[Tensor, "n D"], y: Float[Tensor, "n D"]) -> float:
    n = len(x)
    within = sum((k.sum() - k.trace() for k in (_kernel(x, x), _kernel(y, y))), torch.zeros(()))
    return (within / (n * (n - 1)) - 2 * _kernel(x, y).mean()).item()


def _kernel(x: Float[Tensor, "n D"], y: Float[Tensor, "m D"]) -> Float64[Tensor, "n m"]:
    inner = (x @ y.T).double()
    base = inner.div_(x.shape[1]).add_(1)
    return (base * base).mul_(base)


def _rows(features: Float[np.ndarray, "n D"], which: np.ndarray | slice) -> Float[Tensor, "_ D"]:
    """A copy: files that are mapped cannot be written, of which torch warns. Half precision in float32."""
    return torch.from_numpy(np.array(features[which], dtype=np.promote_types(features.dtype, np.float32)))


def _check(a: np.ndarray, b: np.ndarray) -> None:
    if a.shape[1] != b.shape[1]:
        raise KernelError(
            f"both sets must come from one network; one has {a.shape[1]} channels, the other {b.shape[1]}."
        )
    for features in (a, b):
        if len(features) < 4:
            raise KernelError(f"a kernel distance needs at least 4 images in each set; {len(features)} came.")
        if bad := sum(
            int((~np.isfinite(part)).any(1).sum()) for part in np.array_split(features, len(features) // BLOCK + 1)
        ):
            raise KernelError(
                f"features must be finite; {bad} of {len(features)} vectors hold NaN or infinity, which a diverged "
                "model or half precision makes."
            )
