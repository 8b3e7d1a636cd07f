"""The cache folder: where it is, what it has room for, what to do where it cannot be written."""

import errno
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from gear.store.whole import beside

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR}  # the last two: a file, not a folder
ADVICE = "Free some space, or set GEAR_CACHE to a folder on a larger disk."
STALE = 24 * 3600.0  # seconds after which a partial file is taken for the remains of a process that was killed


class CacheError(OSError):
    """The cache cannot hold a file: where, why, and what to do."""


def directory() -> Path:
    """The folder of what is downloaded or prepared once: `GEAR_CACHE`, or `gear` in `XDG_CACHE_HOME` or `~/.cache`.

    It need not exist.
    """
    if own := os.environ.get("GEAR_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "gear"


def readable(size: int) -> str:
    """A number of bytes in words: 9.8 GB."""
    power = min((len(str(size)) - 1) // 3, 4)
    return f"{size / 1000**power:.{min(power, 1)}f} {('bytes', 'kB', 'MB', 'GB', 'TB')[power]}"


def require_space(path: Path, size: int) -> None:
    """Raises `CacheError` unless `path` can be written and `size` bytes are free there: better now than in an hour."""
    folder = next(parent for parent in path.absolute().parents if parent.is_dir())
    if not os.access(folder, os.W_OK):
        raise _explained(PermissionError(errno.EACCES, os.strerror(errno.EACCES)), path)
    free = shutil.disk_usage(folder).free
    if size > free:
        raise CacheError(
            f"{path.name} needs {readable(size)} in {path.parent}, where {readable(free)} are free. {ADVICE}"
        )


@contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """Opens a file that takes the place of `path` when the block ends, and is removed if the block fails.

    Raises `CacheError` where the folder cannot be written or the disk is full.
    """
    for old in path.parent.glob(".*.partial"):
        with suppress(FileNotFoundError):  # whoever writes it may be done meanwhile
            if time.time() - old.stat().st_mtime > STALE:
                old.unlink()
    try:
        with beside(path) as partial, partial.open("x+b") as file:
            yield file
    except OSError as error:
        if error.errno in FULL | REFUSED and not isinstance(error, CacheError):
            raise _explained(error, path) from error
        raise


def _explained(error: OSError, path: Path) -> CacheError:
    if error.errno in FULL:
        return CacheError(f"The disk is full: {path.name} could not be written in {path.parent}. {ADVICE}")
    return CacheError(f"{path.parent} cannot be written ({error.strerror}). Set GEAR_CACHE to a folder that can be.")
