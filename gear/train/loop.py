"""The loop, the only one. Everything that varies between regimes is in the step it is given."""

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import UInt8
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from torch import nn

from gear import ranks
from gear.config import Config
from gear.progress import bars
from gear.step import Batch, Encoded, Step
from gear.train import diagnosis, log, state, track
from gear.train.distributed import Agreement, everyones, told
from gear.train.health import Alarm, Collapse, Skips
from gear.train.keep import Keeper
from gear.train.lines import append, cut
from gear.train.resume import resume
from gear.train.stopping import Interrupted, Stop
from gear.update import Trained, whole_average

HEALTH = "health.jsonl"  # warnings, in the run folder

notes = logging.getLogger("gear")


class Diverged(ValueError):
    """Updates were left out over and over, since gradients are not finite any more; the weights still are."""


class Collapsed(ValueError):
    """The codebook fell below `guards.collapse_stop`."""


@runtime_checkable
class Watching(Protocol):
    """Draws and measures the averaged pair; `gear.watching.Watcher`. All ranks call it, and get the same."""

    def begin(self, step: int) -> None: ...

    def measured(self, step: int) -> bool: ...

    def draw(self, tokenizer: Any, generator: Any, step: int) -> Mapping[str, UInt8[np.ndarray, "H W 3"]]: ...

    def measure(
        self, tokenizer: Any, generator: Any, step: int, shown: Progress | None = None
    ) -> Mapping[str, float]: ...


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
    watch: Watching | None = None,
    stopping: Stop | None = None,
) -> None:
    """Trains until `config.steps`, on from `run`'s newest valid checkpoint; with several ranks, all of them together.

    batches: this rank's share of the batch of a step. stopping: what watches for signals; made here if None: Ctrl-C,
    SIGTERM or SIGUSR1 saves, then raises `Interrupted`.
    Raises `Diverged` after `guards.skip_limit` updates in a row with a gradient that is not finite, `Collapsed`, and
    `CheckpointError`; the last checkpoint is then as it was.
    """
    start, first, alone = resume(run, groups, classes), ranks.rank() == 0, ranks.size() == 1
    done, pending = start.step, start.log
    own = ("skips.", "broken")
    lines = log.Log(run / log.NAME, done, {k: t for k, t in pending.items() if not k.startswith(own)})
    # Not the longest row, which may be what stopped the run: mended, it must be able to go on.
    # And the same on every rank: what one of them makes of it, all must.
    counted = told({k.removeprefix("skips."): int(t) for k, t in pending.items() if k.startswith("skips.")})
    skips = Skips(on, {name: torch.tensor(n) for name, n in counted.items() if name != "longest"})
    broken: dict[int, str] = getattr(batches, "broken", {})
    broken |= dict.fromkeys(told(pending["broken"].tolist() if "broken" in pending else []), "found before")
    collapse = Collapse(config, lines.kept)
    if first:
        cut(run / HEALTH, done)
    if watch is not None:
        watch.begin(done)

    def train_on(batch: Batch | Encoded) -> Step:
        with torch.autocast(on.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
            return in_parts(step, batch, config.engine.accumulate)

    def look(progress: Progress, stop: Stop) -> None:
        """Pictures and numbers of the averaged pair, where they are due."""
        w = config.watch
        sheet = w.sample_every and done % w.sample_every == 0
        number = w.evaluate_every and done % w.evaluate_every == 0
        if watch is None or not (sheet or number):
            return

        def work(watch: Watching) -> None:
            pair = averaged_pair(groups)
            if sheet:
                for name, pixels in watch.draw(*pair, done).items():
                    trackers.picture(done, name, pixels)
            if number:
                trackers.scalars(done, watch.measure(*pair, done, progress))

        stop.leaving(partial(work, watch), alone)

    def save() -> None:
        kept = lines.pending() | {f"skips.{name}": t for name, t in skips.pending().items()}
        if broken_images():
            kept["broken"] = torch.tensor(sorted(broken))
        keeper.save(groups, done, config, classes, kept)

    def broken_images() -> int:
        """How many all ranks together have found; each knows them then."""
        for other in everyones(sorted(broken)) if hasattr(batches, "broken") else ():
            broken.update({i: "found by another rank" for i in other if i not in broken})
        return len(broken)

    keeping = Keeper(run, config.keep_last, config.keep_every)
    names = config.watch.trackers if first else ()
    trackers = track.opened(names, run, config, done)
    try:
        with bars(console) as progress, nullcontext(stopping) if stopping else Stop() as stop, keeping as keeper:
            bar = progress.add_task(escape(title), total=config.steps, completed=done, note="")
            agreement, ends = Agreement(), False
            if done and watch is not None and not watch.measured(done):  # was stopped while it measured
                look(progress, stop)
                ends = alone and stop.asked is not None
            while done < config.steps and not ends:
                seed(config.seed, done)
                batch = batches(done)
                taken = train_on(batch)
                lines.add(taken, len(batch.c))
                skips.add(done, taken.terms)
                done += 1
                last = done == config.steps
                if done % config.log_every == 0 or last:
                    line = lines.line(done, broken_images())
                    progress.update(bar, note=note(line))
                    trackers.scalars(done, line)
                    alarm = collapse.see(line)
                    if alarm is not None:
                        warn(run, alarm, progress)
                    report = skips.read()
                    if report.longest >= config.guards.skip_limit and report.last_step is not None:
                        number = report.last_step - max(0, report.streak - 1)  # the first of those in a row
                        why = diagnosed(config, run, groups, train_on, batches(number), number)
                        raise Diverged(f"training has diverged: {why}")
                    if alarm is not None and alarm.stop:
                        raise Collapsed(alarm.message)
                keeper.check()
                ends = agreement.stop(stop.asked is not None)
                saves = done % config.save_every == 0 or last or ends
                if saves:
                    save()  # before what takes minutes: it is made again where it was broken off
                if not ends:
                    look(progress, stop)
                    if alone and stop.asked is not None and not last:  # here, for what it left is due after this step
                        ends = True
                        if not saves:
                            save()
                progress.update(bar, completed=done)
            agreement.end()
    finally:
        trackers.close()
    if done < config.steps:
        raise Interrupted(
            f"stopped at step {done} of {config.steps}, saved in {run / state.NAME}; "
            "the same command goes on from there",
            stop.code,
        )


def seed(*numbers: int) -> None:
    """Every step's randomness (dropout, class drop) is a function of these, so that a resumed run repeats it. The same
    on every rank: what is random for an image belongs to its row of the whole batch (`gear.noise`)."""
    torch.manual_seed(hash(numbers) % 2**63)  # hashes of ints do not depend on PYTHONHASHSEED


def in_parts(step: Callable[[Any], Step], batch: Batch | Encoded, parts: int) -> Step:
    """`step` on each of the equal parts of `batch`, gradients accumulated: the groups move with the last one."""
    if parts == 1:
        return step(batch)
    taken: list[Step] = []
    for i in range(parts):
        torch.manual_seed(torch.initial_seed())  # each part draws for the whole batch, and uses its rows
        with ranks.in_part(i, parts):
            taken.append(step(part_of(batch, i, parts)))
    losses = [name for name in taken[0].terms if all(name in t.terms for t in taken)]
    means = {name: torch.stack([t.terms[name] for t in taken]).mean(0) for name in losses}
    return Step(dict(taken[-1].terms) | means, torch.stack([t.counts for t in taken]).sum(0))


def part_of(batch: Any, index: int, of: int) -> Any:
    """Rows of every tensor of a batch."""
    n = len(batch.c) // of
    rows = slice(index * n, (index + 1) * n)
    own = {f.name: getattr(batch, f.name) for f in dataclasses.fields(batch)}
    return type(batch)(**{k: {n: t[rows] for n, t in v.items()} if k == "f" else v[rows] for k, v in own.items()})


def averaged_pair(groups: Sequence[Trained]) -> tuple[nn.Module, nn.Module | None]:
    """The averaged tokenizer (of a frozen one, itself) and generator (None in a warm-up), whole and in eval mode."""
    found = {group.name: whole_average(group) for group in groups if group.name != "critic"}
    return found["tokenizer"], found.get("generator")


def warn(run: Path, alarm: Alarm, progress: Progress) -> None:
    """On the terminal, and for `gear status`."""
    if ranks.rank():
        return
    progress.console.print(f"warning: {alarm.message}", style="yellow", highlight=False, markup=False)
    append(run / HEALTH, {"step": alarm.step, "kind": alarm.kind, "message": alarm.message})


def diagnosed(
    config: Config,
    run: Path,
    groups: Sequence[Trained],
    step: Callable[[Any], Step],
    batch: Batch | Encoded,
    number: int,
) -> str:
    """What is known of a step that was not finite, its batch saved; the same on every rank."""
    found = diagnosis.diagnose(groups, step, batch, lambda: seed(config.seed, number))
    sentence = diagnosis.sentence(found, number, diagnosis.save_batch(run, number, batch))
    return min(everyones([found.severity, ranks.rank(), sentence]))[2]


def note(line: Mapping[str, Any]) -> str:
    """What fits beside a progress bar: in 80 columns the loss that matters most, speed and memory."""
    losses = {"ntp": "NTP", "reconstruction": "L1", "align_hard": "align", "codebook_entropy": "H"}
    first, *others = [f"{label} {line[name]:.3f}" for name, label in losses.items() if line.get(name) is not None]
    left_out = {
        "skipped": sum(n for name, n in line.items() if name.startswith("skipped_")),
        "broken": line["broken_images"],
    }
    counts = [f"{n} {what}" for what, n in left_out.items() if n]
    return "  ".join([first, f"{line['images_per_s']:.0f}/s", f"{line['memory_gib']:.1f} GiB", *counts, *others])
