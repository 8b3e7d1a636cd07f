import errno
import os
import time
from pathlib import Path

import pytest

from gear.store import cache
from gear.store.cache import CacheError


def test_where(monkeypatch):
    monkeypatch.setenv("GEAR_CACHE", "~/mine")
    assert cache.directory() == Path.home() / "mine"
    monkeypatch.delenv("GEAR_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache.directory() == Path("/xdg/gear")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache.directory() == Path.home() / ".cache" / "gear"


def test_a_file_appears_whole(tmp_path):
    path = tmp_path / "new" / "deep" / "a.bin"
    with cache.writing(path) as file:
        file.write(b"one")
        assert not path.exists()
    assert path.read_bytes() == b"one"
    assert path.stat().st_mode & 0o777 == 0o666 & ~_umask()  # as any file of this user's, and not for them alone
    with cache.writing(path) as file:
        file.write(b"two")
        assert path.read_bytes() == b"one"
    assert path.read_bytes() == b"two"
    assert list(path.parent.iterdir()) == [path]


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk(tmp_path, monkeypatch, code):
    def fsync(_: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fsync)
    with (
        pytest.raises(CacheError, match=r"^The disk is full: a\.bin could not be written in .*GEAR_CACHE"),
        cache.writing(tmp_path / "a.bin") as file,
    ):
        file.write(b"x")
    assert list(tmp_path.iterdir()) == []


def test_other_failures_pass_through_and_leave_nothing(tmp_path):
    for error in (OSError(errno.EIO, "Input/output error"), KeyboardInterrupt(), CacheError("inner")):
        with pytest.raises(type(error)) as caught, cache.writing(tmp_path / "a.bin"):
            raise error
        assert caught.value is error
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(CacheError, match=r"cannot be written .* Set GEAR_CACHE to a folder that can be"),
        cache.writing(tmp_path / "file" / "a.bin"),
    ):
        pass


def test_remains_of_a_killed_process_are_removed(tmp_path):
    old, recent = tmp_path / ".a.bin.00000000.partial", tmp_path / ".a.bin.11111111.partial"
    for path in (old, recent):
        path.write_bytes(b"")
    os.utime(old, (0, time.time() - 2 * cache.STALE))
    with cache.writing(tmp_path / "b.bin"):
        pass
    assert not old.exists()
    assert recent.exists()  # another process may be writing it


def test_another_process_may_finish_meanwhile(tmp_path, monkeypatch):
    """What it wrote is there when the folder is listed, and has its own name when it is asked how old it is."""
    other, stat = tmp_path / ".a.bin.1.partial", Path.stat
    other.write_bytes(b"whole")

    def finished(path, **options):
        if path == other and other.exists():
            other.rename(tmp_path / "a.bin")
        return stat(path, **options)

    monkeypatch.setattr(Path, "exists", lambda path: os.path.lexists(path))
    monkeypatch.setattr(Path, "stat", finished)
    with cache.writing(tmp_path / "b.bin") as file:
        file.write(b"x")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.bin", "b.bin"]


@pytest.mark.parametrize(
    ("size", "words"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (9_830_400_000, "9.8 GB"), (10**15, "1000.0 TB")],
)
def test_sizes_in_words(size, words):
    assert cache.readable(size) == words


def test_space(tmp_path):
    cache.require_space(tmp_path / "not" / "yet" / "there.bin", 1)
    with pytest.raises(
        CacheError, match=r"there\.bin needs 1000\.0 TB in .*/not/yet, where .* are free\. Free some space"
    ):
        cache.require_space(tmp_path / "not" / "yet" / "there.bin", 10**15)
