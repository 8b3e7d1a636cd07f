"""The joint training step against the plain one (`bench.plain_step`): Algorithm 1 with all of the paper's networks.

    python -m bench.step                                                       # the rows of `make bench`
    python -m bench.step --recipe gear-b --resolution 128 --batch 4 --precision float32

VQ-16, LlamaGen-B, K = 16384, critic, LPIPS over VGG, averages; ready-made features of a target; the same batch at every
step. Weights are random, so LPIPS is as well, which costs the same; the plain side starts with ours.

Each side is a process of its own that stays up, and is asked for one step at a time over a pipe; the sides take turns.
How a process is set up is so a part of a side, and the memory is what the operating system says: the largest resident
set above that of a process that has only imported everything. A first step that disagrees is an error.

Floors: the operations that `gear plan` counts of ours, at the rates of `bench.ceilings`; of the memory, what is held
from step to step: weights, averages, moments.
"""

import argparse
import json
import math
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from typing import IO

import torch

from bench.ceilings import ceilings
from bench.joint import CLASSES, TARGET, WIDTH, Case, config_of
from bench.plain_step import PlainStep
from bench.readout import resident_peak
from bench.table import Row, alternating, show
from gear import build
from gear.config import Config, grid
from gear.counting import Flops
from gear.plan import plan
from gear.recipes import RECIPES
from gear.step import Batch

CASE, ROUNDS, SLOW_START = Case("gear-b", 128, 4, "bfloat16", "cpu"), 3, 1
PRECISE = (
    "perceptual",
    "reconstruction",
    "commitment",
    "critic",
    "ntp",
    "align_soft",
)  # at first, whatever dropout does
CLOSE = {"float32": 1e-3, "bfloat16": 3e-2}  # a few arg maxes differ by rounding


@dataclass(frozen=True)
class Answer:
    """Of one step. MiB: the largest resident set so far, above that before anything was made."""

    seconds: float
    MiB: float
    terms: dict[str, float]


def ours(config: Config, batch: Batch) -> Callable[[], Mapping[str, float]]:
    training = build.training(config, CLASSES, {TARGET: WIDTH}, torch.device("cpu"), loaded=False)

    def step() -> Mapping[str, float]:
        with torch.autocast("cpu", torch.bfloat16, enabled=config.precision == "bfloat16"):
            return {name: term.item() for name, term in training.step(batch).terms.items()}

    return step


def plain(config: Config, batch: Batch) -> Callable[[], Mapping[str, float]]:
    training = build.training(config, CLASSES, {TARGET: WIDTH}, torch.device("cpu"), loaded=False)
    step = PlainStep(config, CLASSES, {TARGET: WIDTH}, training)
    assert isinstance(batch.c, torch.Tensor)
    x, c, f = batch.x, batch.c, batch.f
    return lambda: step(x, c, f)


SIDES: dict[str, Callable[[Config, Batch], Callable[[], Mapping[str, float]]]] = {"ours": ours, "plain": plain}


def serve(side: str, case: Case) -> None:
    """In a process of its own: a step for each line that comes, an `Answer` as a line of JSON for each step."""
    before, config = resident_peak(), config_of(case)
    torch.manual_seed(1)
    x = torch.rand(case.batch, 3, case.resolution, case.resolution) * 2 - 1
    f = {TARGET: torch.randn(case.batch, grid(config) ** 2, WIDTH)}
    step = SIDES[side](config, Batch(x, torch.randint(CLASSES, (case.batch,)), f))
    for _ in sys.stdin:
        start = time.perf_counter()
        terms = dict(step())
        answer = Answer(time.perf_counter() - start, (resident_peak() - before) / 2**10, terms)
        print(json.dumps(asdict(answer)), flush=True)


@contextmanager
def served(side: str, case: Case) -> Iterator[Callable[[], Answer]]:
    """A process for one side; calling what this gives makes it take a step."""
    command = [sys.executable, "-m", "bench.step", "--serve", side, json.dumps(asdict(case))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        asked, told = process.stdin, process.stdout
        try:
            yield lambda: ask(side, asked, told)
        finally:
            process.kill()  # it holds nothing that is wanted


def ask(side: str, asked: IO[str], told: IO[str]) -> Answer:
    with suppress(BrokenPipeError):  # the next line is none then
        asked.write("\n")
        asked.flush()
    if not (line := told.readline()):
        raise RuntimeError(f"The process of the side {side!r} ended instead of taking a step; above is what it said.")
    return Answer(**json.loads(line))


def measure(case: Case, rounds: int) -> list[Row]:
    config, planned = config_of(case), plan(config_of(case))
    last: dict[str, Answer] = {}
    with ExitStack() as stack:
        processes = {side: stack.enter_context(served(side, case)) for side in SIDES}

        def seconds(side: str) -> float:
            last[side] = processes[side]()
            return last[side].seconds

        for turn in range(SLOW_START):
            for side in SIDES:
                seconds(side)
            if turn == 0:  # a fast wrong answer is worth nothing
                same(last["ours"].terms, last["plain"].terms, CLOSE[case.precision])
        t, spread = alternating({side: lambda side=side: seconds(side) for side in SIDES}, rounds)
    flops = sum((count for part, count in planned.flops.items() if part not in ("targets", "text")), Flops(0, 0))
    fastest = ceilings("cpu").floor(float32=flops.float32, bfloat16=flops.bfloat16)
    m = {side: last[side].MiB for side in SIDES}
    path = f"joint step, {config.precision}"
    return [
        Row(path, "s", t["ours"], t["plain"], 0.67, spread, "arithmetic", fastest),
        Row(path, "MiB", m["ours"], m["plain"], 0.5, 0.0, "activations", planned.held.total / 2**20),
    ]


def same(ours: Mapping[str, float], plain: Mapping[str, float], close: float) -> None:
    for name in PRECISE:
        if not math.isclose(ours[name], plain[name], rel_tol=close, abs_tol=close):
            raise AssertionError(f"the sides do not take the same step: {name} is {ours[name]} and {plain[name]}")


def run() -> list[Row]:
    return measure(CASE, ROUNDS)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.step", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--recipe", default=CASE.recipe, choices=sorted(RECIPES), metavar="RECIPE")
    parser.add_argument("--resolution", type=int, default=CASE.resolution)
    parser.add_argument("--batch", type=int, default=CASE.batch)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default=CASE.precision)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)  # a side, and a case as JSON
    a = parser.parse_args()
    if a.serve:
        serve(a.serve[0], Case(**json.loads(a.serve[1])))
        return
    case = replace(CASE, recipe=a.recipe, resolution=a.resolution, batch=a.batch, precision=a.precision)
    show(measure(case, a.rounds), f"{torch.get_num_threads()} threads, torch {torch.__version__}")


if __name__ == "__main__":
    main()
