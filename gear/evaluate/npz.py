"""Images in an .npz as ADM's evaluator has them, arr_0 uint8 (N, H, W, 3), read part by part: 50,000 are 10 GB."""

import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from jaxtyping import UInt8

from gear.data import DataError

KEY = "arr_0"
LOOKED = 16  # images whose range is looked at when a file is opened
WANTED = f"{KEY} must be uint8 of shape (N, H, W, 3), 0 to 255"


@dataclass(frozen=True, eq=False)
class Rows:
    """N images of H x W.

    read: (start, stop) to their pixels, (n, H, W, 3). state: changes with the file. anywhere: whether `read` may jump,
    and may be called by several threads.
    """

    resolution: tuple[int, int]
    n: int
    read: Callable[[int, int], UInt8[np.ndarray, "n H W 3"]]
    state: str
    anywhere: bool

    def __len__(self) -> int:
        return self.n


def opened(path: Path) -> Rows:
    """The images of `path`. Raises `DataError`, saying what `arr_0` is instead."""
    try:
        with zipfile.ZipFile(path) as archive:
            member = _member(path, archive)
            with archive.open(member) as file:
                shape, fortran, dtype = _header(file)
                offset = file.tell()
        _require(path, shape, fortran, dtype)
        at = path.stat()
        if member.file_size < offset + int(np.prod(shape)):
            raise DataError(f"{path} is cut short: {KEY} in it ends before its last image. Make it again.")
        rows = _mapped(path, member, offset, shape)
        anywhere = rows is not None
        if rows is None:
            rows = _Stream(path, member.filename, offset, shape)
        _require_range(path, rows(0, min(LOOKED, shape[0])))
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} is not a whole .npz file ({error}): make it or download it again.") from error
    return Rows((shape[1], shape[2]), shape[0], rows, f"{at.st_size} {at.st_mtime_ns}", anywhere)


def crc32(path: Path) -> int:
    """Of the images' array, as the archive has it noted. Raises `DataError`."""
    try:
        with zipfile.ZipFile(path) as archive:
            return _member(path, archive).CRC
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(f"{path} is not a whole .npz file ({error}): make it or download it again.") from error


def keys(path: Path) -> list[str]:
    """Of the arrays in `path`. Raises `DataError`."""
    try:
        with zipfile.ZipFile(path) as archive:
            return [name.removesuffix(".npy") for name in archive.namelist()]
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(f"{path} is not a whole .npz file ({error}): make it or download it again.") from error


def _member(path: Path, archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    found = [info for info in archive.infolist() if info.filename == f"{KEY}.npy"]
    if not found:
        there = ", ".join(name.removesuffix(".npy") for name in archive.namelist()[:8]) or "nothing"
        raise DataError(f"{path} has no {KEY}, where its images must be; it holds {there}. {WANTED}.")
    return found[0]


def _header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read(file)


def _require(path: Path, shape: tuple[int, ...], fortran: bool, dtype: np.dtype) -> None:
    if dtype != np.uint8:
        floats = " Of images in [0, 1] make (255 * x).round().astype(uint8)." if dtype.kind == "f" else ""
        raise DataError(f"{path}: {WANTED}; it is {dtype} of shape {shape}.{floats}")
    if len(shape) == 4 and shape[1] == 3 and shape[3] != 3:
        raise DataError(f"{path}: {WANTED}; it is of shape {shape}: transpose it by (0, 2, 3, 1).")
    if len(shape) != 4 or shape[3] != 3 or fortran:
        order = " in Fortran's order" if fortran else ""
        raise DataError(f"{path}: {WANTED}; it is of shape {shape}{order}.")
    if 0 in shape:
        raise DataError(f"{path} is empty: {KEY} is of shape {shape}.")


def _require_range(path: Path, first: np.ndarray) -> None:
    if first.max() <= 1:
        raise DataError(
            f"{path}: {WANTED}; the largest value in its first {len(first)} images is {first.max()}: images in [0, 1] "
            "must be multiplied by 255 before they become uint8."
        )


def _mapped(path: Path, member: zipfile.ZipInfo, offset: int, shape: tuple[int, ...]) -> Callable | None:
    """Where the array is stored as it is, which np.savez does."""
    if member.compress_type != zipfile.ZIP_STORED:
        return None
    with path.open("rb") as file:
        file.seek(member.header_offset)
        name, extra = struct.unpack("<HH", file.read(30)[26:])  # lengths, at the end of the member's own header
    start = member.header_offset + 30 + name + extra + offset
    pixels = np.memmap(path, np.uint8, "r", start, shape)
    return lambda a, b: np.asarray(pixels[a:b])


class _Stream:
    """Of a compressed array, whose bytes come one after the other. A step back starts it anew."""

    def __init__(self, path: Path, name: str, offset: int, shape: tuple[int, ...]) -> None:
        self.path, self.name, self.offset, self.shape = path, name, offset, shape
        self.file: Any = None
        self.at, self.lock = 0, Lock()

    def __call__(self, start: int, stop: int) -> UInt8[np.ndarray, "n H W 3"]:
        with self.lock:
            if self.file is None or start < self.at:
                self.file = zipfile.ZipFile(self.path).open(self.name)  # noqa: SIM115  (goes on to the next call)
                self.file.read(self.offset)
                self.at = 0
            try:
                while self.at < start:
                    self._read(1)
                return self._read(stop - start)
            except (zipfile.BadZipFile, zlib.error, EOFError, ValueError) as error:
                raise DataError(f"{self.path} is damaged at image {self.at} ({error}): make it again.") from error

    def _read(self, n: int) -> UInt8[np.ndarray, "n H W 3"]:
        size = int(np.prod(self.shape[1:]))
        data = self.file.read(n * size)
        self.at += n
        return np.frombuffer(data, np.uint8).reshape(n, *self.shape[1:])
