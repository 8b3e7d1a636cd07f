"""A file that is whole or not there: written beside its name, synced, renamed."""

import contextlib
import os
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
        raise WriteError(
            f"{path} could not be written ({error.strerror or error}): free some space or choose a folder that can be "
            "written, and give the same command again."
        ) from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to. It takes the place of `path` when the block ends, and is removed if it fails,
    by Ctrl-C too; whatever was at `path` is there until then. Its folder is made. Raises `WriteError`."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())  # a crash of the machine must not leave the new name on unwritten blocks
            os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):  # it is gone if all went well
            temporary.unlink()
