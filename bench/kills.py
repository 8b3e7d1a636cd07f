"""A run that is killed over and over, beside one that is not: nothing but time may tell them apart.

    python -m bench.kills --kills 50                             about 20 minutes on two shared cores
    python -m bench.kills --kills 6 --ranks 2                    about 6 minutes; one rank is killed, or all at once
    python -m bench.kills --kills 2 --ranks 2 --then-ranks 1     about 4 minutes; goes on at another number of ranks

Real processes and SIGKILL: `gear train FILE.json --out FOLDER`, always the same command. `--kills` come at moments that
are uniform over a life of `LIFE` start-ups, a fifth as many are aimed at checkpoint writes, and as many at evaluations.
A run that ends while kills are left is compared and followed by another one. Exits 1 with what differs.
"""

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table

from bench.differences import differences, drift
from bench.lives import MINUTE, Life, Wrong, command, life, logged
from gear import watching
from gear.config import VQ, VQGAN, Config, Critic, Data, Generator, Optimizer, Watch
from gear.config_json import read, to_json
from gear.recipes import demo
from gear.train import lines, state

LIFE = 2.5  # start-ups that a life lasts which is killed at a random moment: most of them train by then
WRITE = 0.03  # seconds after a write was seen in which a kill may come; longer than most writes last
PHASES = ("start-up", "steps", "checkpoint write", "sheet or evaluation", "ending")

Kind = Literal["moment", "write", "evaluation"]


def small(steps: int) -> Config:
    """GEAR with all its parts and all that is random, in networks that take 0.1 s a step. Checkpoints come between two
    lines of the log; sheets and evaluations right after a line, so that they can be seen to begin."""
    base = demo()
    networks = replace(
        base.tokenizer,
        quantizer=VQ(codebook_size=64, dim=4),
        backbone=VQGAN(16, (1, 2), encoder_blocks=1, decoder_blocks=1, latent=16, attention=False, groups=8, patch=4),
        critic=Critic(channels=8, layers=1),
        init=None,
    )
    return replace(
        base,
        tokenizer=networks,
        generator=Generator(layers=2, heads=2, width=32, tap=1, projector=16, class_drop=0.1, dropout=0.1),
        data=Data("builtin", resolution=32, flip=True, holdout=0.1),
        optimizer=Optimizer(tokenizer_lr=1e-3, critic_lr=1e-3, generator_lr=1e-3, ema=0.9),
        watch=Watch(sample_every=6, samples=8, evaluate_every=24, generated=12, trackers=()),
        steps=steps,
        batch=4,
        log_every=3,
        save_every=5,
        keep_last=2,
        device="cpu",
    )


# --------------------------------------------------------------------------------------------------- a trial


@dataclass(frozen=True)
class Aim:
    """When a life is to be killed: `delay` seconds after its start, or after a write or an evaluation was seen; in an
    evaluation only while it lasts."""

    at: Kind
    delay: float


@dataclass(frozen=True)
class Death:
    """saved: the step of the newest checkpoint. repeated: steps after it that the log told of."""

    aim: Kind
    phase: str
    saved: int
    repeated: int


@dataclass
class Trial:
    """What came out: every death, how many lives and runs there were, what differs between the runs and the undisturbed
    one, and where."""

    undisturbed: Path
    deaths: list[Death] = field(default_factory=list)
    lives: int = 0
    runs: list[Path] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)


def undisturbed(file: Path, run: Path, ranks: int) -> tuple[float, float]:
    """Trains once, to the end. The seconds until it trains, and in all."""
    with life(command(file, run, ranks), run, run.with_suffix(".txt")) as here:
        here.until(here.trains, 0.01)
        start = time.monotonic() - here.began
        if code := here.ended(60 * MINUTE):
            raise Wrong(f"the undisturbed run ended with {code}; {here.said} has the output")
        return start, time.monotonic() - here.began


def killed(
    file: Path, trial: Trial, aims: Sequence[Aim], ranks: int, rng: random.Random, then_ranks: int | None = None
) -> None:
    """Runs of the same command until every aim has killed a life; then one life to the end, with `then_ranks`."""
    left = list(aims)
    while left or not trial.runs:
        run = trial.undisturbed.with_name(f"killed-{len(trial.runs) + 1}")
        trial.runs.append(run)
        while _one_life(file, run, trial, left, ranks if left or not then_ranks else then_ranks, rng):
            pass
        if then_ranks is None:
            trial.differences += [f"{run.name}: {what}" for what in differences(trial.undisturbed, run)]
        elif not drift(trial.undisturbed, run):
            trial.differences.append(f"{run.name}: the lines of {lines.NAME} are of other steps")


def _one_life(file: Path, run: Path, trial: Trial, left: list[Aim], ranks: int, rng: random.Random) -> bool:
    """Whether the run has to go on after it. Takes the aim that was met out of `left`."""
    config, before = read(file), state.newest(run, ())
    trial.lives += 1
    with life(command(file, run, ranks), run, run.with_suffix(".txt")) as here:
        if left and _reached(here, left[0], config):
            writing = ranks > 1 and bool(here.writes())  # which the rank that is left may finish
            here.kill_one(rng)
            if here.process.returncode:
                trial.deaths.append(_after(here, left.pop(0).at, config, before.step if before else 0, writing))
                return True
        if code := here.ended(30 * MINUTE):
            raise Wrong(f"life {trial.lives} was not killed and ended with {code}; {here.said} has the output")
        if left:  # the next run is to be killed, though the machine may be faster now than when this was timed
            left[0] = replace(left[0], delay=left[0].delay / 2)
        return False


