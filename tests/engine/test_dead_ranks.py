"""Runs of two processes of which one dies, fails or is asked to stop; and one process that is. Real torchrun, real
signals: within a minute all is gone, and the last words are those of what went wrong."""

import json
import os
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from bench import kills
from bench.differences import differences
from bench.lives import MINUTE, ROOT, Life, command, life, logged
from gear.config import Config
from gear.config_json import to_json
from gear.train import state

LONG = 100_000  # steps of a run that does not end by itself
SIGNALS = ("--signals-to-handle", "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1")  # of torchrun: those that it hands on
WORKER = """
# `gear` as one rank, which leaves a note of its end. FAILING=RANK makes that rank raise in its step 5, LATE=RANK starts
# that rank seconds after the other one, which waits for it however long it takes.
import json, os, sys, time
from pathlib import Path
if os.environ.get("LATE") == os.environ["RANK"]:
    time.sleep(5)
from gear import cli, step
from gear.train import loop

rank, note, made = os.environ["RANK"], Path(sys.argv.pop(1)), 0
(note / f"pid-{rank}").write_text(str(os.getpid()))
cli.PATIENCE = 600
seed, gear_step = loop.seed, step.gear_step

def seeded(*numbers):
    global made
    made = numbers[1] + 1  # this step is begun
    return seed(*numbers)

def failing(*args):
    if made == 5:
        raise RuntimeError("the step cannot be made")
    return gear_step(*args)

loop.seed = seeded
if os.environ.get("FAILING") == rank:
    step.gear_step = failing
code = 0
try:
    cli.main()
except SystemExit as end:
    code = end.code
    raise
finally:
    (note / rank).write_text(json.dumps([code, made]))
    if code == 1:  # the other one has ended, and torchrun names the first end that it sees
        other = Path("/proc", (note / f"pid-{1 - int(rank)}").read_text())
        while other.exists():
            time.sleep(0.01)
"""


@dataclass(frozen=True)
class Place:
    """Where a run is, with its one configuration, and how it is started on two ranks."""

    folder: Path
    config: Config

    @property
    def run(self) -> Path:
        return self.folder / "run"

    def file(self) -> Path:
        file = self.folder / "dead.json"
        file.write_text(to_json(self.config))
        return file

    @contextmanager
    def started(self, ranks: int = 2, **variables: str) -> Iterator[Life]:
        """By itself; of two ranks each is watched by `WORKER`."""
        whole, worker, said = command(self.file(), self.run, ranks, *SIGNALS), self.folder / "worker.py", self.said
        said.unlink(missing_ok=True)
        worker.write_text(WORKER)
        if ranks > 1:
            at = whole.index("-m", whole.index("torch.distributed.run"))
            whole[at : at + 2] = [str(worker), str(self.folder)]
        with life(whole, self.run, said, PYTHONPATH=str(ROOT), **variables) as here:
            yield here

    @property
    def said(self) -> Path:
        return self.folder / "said.txt"

    def words(self) -> list[str]:
        """What our processes said, without the bars."""
        return [line for line in self.said.read_text().splitlines() if re.match(r"gear(, rank \d)?: ", line)]

    def ends(self) -> list[tuple[int, int]]:
        """Of each rank: its exit status, and the steps that it made."""
        code, made = zip(*(json.loads((self.folder / rank).read_text()) for rank in "01"), strict=True)
        return list(zip(code, made, strict=True))


@pytest.fixture
def place(tiny: Config, tmp_path: Path) -> Place:
    """Checkpoints come between two lines of the log."""
    return Place(tmp_path, replace(tiny, batch=4, steps=LONG, log_every=2, save_every=5))


def trains(here: Life, steps: int) -> Callable[[], bool]:
    return lambda: here.trains() and logged(here.run) >= steps


# ------------------------------------------------------------------------------------------- ranks that die


def test_a_rank_is_killed(place: Place) -> None:
    """The one that is left says so in one line. While both trained, a second run in the folder was refused."""
    with place.started() as here:
        assert here.until(trains(here, 6), 0.01)
        first, second = here.rank(0), here.rank(1)
        assert first is not None
        assert second is not None
        with life(command(place.file(), place.run, 1), place.run, place.folder / "refused.txt") as another:
            assert another.ended(2 * MINUTE) == 2
        os.kill(second, signal.SIGKILL)
        assert here.ended(MINUTE) != 0
    (refused,) = (place.folder / "refused.txt").read_text().strip().splitlines()
    assert re.match(rf"gear: \S+/run is being trained by process {first} on host ", refused)
    said = place.said.read_text()
    (word,) = place.words()
    assert word.startswith("gear: ends because another process of the run has ended (")
    assert len(word) < 500
    assert "gear/run.py" not in said  # torchrun's own traceback is the only one
    assert f"exitcode  : -9 (pid: {second})" in said.split("Root Cause (first observed failure)")[1]
    assert state.newest(place.run) is not None


