"""Which images a step sees: a pure function of (seed, step), so that resuming a run needs no state."""

from functools import lru_cache

import numpy as np
from jaxtyping import Int64


def batch_indices(n: int, batch: int, seed: int, step: int) -> Int64[np.ndarray, "batch"]:
    """The indices in [0, n) of the images of step `step`, 0 being the first.

    They are the places step * batch ... (step + 1) * batch - 1 of an endless stream: one permutation of all n images
    after the other, each drawn from (seed, epoch). Every epoch shows every image once; a batch may span epochs, or hold
    an image several times where batch > n. Raises ValueError unless n >= 1, batch >= 1 and step >= 0.
    """
    if n < 1 or batch < 1 or step < 0:
        raise ValueError(f"n and batch must be at least 1 and step at least 0; they are {n}, {batch} and {step}.")
    start, stop = step * batch, (step + 1) * batch
    epochs = range(start // n, (stop - 1) // n + 1)
    parts = [_epoch(n, seed, e)[max(start - e * n, 0) : stop - e * n] for e in epochs]
    return np.concatenate(parts)


@lru_cache(maxsize=2)  # neighbouring steps ask for the same epoch
def _epoch(n: int, seed: int, epoch: int) -> np.ndarray:
    # RandomState and not Generator: NEP 19 freezes its stream, so that a run resumes the same under a newer numpy.
    words = [(value >> shift) & 0xFFFFFFFF for value in (seed, epoch) for shift in (0, 32)]
    return np.random.RandomState(words).permutation(n).astype(np.int64)
