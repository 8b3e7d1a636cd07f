"""The loop, the only one. Everything that varies between regimes is in the step it is given."""

import math
import signal
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.markup import escape

from gear.config import Config
from gear.progress import bars
from gear.step import Batch, Encoded, Step
from gear.train import log, state
from gear.update import Trained


class Interrupted(KeyboardInterrupt):
    """Training stopped early, with its state saved."""


class Diverged(ValueError):
    """A loss is not finite any more, and neither are the weights."""


def fit(
    config: Config,
    run: Path,
    groups: tuple[Trained, ...],
    step: Callable[[Any], Step],
    batches: Callable[[int], Batch | Encoded],
    classes: Sequence[str],
    on: torch.device,
    title: str,
    console: Console,
) -> None:
    """Trains until `config.steps`, on from `run`'s checkpoint. Ctrl-C or SIGTERM saves, then raises `Interrupted`.

    Raises `Diverged` at the first log line with a number that is not finite, and leaves the last checkpoint as it is.
    """
    checkpoint, done, pending = run / state.NAME, 0, {}
    if checkpoint.exists():
        found = state.load(checkpoint)
        if other := set(classes) ^ set(found.classes):
            raise state.CheckpointError(
                f"the classes of the images have changed since {checkpoint} was written ({min(other)!r} is in one list "
                "only); train in another folder."
            )
        for group in groups:
            state.restore(group, found)
        done, pending = found.step, found.part("log")
    lines = log.Log(run / log.NAME, done, pending)
    with bars(console) as progress, _Stop() as stop:
        bar = progress.add_task(escape(title), total=config.steps, completed=done, note="")
        while done < config.steps and not stop.asked:
            seed(config.seed, done)
            batch = batches(done)
            with torch.autocast(on.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
                lines.add(step(batch), len(batch.c))
            done += 1
            if done % config.log_every == 0 or done == config.steps:
                line = lines.line(done)
                progress.update(bar, note=_note(line))
                _require_finite(line)
            if done % config.save_every == 0 or done == config.steps or stop.asked:
                state.save(checkpoint, groups, done, config, classes, lines.pending())
            progress.update(bar, completed=done)
    if done < config.steps:
        raise Interrupted(
            f"stopped at step {done} of {config.steps}, saved in {checkpoint}; the same command goes on from there"
        )


def seed(*numbers: int) -> None:
    """Every step's randomness (dropout, class drop) is a function of these, so that a resumed run repeats it."""
    torch.manual_seed(hash(numbers) % 2**63)  # hashes of ints do not depend on PYTHONHASHSEED


def _require_finite(line: Mapping[str, Any]) -> None:
    if broken := [name for name, value in line.items() if not math.isfinite(value)]:
        raise Diverged(
            f"training has diverged: {broken[0]} is {line[broken[0]]} up to step {line['step']}. "
            "Train with a lower learning rate (optimizer.*_lr) in another folder."
        )


def _note(line: Mapping[str, Any]) -> str:
    shown = {"reconstruction": "L1", "ntp": "NTP", "align_hard": "align", "codebook_entropy": "H"}
    return "  ".join(f"{label} {line[name]:.3f}" for name, label in shown.items() if name in line)


class _Stop:
    """Turns the first Ctrl-C or SIGTERM into a request that the loop honours between steps; the second is immediate."""

    asked = False

    def __enter__(self) -> "_Stop":
        self.before = {s: signal.signal(s, self._ask) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def _ask(self, number: int, frame: types.FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
