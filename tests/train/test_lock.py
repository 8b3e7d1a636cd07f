"""Two runs in one folder: the second is turned away, and a lock does not outlive its holder. Real processes, killed."""

import errno
import fcntl
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gear.store.whole import WriteError
from gear.train.lock import NAME, LockedError, holder, locked

ROOT = Path(__file__).parent.parent.parent
HOLDER = """
import os, subprocess, sys, time
from pathlib import Path
from gear.train.lock import locked
with locked(Path(sys.argv[1])):
    {child}
    print("held", child, flush=True)
    time.sleep(600)
"""
CHILDREN = {
    "none": "child = 0",
    "a subprocess": "child = subprocess.Popen(['sleep', '600']).pid",
    "a subprocess with every descriptor": "child = subprocess.Popen(['sleep', '600'], close_fds=False).pid",
    # Said only once the child, which closes its copy as it begins, has begun.
    "a fork": "r, w = os.pipe(); child = os.fork() or (os.write(w, b'.') and time.sleep(600) and 0); os.read(r, 1)",
}


@contextmanager
def another(run: Path, child: str = "none") -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A process that holds the lock, and the pid of its child."""
    code = HOLDER.format(child=CHILDREN[child])
    process = subprocess.Popen([sys.executable, "-c", code, str(run)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    held, pid = process.stdout.readline().split()
    assert held == "held"
    try:
        yield process, int(pid)
    finally:
        process.kill()
        if int(pid):
            os.kill(int(pid), signal.SIGKILL)
        process.wait()
        process.stdout.close()


def test_a_second_process_is_turned_away_by_one_sentence(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with another(run) as (process, _):
        about = holder(run)
        assert about is not None
        assert (about["pid"], about["host"]) == (process.pid, socket.gethostname())
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", about["started"])
        before = (run / NAME).read_bytes()
        with pytest.raises(LockedError) as refused, locked(run):
            pytest.fail("two processes in one folder")
        assert str(refused.value) == (
            f"{run} is being trained by process {process.pid} on host {socket.gethostname()} since {about['started']}: "
            "wait for it, stop it, or choose another folder with --out."
        )
        assert (run / NAME).read_bytes() == before
        with locked(tmp_path / "other"):
            pass


def test_twice_in_one_process(tmp_path: Path) -> None:
    with locked(tmp_path):
        with pytest.raises(LockedError, match=f"process {os.getpid()} "), locked(tmp_path):
            pass
        assert holder(tmp_path) is not None  # a refusal releases nothing


@pytest.mark.parametrize("child", CHILDREN)
def test_a_killed_holder_leaves_it_free(tmp_path: Path, child: str) -> None:
    """Whatever it has started, and what lives on after it."""
    with another(tmp_path, child) as (process, pid):
        assert holder(tmp_path) is not None
        process.kill()
        process.wait()
        if pid:
            os.kill(pid, 0)  # it is still there
        assert holder(tmp_path) is None
        with locked(tmp_path):
            assert holder(tmp_path) == json.loads((tmp_path / NAME).read_text())


def test_released_after_the_block_and_after_an_error(tmp_path: Path) -> None:
    assert holder(tmp_path) is None  # no file
    opened = len(os.listdir("/proc/self/fd"))
    with pytest.raises(KeyboardInterrupt), locked(tmp_path):
        raise KeyboardInterrupt
    assert not (tmp_path / NAME).exists()
    assert holder(tmp_path) is None
    with locked(tmp_path):
        assert holder(tmp_path) is not None
    assert holder(tmp_path) is None
    assert len(os.listdir("/proc/self/fd")) == opened


def test_to_look_neither_changes_the_file_nor_turns_a_run_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, pauses = tmp_path / NAME, list[float]()
    file.write_text("of a run that was killed")
    before = (file.read_bytes(), file.stat().st_mtime_ns)
    looking = os.open(file, os.O_RDONLY)
    fcntl.flock(looking, fcntl.LOCK_SH)  # as `holder` has it for a moment

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 2:
            os.close(looking)

    monkeypatch.setattr(time, "sleep", pause)
    assert holder(tmp_path) is None  # two may look
    assert (file.read_bytes(), file.stat().st_mtime_ns) == before
    with locked(tmp_path):
        assert len(pauses) == 2


def test_a_folder_that_was_made_for_nothing_is_removed(tmp_path: Path) -> None:
    with locked(tmp_path / "new"):
        pass
    assert not (tmp_path / "new").exists()
    with locked(tmp_path / "used"):
        (tmp_path / "used" / "log.jsonl").write_text("")
    assert os.listdir(tmp_path / "used") == ["log.jsonl"]
    with locked(tmp_path / "used"):
        (tmp_path / "used" / "log.jsonl").unlink()
    assert (tmp_path / "used").exists()  # somebody else's


def test_the_lock_of_a_removed_file_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run before ended after this one had opened its file."""
    file, flock, times = tmp_path / NAME, fcntl.flock, []
    file.write_text("")

    def late(descriptor: int, how: int) -> None:
        if not times:
            file.unlink()
        times.append(how)
        flock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with locked(tmp_path):
        assert len(times) == 2
        assert json.loads(file.read_text())["pid"] == os.getpid()