def _reached(here: Life, aim: Aim, config: Config) -> bool:
    """Waits for the moment; whether the process is still there."""
    match aim.at:
        case "moment":
            seen = here.until(lambda: True)
        case "write":
            seen = here.until(here.writes)
        case "evaluation":
            while here.until(lambda: _evaluates(here, config), 0.005) and not here.ends_in(aim.delay):
                if here.held(lambda: _evaluates(here, config)):
                    return True
            return False
    return seen and not here.ends_in(aim.delay)


def _evaluates(here: Life, config: Config) -> bool:
    """Whether an evaluation is due, and the checkpoint of its step, if it has one, on disk: until then a death would be
    one in its write, which begins some time after the line. Of a life that goes on it may not be true any more."""
    if here.due(config) != "evaluation" or here.writes():
        return False
    step = logged(here.run)
    return step % config.save_every != 0 or state.step_of(here.run / state.NAME) == step


def _after(here: Life, aim: Kind, config: Config, before: int, writing: bool) -> Death:
    """Looks at the folder of a dead run. Raises `Wrong`."""
    there = state.candidates(here.run)
    try:
        newest = state.newest(here.run)  # reads and verifies all of it
    except state.CheckpointError as error:
        raise Wrong(f"after a kill no checkpoint can be used: {error}") from None
    if newest is not None and newest.path != there[0]:
        raise Wrong(f"after a kill {there[0]} cannot be used, but {newest.path}")
    saved, every = newest.step if newest else 0, config.save_every
    step = logged(here.run) if here.trains() else before
    # A step is logged before it is saved, and a save waits until the one before it is on disk.
    least = max(before, (max(0, step - 1) // every - 1) * every)
    if saved < least:
        raise Wrong(f"killed after step {step}, {here.run} goes on from step {saved}, which is before {least}")
    phase = "checkpoint write" if writing else here.phase(config, saved)
    return Death(aim, phase, saved, max(0, step - saved))


# --------------------------------------------------------------------------------------------------- the program


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.kills", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=50, help="at random moments; a fifth more at each of two aims")
    parser.add_argument("--ranks", type=int, default=1, help="processes of the run, started by torchrun")
    parser.add_argument("--then-ranks", type=int, help="of the life after the last kill; equal up to rounding only")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--steps", type=int, default=240)
    parser.add_argument("--out", type=Path, help="an empty folder for all the runs; by default a temporary one")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() if given.out is None else nullcontext(given.out) as out:
        sys.exit(run(given, Path(out)))


def run(given: argparse.Namespace, out: Path) -> int:
    out.mkdir(parents=True, exist_ok=True)
    file, rng, begun = out / "kills.json", random.Random(given.seed), time.monotonic()
    config = small(given.steps)
    file.write_text(to_json(config) + "\n")
    trial = Trial(out / "undisturbed")
    console = Console(highlight=False)
    start, whole = undisturbed(file, trial.undisturbed, given.ranks)
    measured = [line["seconds"] for line in lines.read(trial.undisturbed / watching.NAME)]
    console.print(f"undisturbed: {whole:.1f} s, of which {start:.1f} s until it trains; {given.steps} steps")
    moments = [Aim("moment", rng.uniform(0, min(LIFE * start, whole))) for _ in range(given.kills)]
    fifth = max(1, given.kills // 5)
    moments += [Aim("write", rng.uniform(0, WRITE)) for _ in range(fifth)]
    moments += [Aim("evaluation", rng.uniform(0, max(measured, default=0.0))) for _ in range(fifth)]
    rng.shuffle(moments)
    try:
        killed(file, trial, moments, given.ranks, rng, given.then_ranks)
    except Wrong as error:
        trial.differences.append(str(error))
    show(trial, console)
    if given.then_ranks is not None and not trial.differences:
        show_drift(trial, console)
    console.print(f"{time.monotonic() - begun:.0f} s in all; seed {given.seed}, ranks {given.ranks}")
    for what in trial.differences:
        console.print(what, style="red", markup=False)
    return 1 if trial.differences else 0


def show(trial: Trial, console: Console) -> None:
    table = Table("killed in", *("at random", "aimed at a write", "aimed at an evaluation", "steps repeated"), box=None)
    counts = Counter((d.phase, d.aim) for d in trial.deaths)
    for phase in PHASES:
        numbers = [counts[phase, kind] for kind in ("moment", "write", "evaluation")]
        table.add_row(phase, *map(str, numbers), str(sum(d.repeated for d in trial.deaths if d.phase == phase)))
    console.print(table)
    verdict = f"{len(trial.differences)} DIFFERENCES" if trial.differences else "no difference"
    console.print(f"{len(trial.deaths)} kills, {trial.lives} lives, {len(trial.runs)} runs: {verdict}", markup=False)


def show_drift(trial: Trial, console: Console) -> None:
    table = Table("step", "largest relative difference", "of", box=None)
    for step, largest, name in drift(trial.undisturbed, trial.runs[-1]):
        table.add_row(str(step), f"{largest:.1e}", name)
    console.print(table)


if __name__ == "__main__":
    main()
