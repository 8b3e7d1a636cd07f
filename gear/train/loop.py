"""The loop, the only one. Everything that varies between regimes is in the step it is given."""

import signal
import types
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from rich.console import Console

from gear.config import Config
from gear.progress import bars
from gear.step import Batch, Step
from gear.train import log, state
from gear.update import Trained


class Interrupted(KeyboardInterrupt):
    """Training stopped early, with its state saved."""


def fit(
    config: Config,
    run: Path,
    groups: tuple[Trained, ...],
    step: Callable[[Batch], Step],
    batches: Callable[[int], Batch],
    classes: Sequence[str],
    on: torch.device,
    title: str,
    console: Console,
) -> None:
    """Trains until `config.steps`, on from `run`'s checkpoint. Ctrl-C or SIGTERM saves, then raises `Interrupted`."""
    checkpoint, done = run / state.NAME, 0
    if checkpoint.exists():
        found = state.load(checkpoint)
        for group in groups:
            state.restore(group, found)
        done = found.step
    lines = log.Log(run / log.NAME, done)
    with bars(console) as progress, _Stop() as stop:
        bar = progress.add_task(title, total=config.steps, completed=done, note="")
        while done < config.steps and not stop.asked:
            seed(config.seed, done)
            batch = batches(done)
            with torch.autocast(on.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
                lines.add(step(batch), len(batch.c))
            done += 1
            if done % config.log_every == 0 or done == config.steps:
                progress.update(bar, note=_note(lines.line(done)))
            if done % config.save_every == 0 or done == config.steps or stop.asked:
                state.save(checkpoint, groups, done, config, classes)
            progress.update(bar, completed=done)
    if done < config.steps:
        raise Interrupted(f"stopped at step {done} of {config.steps}, saved in {checkpoint}")


def seed(*numbers: int) -> None:
    """Every step's randomness (dropout, class drop) is a function of these, so that a resumed run repeats it."""
    torch.manual_seed(hash(numbers) % 2**63)  # hashes of ints do not depend on PYTHONHASHSEED


def _note(line: dict[str, float]) -> str:
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
