"""Images to measure, wherever they are: a folder, a zip, an .npz, or a data set that gear knows.

What is read is what is there: an image that cannot be used is an error, since a number over the others would be one of
another set. A run's own samples are `gear.commands.drawing`'s.
"""

import hashlib
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from PIL import Image
from torch import Tensor

from gear import data
from gear.data import DataError, builtin, cifar10
from gear.data.crop import Interpolation, square
from gear.evaluate import note, npz, pictures
from gear.evaluate.ahead import cores, in_order

SETS = ("builtin", "cifar10", "cifar10-test", "emoji")
KINDS = f"a folder of images, an .npz, a .zip of images, or one of {', '.join(SETS)}"


@runtime_checkable
class ImageSource(Protocol):
    """n images of one size. `batches` gives images `start` .. `stop` - 1 in their order, prepared ahead by threads."""

    resolution: tuple[int, int]  # height, width

    def __len__(self) -> int: ...

    def about(self) -> dict[str, Any]:
        """What they are, for people and to tell whether they are the same as before: kind, path, n, resolution, ...;
        and of images that `gear sample` saved what drew them, as `gear.evaluate.note` has it."""
        ...

    def batches(self, start: int, stop: int, size: int) -> Iterator[UInt8[Tensor, "b 3 H W"]]: ...


RUN = ("config.json", "log.jsonl")  # what every run has


def opened(
    where: str | Path, resolution: int | None = None, interpolation: Interpolation = "bicubic", what: str = "images"
) -> ImageSource:
    """The images at `where`, a folder (flat or nested, by name), .npz, .zip, or the name of a data set.

    resolution: px, to which the short side is resized before the middle is cropped; None: as they are, which needs
    images of one size. what: how messages call them. Raises `DataError` for anything else, before it is measured.
    """
    name = str(where)
    if resolution is not None and resolution < 1:
        raise DataError(f"resolution must be at least 1; it is {resolution}.")
    if name in SETS:
        return _set(name, resolution, interpolation)
    path = Path(where).expanduser().absolute()
    if path.is_dir():
        if all((path / file).exists() for file in RUN):
            raise DataError(f"{path} is a run, not images: {what} must be {KINDS}.")
        return Decoded(path, pictures.in_folder(path), resolution, interpolation)
    if not path.exists():
        raise DataError(f"there is nothing at {path}: {what} must be {KINDS}.")
    match path.suffix.lower():
        case ".npz":
            return Array(npz.opened(path), "npz", str(path), resolution, interpolation)
        case ".zip":
            return Decoded(path, pictures.in_zip(path), resolution, interpolation)
        case _:
            raise DataError(f"{path} is a file of another kind: {what} must be {KINDS}.")


def part(source: ImageSource, n: int) -> ImageSource:
    """Images of which the first n stand for all: the same ones whenever they are asked for.

    What lies in folders, or as "builtin" class by class, is cut to n images, each class having its share, since the
    first n would be those of the first classes. Anything else stays as it is: samples, drawn live or saved, have their
    classes in turn, so that the first n are those that n samples would be, and CIFAR-10 is in no order.
    """
    if not 0 < n < len(source) or not isinstance(source, Decoded | Array) or len(source.runs) == 1:
        return source
    return source.some(shares(source.runs, n))


