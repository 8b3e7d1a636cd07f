"""A data set in memory, or mapped into it: images of one size as uint8, so that training never decodes."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np
from jaxtyping import Bool, Int64, UInt8

from gear.data.mixture import Mixture

EXAMPLES = 3  # names given for each reason to leave images out


class DataError(ValueError):
    """Images that cannot be used: what was looked for, what was found, what to do."""


@dataclass(frozen=True, eq=False, repr=False)
class Images:
    """N images of R x R pixels, with one of K classes each."""

    pixels: UInt8[np.ndarray, "N 3 R R"]  # RGB, 0 to 255; may be a np.memmap
    labels: Int64[np.ndarray, "N"]  # indices into `classes`
    classes: tuple[str, ...]
    names: tuple[str, ...]  # a file name each, unique
    groups: tuple[str, ...]  # images of one group (an emoji in five skin tones) are never split
    captions: tuple[tuple[str, ...], ...] | None = None  # one or more each
    skipped: dict[str, int] = field(default_factory=dict)  # reason -> how many were left out
    examples: dict[str, tuple[str, ...]] = field(default_factory=dict)  # reason -> up to three of their names
    mixture: Mixture | None = None  # of several sets: their sizes and weights

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return f"Images({len(self)} of {self.pixels.shape[-1]} px in {len(self.classes)} classes)"

    def split(self, holdout: float) -> "Split[Images]":
        """Holds out what `held_out` says. Images in the order of `position` are not copied."""
        out = held_out(self.groups, holdout, len(self))
        return Split(train=self._rows(~out), held_out=self._rows(out))

    def report(self) -> str:
        """What was left out, such as "Left out: 2 broken (a.png, b.png), 1 not readable (c)."; "" if nothing was."""
        return f"Left out: {describe(self.skipped, self.examples)}." if self.skipped else ""

    def _rows(self, keep: np.ndarray) -> "Images":
        index = np.flatnonzero(keep)
        together = len(index) > 0 and index[-1] - index[0] == len(index) - 1
        rows = slice(int(index[0]), int(index[-1]) + 1) if together else index
        return Images(
            pixels=self.pixels[rows],
            labels=self.labels[rows],
            classes=self.classes,
            names=_pick(self.names, index),
            groups=_pick(self.groups, index),
            captions=None if self.captions is None else _pick(self.captions, index),
            skipped=self.skipped,
            examples=self.examples,
            mixture=None if self.mixture is None else self.mixture.rows(index),
        )


Item = TypeVar("Item")
Part = TypeVar("Part", covariant=True)  # a Split of Images is one of Images or Listings


@dataclass(frozen=True)
class Split(Generic[Part]):
    train: Part
    held_out: Part


def held_out(groups: Iterable[str], holdout: float, n: int) -> Bool[np.ndarray, "{n}"]:
    """Which of n images, given by the group of each, are never trained on: about a share `holdout` in [0, 1) of all
    groups.

    It depends on a group's name and `holdout` alone: not on its place, nor on what other images there are. At least one
    group is held out and one is not, where `holdout` > 0 and there are two. Raises ValueError for another `holdout`.
    """
    if not 0 <= holdout < 1:
        raise ValueError(f"holdout must be in [0, 1); it is {holdout}.")
    if holdout == 0 or not n:
        return np.zeros(n, dtype=bool)
    at = np.fromiter(map(position, groups), np.float64, n)
    return at < min(max(holdout, np.nextafter(at.min(), 1)), at.max())


def position(group: str) -> float:
    """A fixed place in [0, 1) for a group's name: held-out images are those whose place lies below `holdout`."""
    digest = hashlib.blake2b(group.encode("utf-8", "surrogateescape"), digest_size=6).digest()
    return int.from_bytes(digest) / 2**48


def count(problems: Iterable[tuple[str, str]]) -> tuple[dict[str, int], dict[str, tuple[str, ...]]]:
    """Pairs of a reason and a name as: reason -> how many, and reason -> the first names."""
    names: dict[str, list[str]] = {}
    for reason, name in problems:
        names.setdefault(reason, []).append(name)
    return {r: len(n) for r, n in names.items()}, {r: tuple(sorted(n)[:EXAMPLES]) for r, n in names.items()}


def describe(counts: dict[str, int], examples: dict[str, tuple[str, ...]]) -> str:
    """Reasons with their counts and names: "2 broken (a.png, b.png), 1 not readable (c.png)"."""
    parts = []
    for reason, count in counts.items():
        names = [name.encode("utf-8", "replace").decode() for name in examples.get(reason, ())]
        more = ["..."] * (count > len(names) > 0)
        parts.append(f"{count} {reason}" + (f" ({', '.join(names + more)})" if names else ""))
    return ", ".join(parts)


def _pick(values: tuple[Item, ...], index: np.ndarray) -> tuple[Item, ...]:
    return tuple(values[int(i)] for i in index)
