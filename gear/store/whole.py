"""A file that is whole or not there: written beside its name, synced, renamed."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class WriteError(OSError):
    """A file that could not be written: which, why, what to do."""


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turns an OSError while `path` is written into a `WriteError`."""
    try:
        yield
    except OSError as error:
        if (file := next(filter(Path.is_file, path.parents), None)) is not None:
            raise WriteError(f"{path} could not be written: {file} is a file, not a folder; choose another.") from error
        raise WriteError(
            f"{path} could not be written ({error.strerror or error}): free some space or choose a folder that can be "
            "written, and give the same command again."
        ) from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """`beside`, raising `WriteError` for any OSError."""
    with explained(path), beside(path) as partial:
        yield partial


@contextmanager
def beside(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to. It takes the place of `path` when the block ends, and is removed if it fails,
    by Ctrl-C too; whatever was at `path` is there until then. Its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())  # a crash of the machine must not leave the new name on unwritten blocks
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
