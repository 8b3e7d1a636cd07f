"""Several sets of captioned images as one, drawn from by weight (`Mixture`).

Each set is split by itself, so that what is held out of it does not depend on the others. Names are prefixed by that of
their set, and the sets are the classes.
"""

import zlib
from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from jaxtyping import Int64

from gear.config import NAMED, Data
from gear.config import Part as Source
from gear.data import prepared
from gear.data.folder import scan
from gear.data.images import EXAMPLES, DataError, Images, Split
from gear.data.listing import Listing
from gear.data.loading import IN_MEMORY, load, place_in_cache, recipe_key
from gear.data.mixture import Mixture
from gear.data.strings import Rows, Strings
from gear.store import cache

Place = TypeVar("Place", covariant=True)


def loaded(data: Data, captioned: bool, progress: bool = True) -> Split[Images]:
    """The images of `data.path`, or of it and `data.mixture`, prepared and split. Raises as `load`, and `DataError` for
    a set of which no image is left to train on."""

    def one(path: str) -> Split[Images]:
        options = {"interpolation": data.interpolation, "classes": data.classes, "captioned": captioned}
        return load(path, data.resolution, progress=progress, **options).split(data.holdout)

    if not data.mixture:
        return one(data.path)
    sets = _sets(data)
    splits = {name: one(part.path) for name, part in sets.items()}
    _require_images({name: len(split.train) for name, split in splits.items()})
    weights = tuple(part.weight for part in sets.values())
    train, held_out = (
        joined_images({name: getattr(split, side) for name, split in splits.items()}, weights, data)
        for side in ("train", "held_out")
    )
    return Split(train, held_out)


def listed(data: Data, captioned: bool, progress: bool = True) -> Split[Listing]:
    """The same of images that are decoded at each visit."""

    def one(path: str) -> Split[Listing]:
        if path in NAMED:
            raise DataError(
                f"{path} is prepared, not decoded at each visit: set data.crop to center, or leave it out of the "
                "mixture."
            )
        return scan(Path(path), data.classes, progress, captioned).split(data.holdout)

    if not data.mixture:
        return one(data.path)
    sets = _sets(data)
    splits = {name: one(part.path) for name, part in sets.items()}
    _require_images({name: len(split.train) for name, split in splits.items()})
    weights = tuple(part.weight for part in sets.values())
    train = joined_listings({name: split.train for name, split in splits.items()}, weights)
    return Split(train, joined_listings({name: split.held_out for name, split in splits.items()}, weights))


def joined_images(sets: dict[str, Images], weights: tuple[float, ...], data: Data) -> Images:
    """The sets one after the other. Their pixels are copied: in memory, or, where they are many, into the cache."""
    parts = list(sets.values())
    names = tuple(f"{name}/{n}" for name, part in sets.items() for n in part.names)
    groups = tuple(f"{name}/{g}" for name, part in sets.items() for g in part.groups)
    size = sum(part.pixels.nbytes for part in parts)
    if size <= IN_MEMORY:
        pixels = np.concatenate([part.pixels for part in parts])
    else:
        checks = [zlib.crc32(np.ascontiguousarray(part.pixels).data) for part in parts]
        key = recipe_key("mixture", data.resolution, names, checks)
        path = place_in_cache(f"mixture-{recipe_key(*sets, len(names))[:12]}", data.resolution, data.interpolation)
        found = prepared.read(path, key)
        if found is None:
            cache.require_space(path, size)
            found = prepared.write(path, key, data.resolution, _rows(parts), dict)
        pixels = found.pixels
    captions = tuple(texts for part in parts for texts in part.captions or ())
    examples: dict[str, tuple[str, ...]] = {}
    for name, part in sets.items():
        for reason, some in part.examples.items():
            examples[reason] = (*examples.get(reason, ()), *(f"{name}/{n}" for n in some))[:EXAMPLES]
    return Images(
        pixels=pixels,
        labels=_numbers(parts),
        classes=tuple(sets),
        names=names,
        groups=groups,
        captions=captions if len(captions) == len(names) else None,
        skipped=dict(sum((Counter(part.skipped) for part in parts), Counter())),
        examples=examples,
        mixture=Mixture(tuple(map(len, parts)), weights),
    )


def joined_listings(sets: dict[str, Listing], weights: tuple[float, ...]) -> Listing:
    """The sets one after the other, still where they are."""
    parts = list(sets.values())
    captions = [part.captions for part in parts if part.captions is not None]
    names = [_compact(part.names).prefixed(f"{name}/") for name, part in sets.items()]
    return Listing(
        folder=parts[0].folder,
        classes=tuple(sets),
        names=Strings.chained(names),
        labels=_numbers(parts),
        problems=tuple((reason, f"{name}/{n}") for name, part in sets.items() for reason, n in part.problems),
        others=dict(sum((Counter(part.others) for part in parts), Counter())),
        members=Chained.of([part.places for part in parts], parts),
        captions=Chained.of(captions, parts) if len(captions) == len(parts) else None,
        mixture=Mixture(tuple(map(len, parts)), weights),
    )


@dataclass(frozen=True, eq=False)
class Chained(Generic[Place]):
    """What belongs to each image of several sets: of image i the `at[i]`-th thing of all `parts` in their order."""

    parts: tuple[Any, ...]
    starts: Int64[np.ndarray, "K"]
    at: Int64[np.ndarray, "N"]

    @staticmethod
    def of(parts: Sequence[Any], sets: Sequence[Listing]) -> "Chained[Any]":
        sizes = np.array([len(one) for one in sets], dtype=np.int64)
        return Chained(tuple(parts), np.cumsum(sizes) - sizes, np.arange(int(sizes.sum())))

    def __getitem__(self, i: int) -> Place:
        at = self.at[i]
        part = int(np.searchsorted(self.starts, at, side="right")) - 1
        return self.parts[part][int(at - self.starts[part])]

    def rows(self, index: Rows) -> "Chained[Place]":
        return Chained(self.parts, self.starts, self.at[np.asarray(index, dtype=np.int64)])


def _sets(data: Data) -> dict[str, Source]:
    """Each set by a name of its own, the last part of its path."""
    named: dict[str, Source] = {}
    for part in (Source(data.path), *data.mixture):
        first = name = Path(part.path).name or part.path
        number = 1
        while name in named:
            number += 1
            name = f"{first}-{number}"
        named[name] = part
    return named


def _require_images(sizes: dict[str, int]) -> None:
    if empty := [name for name, size in sizes.items() if not size]:
        raise DataError(
            f"each set of data.mixture needs images to train on; {', '.join(empty)} has none beside those held out: "
            "leave it out, or lower data.holdout."
        )


def _numbers(parts: Sequence[Images | Listing]) -> Int64[np.ndarray, "N"]:
    return np.repeat(np.arange(len(parts), dtype=np.int64), [len(part) for part in parts])


def _compact(names: Sequence[str]) -> Strings:
    return names if isinstance(names, Strings) else Strings.of(names)


def _rows(parts: Sequence[Images]) -> Generator[np.ndarray, None, None]:
    for part in parts:
        yield from part.pixels
