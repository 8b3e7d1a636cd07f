"""The processes of a run that is to be killed, and how far its folder says that they are. For Linux: reads /proc."""

import os
import random
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

from gear import watching
from gear.config import Config
from gear.train import lines, state

ROOT = Path(__file__).parent.parent
MINUTE = 60.0  # seconds in which what is left of a run must have ended
CHECKPOINT = re.compile(r"\.+checkpoint.*\.partial|\.tmp\w{6}")  # the latter while safetensors writes it
MARK = "GEAR_LIFE"  # in the environment of all that a life starts


class Wrong(AssertionError):
    """Something that a killed run must never do: which death, what was expected, what came."""


def command(file: Path, run: Path, ranks: int, *options: str) -> list[str]:
    """options: of torchrun."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks), *options]
    return [sys.executable, *(launcher if ranks > 1 else []), "-m", "gear", "train", str(file), "--out", str(run)]


class Life:
    """One start of a command, and what its run folder was like before. said: the file that its output is added to."""

    def __init__(self, command: Sequence[str], run: Path, said: Path, **variables: str):
        self.run, self.said, self.mark = run, said, secrets.token_hex(8)
        self.config_before, self.log_before = _stamp(run / "config.json"), _stamp(run / lines.NAME)
        self.partial_before, self.saved_before = partial(run), state.step_of(run / state.NAME) or 0
        self.began, env = time.monotonic(), os.environ | {"OMP_NUM_THREADS": "1", MARK: self.mark} | variables
        with said.open("ab") as out:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
            )

    def processes(self) -> dict[int, int | None]:
        """pid -> rank (None: the launcher, or whatever else) of all that is alive of what it started."""
        found = dict[int, int | None]()
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # another user's, or gone
                variables = (folder / "environ").read_bytes().split(b"\0")
                if f"{MARK}={self.mark}".encode() in variables:  # empty for what has ended and waits to be reaped
                    rank = [v.removeprefix(b"RANK=") for v in variables if v.startswith(b"RANK=")]
                    found[int(folder.name)] = int(rank[0]) if rank else None
        return found

    def rank(self, number: int) -> int | None:
        """Its pid, once it is there."""
        return next((pid for pid, rank in self.processes().items() if rank == number), None)

    def until(self, seen: Callable[[], Any], pause: float = 0.001, limit: float = 5 * MINUTE) -> bool:
        """Looks every `pause` seconds. Whether that was seen before the process ended."""
        for _ in _watched(limit, pause):
            if self.process.poll() is not None:
                return False
            if seen():
                return True
        raise Wrong(f"what was waited for did not come in {limit:.0f} s; {self.said} has the output")

    def ended(self, limit: float = 10 * MINUTE) -> int:
        """The exit status, when all that it started is gone. Raises `Wrong` if that takes longer."""
        begun = time.monotonic()
        try:
            code = self.process.wait(limit)
            while self.processes():
                if time.monotonic() - begun > limit:
                    raise subprocess.TimeoutExpired(self.process.args, limit)
                time.sleep(0.02)
        except subprocess.TimeoutExpired:
            raise Wrong(f"{self.processes()} (pid: rank) still there after {limit:.0f} s; {self.said}") from None
        return code

    def held(self, seen: Callable[[], Any]) -> bool:
        """Stops all of it and looks. It stays so where that is seen, to be killed as it was seen; else it goes on."""
        while moving := [pid for pid in self.processes() if _moves(pid)]:
            _send(moving, signal.SIGSTOP)
            time.sleep(0.001)
        if seen():
            return True
        _send(self.processes(), signal.SIGCONT)
        return False

    def kill(self) -> None:
        """All of it at once, as when the machine goes."""
        self.process.kill()  # apart: where its program is being loaded, it has no environment yet to be found by
        while there := self.processes():
            _send(there, signal.SIGKILL)
        self.process.wait()

    def kill_one(self, rng: random.Random) -> None:
        """One rank, or everything."""
        ranks = [pid for pid, rank in sorted(self.processes().items()) if rank is not None]
        if not ranks or rng.random() < 0.5:
            return self.kill()
        _send([rng.choice(ranks)], signal.SIGKILL)
        _send(self.processes(), signal.SIGCONT)  # what was held
        self.ended(MINUTE)

    def ends_in(self, seconds: float) -> bool:
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)
            return True
        return False

    def trains(self) -> bool:
        """Whether this life has come as far as its first step: it has written its configuration and cut the log."""
        config, log = _stamp(self.run / "config.json"), _stamp(self.run / lines.NAME)
        return config != self.config_before and (self.log_before == 0 or log != self.log_before)

    def writes(self) -> set[str]:
        """The checkpoints that this life has begun to write and not finished."""
        return partial(self.run) - self.partial_before

    def due(self, config: Config) -> Literal["sheet", "evaluation"] | None:
        """What is being drawn or measured, as the step that was logged last tells; it need not have begun."""
        if not self.trains():  # asked first: until it has cut the log, the lines are those of the life before
            return None
        step, w = logged(self.run), config.watch
        if step <= self.saved_before:
            return None
        if w.evaluate_every and step % w.evaluate_every == 0:
            there = any(line["step"] == step for line in lines.read(self.run / watching.NAME))
            return None if there else "evaluation"
        sheet = self.run / watching.SHEETS / f"reconstructions-{step:08d}.png"
        drawn = _stamp(sheet) > _stamp(self.run / "config.json")  # by an earlier life it may have been, too
        return "sheet" if w.sample_every and step % w.sample_every == 0 and not drawn else None

    def phase(self, config: Config, done: int) -> str:
        """What it died in; done: the step of the newest checkpoint."""
        if not self.trains():
            return "start-up"
        if self.writes():
            return "checkpoint write"
        return "ending" if done == config.steps else "sheet or evaluation" if self.due(config) else "steps"


@contextmanager
def life(command: Sequence[str], run: Path, said: Path, **variables: str) -> Iterator[Life]:
    """A `Life` of which nothing is left after the block."""
    here = Life(command, run, said, **variables)
    try:
        yield here
    finally:
        here.kill()


def partial(run: Path) -> set[str]:
    with suppress(FileNotFoundError):
        return {name for name in os.listdir(run) if CHECKPOINT.fullmatch(name)}
    return set()


def logged(run: Path) -> int:
    """The step of the last whole line; 0 without any."""
    there = lines.read(run / lines.NAME)
    return there[-1]["step"] if there else 0


def _send(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _moves(pid: int) -> bool:
    """Whether a thread of it is neither stopped nor at its end."""
    with suppress(OSError):  # gone
        stats = [stat.read_text() for stat in Path(f"/proc/{pid}/task").glob("*/stat")]
        return any(stat.rpartition(")")[2].split()[0] not in "TtXZ" for stat in stats)
    return False


def _stamp(path: Path) -> int:
    """When it was last written; 0 where it is not. Files that are replaced may get the same inode again."""
    with suppress(FileNotFoundError):
        return path.stat().st_mtime_ns
    return 0


def _watched(limit: float, pause: float) -> Iterator[None]:
    end = time.monotonic() + limit
    while time.monotonic() < end:
        yield
        time.sleep(pause)
