"""Where the bytes of an image are: in a file of its own, or in a part of a tar that is read without the rest."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int64

from gear.data.strings import Rows


@dataclass(frozen=True)
class Member:
    """The `size` bytes from byte `offset` on of the file `tar`."""

    tar: Path
    offset: int
    size: int


File = str | Path | Member


def open_file(file: File) -> io.BufferedReader | io.BytesIO:
    """The image's bytes, to be read from the first; those of a member are in memory.

    Raises OSError, and EOFError where the tar has become shorter than its member was.
    """
    if not isinstance(file, Member):
        return open(file, "rb")
    with file.tar.open("rb") as tar:
        tar.seek(file.offset)
        data = tar.read(file.size)
    if len(data) < file.size:
        raise EOFError(f"{file.tar} ends before byte {file.offset + file.size}")
    return io.BytesIO(data)


@runtime_checkable
class Places(Protocol):
    """Of N images. `places[i]` is where image i is to be read."""

    def __getitem__(self, i: int) -> File: ...
    def rows(self, index: Rows) -> "Places": ...


@dataclass(frozen=True, eq=False)
class Files:
    """N images in files of their own."""

    folder: Path
    names: Sequence[str]  # relative to the folder

    def __getitem__(self, i: int) -> Path:
        return self.folder / self.names[i]

    def rows(self, index: Rows) -> "Files":
        return Files(self.folder, [self.names[int(i)] for i in index])


@dataclass(frozen=True, eq=False)
class Members:
    """Where N images lie in tars. `members[i]` is the `Member` of image i."""

    tars: tuple[Path, ...]
    tar: Int64[np.ndarray, "N"]  # indices into `tars`
    offsets: Int64[np.ndarray, "N"]  # bytes
    sizes: Int64[np.ndarray, "N"]  # bytes

    def __getitem__(self, i: int) -> Member:
        return Member(self.tars[self.tar[i]], int(self.offsets[i]), int(self.sizes[i]))

    def rows(self, index: Rows) -> "Members":
        rows = np.asarray(index, dtype=np.int64)
        return Members(self.tars, self.tar[rows], self.offsets[rows], self.sizes[rows])
