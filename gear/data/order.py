"""Which images a step sees, and how: a pure function of (seed, step), so that resuming a run needs no state.

Of several ranks, each has its own rows of the one batch that all of them would draw: epochs, crops and flips do not
depend on how many there are.
"""

from collections.abc import Container
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Float64, Int64

from gear import ranks
from gear.data.images import DataError
from gear.data.mixture import Mixture
from gear.data.permutation import random_state

ATTEMPTS = 1000  # at an image that is not broken


def batch_indices(
    n: int, batch: int, seed: int, step: int, mixture: Mixture | None = None
) -> Int64[np.ndarray, "batch"]:
    """The indices in [0, n) of the images of step `step`, 0 being the first.

    They are the places step * batch ... (step + 1) * batch - 1 of an endless stream: one permutation of all n images
    after the other, each drawn from (seed, epoch). Every epoch shows every image once; a batch may span epochs, or hold
    an image several times where batch > n. Of a `mixture` of n images in all, each set has its own epochs, and comes as
    often as its weight says. Raises ValueError unless n >= 1, batch >= 1 and step >= 0, and where the mixture has
    another number of images.
    """
    if n < 1 or batch < 1 or step < 0:
        raise ValueError(f"n and batch must be at least 1 and step at least 0; they are {n}, {batch} and {step}.")
    start, stop = step * batch, (step + 1) * batch
    if mixture is not None:
        if sum(mixture.sizes) != n:
            raise ValueError(f"the sets of the mixture have {sum(mixture.sizes)} images; there are {n}.")
        return mixture.index(start, stop, seed)
    epochs = range(start // n, (stop - 1) // n + 1)
    parts = [_epoch(n, seed, e)[max(start - e * n, 0) : stop - e * n] for e in epochs]
    return np.concatenate(parts)


@lru_cache(maxsize=2)  # neighbouring steps ask for the same epoch
def _epoch(n: int, seed: int, epoch: int) -> np.ndarray:
    return random_state(seed, epoch).permutation(n).astype(np.int64)


@dataclass(frozen=True)
class Draw:
    """The rows of one step's batch, or this rank's of them."""

    index: Int64[np.ndarray, "B"]  # of the image
    view: Int64[np.ndarray, "B"]  # which of its fixed crops; 0 where there is one, or none
    flipped: Bool[np.ndarray, "B"]
    place: Float64[np.ndarray, "B 2"]  # uniform in [0, 1): where a fresh crop lies
    caption: Float64[np.ndarray, "B"]  # uniform in [0, 1): which of its captions, captions[int(u * len(captions))]


def draw(
    n: int,
    batch: int,
    seed: int,
    step: int,
    *,
    views: int | None = 1,
    flip: bool = False,
    broken: Container[int] = frozenset(),
    mixture: Mixture | None = None,
) -> Draw:
    """`batch_indices` with a view of each image, and half of them flipped if `flip`; this rank's share of the rows.

    An image in `broken` is replaced by another one, a function of (seed, step, row) and of which images are broken; the
    other rows stay as they are. In a mixture the other one is of the same set. Codes stored of all views and flips are
    therefore drawn as the live images are.
    """
    index = batch_indices(n, batch, seed, step, mixture)
    mine = ranks.share(batch)
    for row in range(mine.start, mine.stop):
        if int(index[row]) in broken:
            among = range(n) if mixture is None else mixture.set_of(int(index[row]))
            index[row] = _another(broken, among, seed, step, row)
    random = np.random.default_rng((seed, step, 1))
    flipped = random.random(batch) < 0.5 * flip
    place, view, caption = random.random((batch, 2)), random.random(batch), random.random(batch)
    return Draw(index[mine], (view * (views or 1)).astype(np.int64)[mine], flipped[mine], place[mine], caption[mine])


def _another(broken: Container[int], among: range, seed: int, step: int, row: int) -> int:
    random = np.random.default_rng((seed, step, 2, row))
    for _ in range(ATTEMPTS):
        i = among[int(random.random() * len(among))]
        if i not in broken:
            return i
    raise DataError(f"{ATTEMPTS} images drawn one after the other are all broken: look at the files of data.path.")
