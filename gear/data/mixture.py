"""Which set each place of the endless stream of images comes from, where several sets are drawn from by weight.

A pure function of (seed, place), so that resuming needs no state: a period of places has each set exactly as often as
the weights say, in an order of its own, and how often a set came before any place is known in closed form.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np
from jaxtyping import Int64

from gear.data.permutation import random_state

LONGEST = 1 << 16  # places in a period, at most
EXACT = 1_000_000  # weights are taken for fractions with a denominator up to this
ORDER = 3  # of the words that seed the order of sets, so that no permutation of images has the same


@dataclass(frozen=True)
class Mixture:
    """K sets put one after the other, N images in all: rows 0 ... sizes[0] - 1 are of the first, and so on."""

    sizes: tuple[int, ...]  # images of each
    weights: tuple[float, ...]  # how often an image of it is drawn, relative to the others

    def __post_init__(self) -> None:
        if len(self.sizes) != len(self.weights) or not all(0 < w < math.inf for w in self.weights):
            raise ValueError(f"each of the {len(self.sizes)} sets needs a positive weight; they are {self.weights}.")

    @property
    def counts(self) -> tuple[int, ...]:
        """Places of each set in a period: exactly in the ratio of the weights where a period of `LONGEST` places can
        have it, else rounded to the largest remainders. Raises ValueError for a set that would have none."""
        return _counts(self.weights)

    def index(self, start: int, stop: int, seed: int) -> Int64[np.ndarray, "n"]:
        """The rows in [0, N) at the places `start` ... `stop` - 1 of the stream.

        Each set has epochs of its own: one permutation of its images after the other. Raises ValueError for a set
        without images.
        """
        if not all(self.sizes):
            raise ValueError(f"each set of a mixture needs an image to train on; they have {self.sizes}.")
        sets, turns = self.turns(start, stop, seed)
        out = np.empty(stop - start, dtype=np.int64)
        first = 0
        for number, size in enumerate(self.sizes):
            mine = sets == number
            epochs, inside = np.divmod(turns[mine], size)
            rows = np.empty(len(inside), dtype=np.int64)
            for epoch in np.unique(epochs).tolist():
                rows[epochs == epoch] = _epochs(size, seed, number)(epoch)[inside[epochs == epoch]]
            out[mine] = first + rows
            first += size
        return out

    def turns(self, start: int, stop: int, seed: int) -> tuple[Int64[np.ndarray, "n"], Int64[np.ndarray, "n"]]:
        """Of each place in [start, stop): its set, and how many places that set had before it."""
        period = sum(self.counts)
        sets, turns = [], []
        for turn in range(start // period, (stop - 1) // period + 1):
            order, before = _order(self.counts, seed, turn)
            part = slice(max(start - turn * period, 0), stop - turn * period)
            sets.append(order[part])
            turns.append(turn * np.array(self.counts)[order[part]] + before[part])
        return np.concatenate(sets), np.concatenate(turns)

    def set_of(self, row: int) -> range:
        """The rows of the set that `row` belongs to."""
        stop = 0
        for size in self.sizes:
            start, stop = stop, stop + size
            if row < stop:
                return range(start, stop)
        raise IndexError(f"there are {stop} images; {row} is none of them.")

    def rows(self, index: Int64[np.ndarray, "n"] | Sequence[int]) -> "Mixture | None":
        """That of the rows `index` alone; None where they do not lie in the order of the sets any more."""
        ends = np.cumsum(self.sizes)
        sets = np.searchsorted(ends, np.asarray(index, dtype=np.int64), side="right")
        if (np.diff(sets) < 0).any():
            return None
        return Mixture(tuple(np.bincount(sets, minlength=len(ends)).tolist()), self.weights)


@lru_cache(maxsize=16)
def _counts(weights: tuple[float, ...]) -> tuple[int, ...]:
    exact = [Fraction(weight).limit_denominator(EXACT) for weight in weights]
    whole = [int(f * math.lcm(*(f.denominator for f in exact))) for f in exact]
    shared = math.gcd(*whole)
    if min(whole) > 0 and sum(whole) // shared <= LONGEST:
        return tuple(count // shared for count in whole)
    shares = np.array(weights) / sum(weights) * LONGEST
    counts = np.floor(shares).astype(np.int64)
    counts[np.argsort(counts - shares, kind="stable")[: LONGEST - int(counts.sum())]] += 1
    if not counts.all():
        raise ValueError(f"the weights {weights} give a set less than one of {LONGEST} images: raise its weight.")
    return tuple(counts.tolist())


@lru_cache(maxsize=4)
def _order(counts: tuple[int, ...], seed: int, turn: int) -> tuple[np.ndarray, np.ndarray]:
    """The sets of one period in their order, and how often each came before within it."""
    order = random_state(seed, turn, ORDER).permutation(np.repeat(np.arange(len(counts)), counts))
    before = np.empty_like(order)
    for number in range(len(counts)):
        mine = order == number
        before[mine] = np.arange(mine.sum())
    return order, before


@lru_cache(maxsize=16)
def _epochs(size: int, seed: int, number: int):
    """The permutations of one set; the last two are kept, since neighbouring steps ask for the same."""

    @lru_cache(maxsize=2)
    def epoch(e: int) -> np.ndarray:
        return random_state(seed, e, 0, number).permutation(size)

    return epoch
