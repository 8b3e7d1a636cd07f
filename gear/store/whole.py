"""A file that is whole or not there: written beside its name, synced, renamed."""

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to. It takes the place of `path` when the block ends, and is removed if it fails,
    by Ctrl-C too; whatever was at `path` is there until then. The folder must exist. Raises OSError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())  # a crash of the machine must not leave the new name on unwritten blocks
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):  # it is gone if all went well
            temporary.unlink()