def test_a_rank_fails(place: Place) -> None:
    """Its traceback comes before what the other one says of it, and again as the root cause."""
    with place.started(FAILING="1") as here:
        assert here.ended(2 * MINUTE) != 0
    assert logged(place.run) == 4
    said = place.said.read_text()
    error = "RuntimeError: the step cannot be made"
    traceback, other = said.index(error), said.index("gear: ends because another process of the run has ended")
    assert traceback < other
    cause = said[said.index("Root Cause (first observed failure)") :]
    assert "rank      : 1 (local_rank: 1)" in cause
    assert error in cause
    assert "in failing" in cause
    assert place.ends()[1][1] == 5


# ------------------------------------------------------------------------------------------- runs that are stopped


def test_two_ranks_are_stopped(place: Place) -> None:
    """By a signal to torchrun, by one that it hands on if told to, by one to a single rank; then the run goes on to the
    end, where it is as one that was not stopped."""
    steps, codes = list[int](), list[int]()
    for number, to_launcher in ((signal.SIGTERM, True), (signal.SIGUSR1, True), (signal.SIGTERM, False)):
        with place.started() as here:
            assert here.until(trains(here, logged(place.run) + 4), 0.01)
            rank = here.process.pid if to_launcher else here.rank(1)
            assert rank is not None
            os.kill(rank, number)
            codes.append(here.ended(MINUTE))
        (first, made), other = place.ends()
        assert (first, made) == other == (0, made)
        saved = state.newest(place.run)
        assert saved is not None
        assert saved.step == made
        (word,) = place.words()
        assert word.startswith(f"gear: stopped at step {made} of {LONG}, saved in {place.run / state.NAME}; ")
        steps.append(made)
    assert steps == sorted(set(steps))
    assert codes == [1, 1, 0]  # torchrun's own: it raises `SignalException` once its ranks have ended well
    # Only the newest checkpoint: where a run was stopped it saved one more.
    end = replace(place, config=replace(place.config, steps=steps[-1] + 3, keep_last=1))
    with end.started() as here:
        assert here.ended(2 * MINUTE) == 0
    assert end.ends() == [(0, steps[-1] + 3)] * 2
    kills.undisturbed(end.file(), end.folder / "undisturbed", 2)
    assert differences(end.folder / "undisturbed", end.run) == []


@pytest.mark.parametrize(("number", "code"), [("SIGTERM", 0), ("SIGUSR1", 0), ("SIGINT", 130)])
def test_one_process_is_stopped(place: Place, number: str, code: int) -> None:
    with place.started(ranks=1) as here:
        assert here.until(trains(here, 4), 0.01)
        here.process.send_signal(signal.Signals[number])
        assert here.ended(MINUTE) == code
    saved = state.newest(place.run)
    assert saved is not None
    assert saved.step >= logged(place.run) >= 4
    (word,) = place.words()
    assert word == (
        f"gear: stopped at step {saved.step} of {LONG}, saved in {place.run / state.NAME}; the same command goes on "
        "from there."
    )


# ------------------------------------------------------------------------------------------- runs that cannot begin


@pytest.mark.parametrize("late", ["1", "0"])
def test_no_equal_shares(place: Place, late: str) -> None:
    """Refused before the images are looked for, which are not there; whichever rank is the first to see it."""
    data = replace(place.config.data, path=str(place.folder / "nowhere"))
    with replace(place, config=replace(place.config, batch=5, data=data)).started(LATE=late) as here:
        assert here.ended(2 * MINUTE) == 1  # torchrun's; that of the rank is in its summary
    said, words = place.said.read_text(), place.words()
    assert len(words) == 1
    assert "batch must be a multiple of 2 (2 processes, " in words[0]
    assert words[0].endswith("it is 5 (the nearest is 4).")
    assert "exitcode  : 2 " in said.split("Root Cause (first observed failure)")[1]
    assert "nowhere" not in said
    assert not place.run.exists()
