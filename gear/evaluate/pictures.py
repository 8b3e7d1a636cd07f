"""Image files in a folder, its tars, or a zip, decoded as training decodes them (`gear.data.decode`)."""

import hashlib
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt8
from PIL import Image

from gear.data import DataError
from gear.data.crop import Interpolation
from gear.data.decode import FORMATS, SUFFIXES, UNREAD, Skip, any_size, decode, upright_size
from gear.data.decode import opened as open_image
from gear.data.folder import scan
from gear.data.images import count, describe
from gear.data.members import File, Member, open_file
from gear.evaluate.ahead import cores, in_order
from gear.progress import bars

SLOW = 5000  # images whose sizes take long enough to look at for a progress bar


@dataclass(frozen=True, eq=False)
class Pictures:
    """n image files, by name.

    file: which is read, valid within the block. version: of image i, changes with its file.
    """

    kind: str
    path: Path
    names: tuple[str, ...]
    file: Callable[[int], AbstractContextManager[File]]
    version: Callable[[int], str]

    def __len__(self) -> int:
        return len(self.names)

    def pixels(self, i: int, resolution: int | None, interpolation: Interpolation) -> UInt8[np.ndarray, "3 H W"]:
        """As it is, or the square in the middle at `resolution`. Raises `DataError`."""
        try:
            with any_size(), self.file(i) as file:
                if resolution is not None:
                    return decode(file, resolution, interpolation)
                with open_image(file, 1) as image:
                    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))
        except Skip as reason:
            raise self._unusable(i, str(reason)) from reason

    def one_size(self) -> tuple[int, int]:
        """(height, width) of all. Raises `DataError` where they differ, naming two."""
        sizes = in_order(self._size, range(len(self)), cores(), depth=64)
        with bars() if len(self) >= SLOW else nullcontext() as shown:
            bar = shown.add_task("sizes of images", total=len(self), note="") if shown else None
            first = next(sizes)
            for i, size in enumerate(sizes, 1):
                if size != first:
                    (h, w), (y, x) = first, size
                    raise DataError(
                        f"the images of {self.path} are of several sizes ({self.names[0]} is {w} x {h}, "
                        f"{self.names[i]} {x} x {y}): give a resolution to resize and crop them to."
                    )
                if shown and bar is not None:
                    shown.advance(bar)
        return first

    def runs(self) -> list[int]:
        """How many images follow each other in one folder, by name."""
        return [len(list(names)) for _, names in groupby(self.names, lambda name: name.rpartition("/")[0])]

    def some(self, rows: Int64[np.ndarray, "n"]) -> "Pictures":
        """Those of these numbers."""
        at = rows.tolist()
        names = tuple(self.names[i] for i in at)
        return replace(self, names=names, file=lambda i: self.file(at[i]), version=lambda i: self.version(at[i]))

    def state(self) -> str:
        """The SHA-256 of all names with the versions of their files."""
        digest = hashlib.sha256()
        for i, name in enumerate(self.names):
            digest.update(f"{name} {self.version(i)}\n".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()

    def _size(self, i: int) -> tuple[int, int]:
        """By the head of its file."""
        try:
            with any_size(), self.file(i) as file, open_file(file) as opened, Image.open(opened, formats=FORMATS) as im:
                width, height = upright_size(im)
                return height, width
        except Exception as error:  # decoders meet damage with nearly any exception
            raise self._unusable(i, "broken") from error

    def _unusable(self, i: int, reason: str) -> DataError:
        return DataError(
            f"{self.names[i]} in {self.path} cannot be used ({reason}): remove or replace it; a number over the others "
            "would be one of another set."
        )


def in_folder(path: Path) -> Pictures:
    """All images below a folder, or in its tars, whatever their labels. Raises `DataError`, also where one of them
    would be left out."""
    listing = scan(path, None)
    beside = next((name for name in listing.names if "/" not in name), None)
    below = next((name for name in listing.names if "/" in name), None)
    if beside is not None and below is not None:
        raise DataError(
            f"{path} holds images ({beside}, ...) and folders of images ({below.partition('/')[0]}, ...): give a "
            "folder with only one of the two, so that it is clear which are meant."
        )
    _require_all(path, listing.problems)

    def version(i: int) -> str:
        file = listing.file(i)
        member = isinstance(file, Member)
        at = (file.tar if member else Path(file)).stat()
        return f"{at.st_size} {at.st_mtime_ns}" + (f" {file.offset} {file.size}" if member else "")

    return Pictures("folder", path, tuple(listing.names), lambda i: nullcontext(listing.file(i)), version)


def in_zip(path: Path) -> Pictures:
    """All images in a zip, by name. Raises `DataError`, also where one of them would be left out."""
    try:
        archive = zipfile.ZipFile(path)  # stays open: the sources of an evaluation live as long as it
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(f"{path} is not a whole zip file ({error}): make it or download it again.") from error
    members = {info.filename: info for info in archive.infolist() if not _hidden(info.filename)}
    suffixes = {name: Path(name).suffix.lower() for name in members}
    unread = [name for name in members if suffixes[name] in UNREAD]
    _require_all(path, [(f"{suffixes[name]}, a format that is not read", name) for name in unread])
    names = tuple(sorted((name for name in members if suffixes[name] in SUFFIXES), key=lambda name: name.split("/")))

    @contextmanager
    def file(i: int) -> Iterator[File]:
        try:
            data = archive.read(names[i])  # its checksum is right, else BadZipFile
        except Exception as error:  # the decompressors have their own
            raise Skip("broken") from error
        with tempfile.NamedTemporaryFile(suffix=Path(names[i]).suffix) as copy:  # the decoder takes files
            copy.write(data)
            copy.flush()
            yield copy.name

    return Pictures("zip", path, names, file, lambda i: f"{members[names[i]].file_size} {members[names[i]].CRC}")


def _hidden(name: str) -> bool:
    return name.startswith("__MACOSX/") or "/." in f"/{name}"


def _require_all(path: Path, problems: Sequence[tuple[str, str]]) -> None:
    """Raises `DataError` for images that are there and left out, as pairs of a reason and a name."""
    if problems:
        raise DataError(
            f"not all images of {path} can be used. Left out: {describe(*count(problems))}. Remove or replace them: a "
            "number over the others would be one of another set."
        )