def shares(runs: Sequence[int], n: int) -> Int64[np.ndarray, "n"]:
    """n of the numbers 0 .. N-1, ascending: the first ones of each run, as many as is its share of n, rounded so that
    they are n in all. runs: of N numbers that follow each other, how long each is; each of 1: n numbers at one
    distance."""
    stops = np.cumsum(runs)
    counts = np.diff(stops * n // stops[-1], prepend=0)
    return np.concatenate([np.arange(count) + stop - run for run, stop, count in zip(runs, stops, counts, strict=True)])


class Decoded:
    """Of image files. part_of: of a part, how many there are.

    Raises `DataError` for none, and for several sizes without a `resolution`.
    """

    part_of: int | None = None

    def __init__(
        self, path: Path, files: pictures.Pictures, resolution: int | None, interpolation: Interpolation
    ) -> None:
        self.path, self.files, self.crop = path, files, resolution
        self.interpolation: Interpolation = interpolation
        if not len(files):
            raise DataError(f"{path} holds no images: give {KINDS}.")
        size = files.one_size() if resolution is None else (resolution, resolution)
        self.resolution: tuple[int, int] = size

    def __len__(self) -> int:
        return len(self.files)

    def about(self) -> dict[str, Any]:
        found = {"kind": self.files.kind, "path": str(self.path), "n": len(self), "state": self.files.state()}
        found |= note.read(self.path, self.part_of or len(self)) if self.path.is_dir() else {}
        return found | _of(self) | _geometry(self.resolution, self.crop, self.interpolation)

    def batches(self, start: int, stop: int, size: int) -> Iterator[UInt8[Tensor, "b 3 H W"]]:
        each = in_order(lambda i: self.files.pixels(i, self.crop, self.interpolation), range(start, stop), cores())
        for span in spans(start, stop, size):
            yield torch.from_numpy(np.stack([next(each) for _ in span]))

    @property
    def runs(self) -> Sequence[int]:
        """As of `shares`: folders."""
        return self.files.runs()

    def some(self, rows: Int64[np.ndarray, "n"]) -> "Decoded":
        """Those of these numbers."""
        found = copy(self)
        found.files, found.part_of = self.files.some(rows), self.part_of or len(self)
        return found


class Array:
    """Of pixels that need no decoding. runs: as of `shares`; None: one. part_of: of a part, how many there are."""

    part_of: int | None = None

    def __init__(
        self,
        rows: npz.Rows,
        kind: str,
        path: str,
        resolution: int | None,
        interpolation: Interpolation,
        runs: Sequence[int] | None = None,
    ) -> None:
        self.rows, self.kind, self.path = rows, kind, path
        self._runs = runs
        self.interpolation: Interpolation = interpolation
        self.crop = resolution if rows.resolution != (resolution, resolution) else None
        self.resolution: tuple[int, int] = rows.resolution if self.crop is None else (self.crop, self.crop)

    def __len__(self) -> int:
        return len(self.rows)

    def about(self) -> dict[str, Any]:
        found = {"kind": self.kind, "path": self.path, "n": len(self), "state": self.rows.state}
        found |= note.read(Path(self.path), self.part_of or len(self)) if self.kind == "npz" else {}
        return found | _of(self) | _geometry(self.resolution, self.crop, self.interpolation)

    def batches(self, start: int, stop: int, size: int) -> Iterator[UInt8[Tensor, "b 3 H W"]]:
        threads = cores() if self.rows.anywhere else 1
        return in_order(self._batch, spans(start, stop, size), threads)

    @property
    def runs(self) -> Sequence[int]:
        return self._runs or (len(self),)

    def some(self, rows: Int64[np.ndarray, "n"]) -> "Array":
        """Those of these numbers."""
        read, at = self.rows.read, rows.tolist()

        def some(start: int, stop: int) -> UInt8[np.ndarray, "n H W 3"]:
            return np.concatenate([read(i, i + 1) for i in at[start:stop]])

        found, state = copy(self), hashlib.sha256(f"{self.rows.state} {at}".encode()).hexdigest()
        found.rows, found.part_of = replace(self.rows, n=len(at), read=some, state=state), self.part_of or len(self)
        found._runs = (1,) * len(at)
        return found

    def _batch(self, span: range) -> UInt8[Tensor, "b 3 H W"]:
        rows = self.rows.read(span.start, span.stop)
        if self.crop is not None:
            resized = [square(Image.fromarray(row), self.crop, self.interpolation) for row in rows]
            return torch.from_numpy(np.stack(resized))
        return torch.from_numpy(np.ascontiguousarray(rows.transpose(0, 3, 1, 2)))


def spans(start: int, stop: int, size: int) -> list[range]:
    """start .. stop - 1 in runs of `size`; only the last may be short."""
    return [range(i, min(i + size, stop)) for i in range(start, stop, size)]


def _set(name: str, resolution: int | None, interpolation: Interpolation) -> ImageSource:
    native = cifar10.SIDE if name.startswith("cifar10") else builtin.SIDE  # which is that of "emoji", too
    side = native if resolution is None else resolution
    load = data.load_cifar10_test if name == "cifar10-test" else partial(data.load, name)
    pixels = load(side, interpolation=interpolation).pixels
    state = hashlib.sha256(f"{name} {len(pixels)} {side} {interpolation if side != native else ''}".encode())
    rows = npz.Rows(
        (side, side), len(pixels), lambda a, b: pixels[a:b].transpose(0, 2, 3, 1), state.hexdigest(), anywhere=True
    )
    runs = None if name.startswith("cifar10") else (1,) * len(pixels)  # in no order; class by class
    source = Array(rows, "data set", name, None, interpolation, runs)
    source.crop = None if side == native else side
    return source


def _of(source: Decoded | Array) -> dict[str, int]:
    return {} if source.part_of is None else {"part_of": source.part_of}


def _geometry(resolution: tuple[int, int], crop: int | None, interpolation: Interpolation) -> dict[str, Any]:
    return {
        "resolution": list(resolution),
        "interpolation": None if crop is None else interpolation,
        "crop": "none" if crop is None else "short side resized, middle cropped",
    }
