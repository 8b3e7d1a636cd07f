"""Prepared images on disk: an .npy of uint8 rows, mapped and not read, and a .json that says what they are.

The .json is written last and names the state of the .npy, so a pair is either whole or taken for absent.
"""

import hashlib
import io
import json
import os
import zlib
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from gear.store import cache

BLOCK = 1 << 20  # bytes
BLOCKS = 64  # how many of them are checked; a file of up to 64 MiB is checked whole


@dataclass(frozen=True, eq=False)
class Prepared:
    pixels: UInt8[np.ndarray, "N 3 R R"]  # a np.memmap; changes to it stay in memory
    about: dict[str, Any]  # what `write` was given


def read(path: Path, key: str) -> Prepared | None:
    """What `write` left at `path` under the same `key`; None if nothing, something else or something damaged is."""
    try:
        digest, _, text = path.with_suffix(".json").read_text().partition("\n")
        if digest != hashlib.sha256(text.encode()).hexdigest():
            return None
        found = json.loads(text)
        if found["key"] != key or found["state"] != _state(path):
            return None
        # "c", copy on write: torch warns of arrays that cannot be written, and the file must not change.
        return Prepared(np.load(path, mmap_mode="c", allow_pickle=False), found["about"])
    except (OSError, ValueError, KeyError):
        return None


def write(
    path: Path,
    key: str,
    resolution: int,
    rows: Generator[np.ndarray, None, None],
    about: Callable[[], dict[str, Any]],
) -> Prepared:
    """Writes the rows, uint8 (3, R, R) with R = `resolution`, to `path`, then `about()`, and maps the result.

    Raises `CacheError` where it cannot be written; nothing half-written stays.
    """
    count = 0
    with closing(rows), cache.writing(path) as file:
        file.write(_header(0, resolution))
        for row in rows:
            file.write(row.tobytes())  # through write() and not a map: on a full disk a map ends the process
            count += 1
        file.seek(0)
        file.write(_header(count, resolution))
    text = json.dumps({"key": key, "state": _state(path), "about": about()})
    with cache.writing(path.with_suffix(".json")) as file:
        file.write(f"{hashlib.sha256(text.encode()).hexdigest()}\n{text}".encode())
    done = read(path, key)
    if done is None:
        raise cache.CacheError(f"{path} was written, and read back differently: another process may be writing it too.")
    return done


def _header(count: int, resolution: int) -> bytes:
    """The head of an .npy; numpy pads it so that its length does not depend on the first axis."""
    shape = (count, 3, resolution, resolution)
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def _state(path: Path) -> list[int]:
    """The size of a file and a checksum of evenly spaced blocks of it: sees what is cut short or overwritten."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        check = 0
        for offset in np.linspace(0, max(size - BLOCK, 0), BLOCKS, dtype=np.int64) if size > BLOCK * BLOCKS else (0,):
            file.seek(int(offset))
            check = zlib.crc32(file.read(BLOCK if size > BLOCK * BLOCKS else size), check)
    return [size, check]