@pytest.mark.parametrize("content", [b"", b"\xff\x00", b"[" * 4000, b"[1, 2]", b'{"pid": 1}'])
def test_a_file_that_says_nothing(tmp_path: Path, content: bytes) -> None:
    with locked(tmp_path):
        (tmp_path / NAME).write_bytes(content)
        assert isinstance(holder(tmp_path), dict)
        with pytest.raises(LockedError, match="trained by another process: wait"), locked(tmp_path):
            pass


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_filesystem_without_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, code: int
) -> None:
    def flock(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", flock)
    (tmp_path / NAME).write_text("of a run on another filesystem")
    ran = 0
    with caplog.at_level(logging.WARNING, "gear"):
        for _ in range(2):
            with locked(tmp_path), locked(tmp_path):
                ran += 1
                assert holder(tmp_path) is None
    assert ran == 2
    (said,) = caplog.messages
    assert f"The filesystem of {tmp_path} has no locks" in said
    assert (tmp_path / NAME).read_bytes() == b""


def test_an_error_of_another_kind_is_not_taken_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(WriteError, match="Input/output error"), locked(tmp_path):
        pass


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for run in (tmp_path / "file", Path("/proc/none")):
        with pytest.raises(WriteError, match=re.escape(str(run / NAME))), locked(run):
            pass


def test_a_folder_that_is_read_only(tmp_path: Path) -> None:
    """As another user where this one is root, whom no permission binds."""
    tmp_path.chmod(0o555)
    code = """
import os, sys
from pathlib import Path
from gear.store.whole import WriteError
from gear.train.lock import locked
if os.geteuid() == 0:
    os.chdir(sys.argv[1])  # whose parents are root's
    os.setuid(65534)
try:
    with locked(Path(".")):
        pass
except WriteError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        cwd=ROOT if os.geteuid() == 0 else tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.startswith(".lock could not be written (Permission denied): "), done.stderr
    assert list(tmp_path.iterdir()) == []


def test_of_many_that_start_at_once_one_runs(tmp_path: Path) -> None:
    code = HOLDER.format(child="child = 0").replace("time.sleep(600)", "sys.stdin.read()")
    command, pipe = [sys.executable, "-c", code, str(tmp_path)], subprocess.PIPE
    many = [subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe) for _ in range(4)]
    until = time.monotonic() + 60
    while sum(process.poll() is None for process in many) > 1 and time.monotonic() < until:
        time.sleep(0.02)
    said = [process.communicate() for process in many]  # which ends the one that waits for its input
    assert sorted(out for out, _ in said) == [b"", b"", b"", b"held 0\n"]
    assert sum(b"LockedError" in err for _, err in said) == 3
