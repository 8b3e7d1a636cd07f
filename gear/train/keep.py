"""Saves a run while it trains: a copy of the state is taken between two steps, and written behind the next ones.

RUN/checkpoint.safetensors is the newest. The one that it replaces gets a name in RUN/checkpoints if `kept` says so, and
those of which it no longer does are removed. Killed at any moment, a run has a whole checkpoint, which
`gear.train.state.newest` finds.
"""

import logging
import os
import re
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import torch
from torch import Tensor

from gear import ranks
from gear.config import Config
from gear.store.whole import beside
from gear.train import state
from gear.update import Trained

log = logging.getLogger("gear")

PARTIAL = re.compile(r"\..*\.partial|\.tmp\w{6}")  # as `beside` and safetensors name what they have not finished
ROOM = 2**27  # bytes: page-locked memory comes in powers of two, so that one piece of all could be twice as large
ALIGNED = 64  # bytes, enough for every kind of number


class Keeper:
    """Saves a run's state in the folder `run`, which no other run may be writing to. Of several ranks each has one, as
    a state that is sharded has to be put together by all of them; rank 0's writes.

    keep_last: checkpoints, the newest included. keep_every: steps between those that are never removed. While one is
    written, the disk holds one more. Leaving the block waits until everything is on disk.

    stall: seconds that the last `save` kept the caller waiting. seconds: that the last write took, behind it.
    """

    def __init__(self, run: Path, keep_last: int, keep_every: int | None = None):
        self.run, self.keep_last, self.keep_every = run, keep_last, keep_every
        self.stall = self.seconds = 0.0
        self._copy = _Copy()
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._write: Future[None] | None = None
        for folder in (run, *(f for f in run.glob("*") if f.is_dir())) if ranks.rank() == 0 else ():
            _remove_partial(folder)

    def save(
        self,
        groups: Iterable[Trained],
        step: int,
        config: Config,
        classes: Sequence[str],
        log: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Takes the state as it is now, and writes it in the background. log: `Log.pending`.

        Waits for the write before, if that is still going on, and raises what went wrong there.
        """
        start = time.perf_counter()
        self.wait()
        tensors = self._copy.take(state.collect(groups, log), keep=ranks.rank() == 0)
        if ranks.rank():
            return
        self._write = self._thread.submit(self._put, tensors, step, config, tuple(classes))
        self.stall = time.perf_counter() - start

    @property
    def failed(self) -> bool:
        """Whether a write has failed of which `check`, `wait` or `save` have not told yet."""
        return self._write is not None and self._write.done() and self._write.exception() is not None

    def check(self) -> None:
        """Raises what went wrong in the background, if anything has so far; does not wait."""
        if self.failed:
            self.wait()

    def wait(self) -> None:
        """Returns when the last `save` is on disk. Raises `CheckpointError`, once, where it could not be written or
        training has diverged; the checkpoint before is then still there."""
        if self._write is None:
            return
        wait([self._write])  # apart, so that after a Ctrl-C here the write is still known
        write, self._write = self._write, None
        write.result()

    def __enter__(self) -> "Keeper":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.wait()
        except Exception as failure:
            if error is None:
                raise
            log.warning("%s", failure)  # the caller's own error is the one that it hears of
        finally:
            self._thread.shutdown(wait=False)

    def _put(self, tensors: Mapping[str, Tensor], step: int, config: Config, classes: Sequence[str]) -> None:
        """In the background: verify, write, prune."""
        start = time.perf_counter()
        state.write(self.run / state.NAME, tensors, step, config, classes, lambda: self._make_way(step))
        self._prune(step)
        self.seconds = time.perf_counter() - start

    def _make_way(self, step: int) -> None:
        """Gives the checkpoint that that of `step` will replace its name among the older ones, if it is to be kept."""
        newest = self.run / state.NAME
        former = state.step_of(newest)
        if former in (None, step) or former not in self._kept([*self._older(), former], step):
            return
        name = self.run / state.OLDER / f"step-{former:08d}.safetensors"
        try:
            with beside(name) as second:  # replaces one of that step from before training was set back
                os.link(newest, second)
        except OSError:  # a file system without links; for a moment the run has older checkpoints only
            newest.replace(name)
        state.sync(name.parent)

    def _prune(self, step: int) -> None:
        older = self._older()
        for unwanted in older.keys() - self._kept(older, step):
            try:
                older[unwanted].unlink()
            except OSError as error:
                log.warning("%s is not needed any more and could not be removed (%s).", older[unwanted], error.strerror)

    def _kept(self, steps: Collection[int], newest: int) -> set[int]:
        return kept(steps, newest, self.keep_last, self.keep_every)

    def _older(self) -> dict[int, Path]:
        """By the step in their names; a file with any other name is somebody's own."""
        there = (self.run / state.OLDER).glob("step-*.safetensors")
        return {int(named[1]): path for path in there if (named := state.KEPT.fullmatch(path.name))}


def kept(steps: Collection[int], newest: int, keep_last: int, keep_every: int | None) -> set[int]:
    """Which of the checkpoints of `steps` stay beside that of the step `newest`: the `keep_last` - 1 before it, and the
    multiples of `keep_every`.

    One of a later step is not among the last: training had to go back behind it, and it must not push out a good one.
    """
    before = sorted((step for step in steps if step < newest), reverse=True)
    return {*before[: keep_last - 1], *(step for step in steps if keep_every and step % keep_every == 0)}


class _Copy:
    """Memory for a copy of the state on the CPU, the same one every time; page-locked where the state is on a GPU."""

    def __init__(self) -> None:
        self.rooms: list[Tensor] = []

    def take(self, tensors: Iterable[tuple[str, Tensor]], keep: bool = True) -> dict[str, Tensor]:
        """Contiguous copies of `tensors`, made when it returns; overwritten by the next call. Not `keep`: goes through
        `tensors` and copies none."""
        copies, used, on = dict[str, Tensor](), [0] * len(self.rooms), set[torch.device]()
        for key, t in tensors:
            if not keep:
                continue
            size = -(-t.nbytes // ALIGNED) * ALIGNED
            fits = (i for i, room in enumerate(self.rooms) if used[i] + size <= len(room))
            if (i := next(fits, None)) is None:
                self.rooms.append(torch.empty(max(ROOM, size), dtype=torch.uint8, pin_memory=t.is_cuda))
                used.append(0)
                i = len(used) - 1
            place = self.rooms[i][used[i] : used[i] + t.nbytes]
            copies[key] = place.view(t.dtype).view(t.shape).copy_(t, non_blocking=t.is_cuda)
            used[i] += size
            if t.is_cuda:
                on.add(t.device)
        for device in on:
            torch.cuda.synchronize(device)
        return copies


def _remove_partial(folder: Path) -> None:
    """What a killed process had not finished in `folder`, and nothing else."""
    with suppress(OSError):  # no such folder yet; or one that cannot be written, which the first `save` tells of
        for name in os.listdir(folder):
            if PARTIAL.fullmatch(name) and (folder / name).is_file():
                (folder / name).unlink()
