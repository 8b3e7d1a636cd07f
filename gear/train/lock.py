"""One process at a time trains in a folder: the kernel's lock on RUN/.lock, gone with the process that holds it.

The file says who holds the lock; empty, that its filesystem has no locks. It is removed when the run ends. Whoever
has locked a file makes sure that it is still the one in the folder: else a second run could hold the lock of a removed
file while a third locks a new one.
"""

import errno
import fcntl
import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from gear.store.whole import explained

NAME = ".lock"
TRIES, PAUSE = 5, 0.1  # seconds between; `holder` has the lock for microseconds, which must not turn a run away
WITHOUT = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS}  # what a filesystem without locks answers

log = logging.getLogger("gear")
_held: set[int] = set()  # descriptors


class LockedError(ValueError):
    """Another process trains in the folder: which, where, since when, what to do."""


@contextmanager
def locked(run: Path) -> Iterator[None]:
    """Holds the lock of the folder `run`, which is made, until the block or the process ends, by SIGKILL too.

    Raises `LockedError` if another process holds it, or this one already, and `WriteError` where nothing can be
    written. Without locks in the filesystem (some network ones) it warns once in the log "gear" and goes on.
    """
    file, made = run / NAME, not run.exists()
    with explained(file):
        run.mkdir(parents=True, exist_ok=True)
        descriptor, mine = _opened(file)
    _held.add(descriptor)
    try:
        with explained(file):
            if mine is None:
                _warn(run)
            if mine is not False:
                os.ftruncate(descriptor, 0)
            if mine:
                os.pwrite(descriptor, _about_this_process(), 0)
        if mine is False:
            raise LockedError(f"{run} is being trained by {_named(_content(descriptor))}.")
        yield
    finally:
        if descriptor in _held:  # a forked child has closed its own
            _held.remove(descriptor)
            with suppress(OSError):  # as a folder that is not empty, or a disk that may not be written any more
                if mine:
                    file.unlink()
                if made:
                    run.rmdir()
            os.close(descriptor)


def _opened(file: Path) -> tuple[int, bool | None]:
    """A descriptor of the lock file, and what `_acquired` says of it."""
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            mine = _acquired(descriptor)
            if not mine or (file.exists() and file.stat().st_ino == os.fstat(descriptor).st_ino):
                return descriptor, mine
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # of a run that ended between the two


def holder(run: Path) -> dict[str, Any] | None:
    """Who trains in `run` now: pid, host and started (ISO 8601, UTC); empty if that cannot be read.

    None if nobody does, or if it cannot be told: no lock file, one that may not be read, no locks in the filesystem.
    Changes nothing.
    """
    try:
        descriptor = os.open(run / NAME, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return None
    except BlockingIOError:
        return _content(descriptor)
    except OSError:
        return None
    finally:
        os.close(descriptor)


def _acquired(descriptor: int) -> bool | None:
    """None: this filesystem has no locks. Raises other OSErrors."""
    for left in reversed(range(TRIES)):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if left:
                time.sleep(PAUSE)
        except OSError as error:
            if error.errno in WITHOUT:
                return None
            raise
    return False


@cache
def _warn(run: Path) -> None:
    log.warning("The filesystem of %s has no locks: take care that no second run is started in that folder.", run)


def _about_this_process() -> bytes:
    started = datetime.now(UTC).isoformat(timespec="seconds")
    return json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "started": started}).encode() + b"\n"


def _content(descriptor: int) -> dict[str, Any]:
    try:
        found = json.loads(os.pread(descriptor, 4096, 0))
    except (ValueError, OSError, RecursionError):  # the moment before it is written, or a disk that was full
        return {}
    named = found if isinstance(found, dict) else {}
    return {name: named[name] for name in ("pid", "host", "started") if isinstance(named.get(name), int | str)}


def _named(who: dict[str, Any]) -> str:
    about = "another process"
    if {"pid", "host", "started"} <= who.keys():
        about = f"process {who['pid']} on host {who['host']} since {who['started']}"
    return f"{about}: wait for it, stop it, or choose another folder with --out"


def _close_in_child() -> None:
    """A lock belongs to every copy of its descriptor, so a forked child that outlives its parent would keep it. What is
    started anew, a subprocess, gets none: O_CLOEXEC."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_close_in_child)
