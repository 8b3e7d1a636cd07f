"""The joint training step against the plain one (`bench.plain_step`): Algorithm 1 with all of the paper's networks.

    python -m bench.step                                       # the rows of `make bench`
    python -m bench.step vq-16 --precision float32
    python -m bench.step small --resolution 128 --batch 8

Two sizes, both with critic, LPIPS, averages, and the paper's codebook of K = 16384:

    vq-16   VQ-16 and LlamaGen-B at 128 px, bfloat16. Nearly all of it is convolutions, which either side leaves to the
            same library at the speed of its matrix products: there is memory to be saved, and hardly any time. The
            floor itself is above the target of the seconds, which is therefore missed.
    small   The networks of `gear demo`: a light tokenizer of small images, which a laptop can train. What is done once
            a position and codeword, and between the convolutions, is then a good part of the step.

Ready-made features of a target; the same batch at every step; random weights, of LPIPS as well, which costs the same.

Each side is a process of its own, and not in one with the other: a resident set is a process's, the memory that one
side gave back would serve the other, and how a process is set up is a part of a side. A process builds its side alone,
ours by the run's seed, the plain one from a file of the same weights, and stays up: it is asked for one step at a time
over a pipe, and the sides take turns. Its seconds are those of a step with what a loop does with the losses: ours sums
them as `gear.train.log` does, the plain one asks for each.

Memory: the largest resident set in any of the steps, above what is resident once all is built, so above weights,
averages and batch, which are the same bytes on either side. Gradients and AdamW's moments are in it: they are the same
bytes too, but when they are there is a side's own choice. Where Linux does not let a process start its peak anew, the
peak while the side was built takes the place of what was resident after it.

Both sides must take the same first step, for which the generator's dropout is off, since each draws in its own way.

Floors: the operations that `gear plan` counts of ours, at the rates of `bench.ceilings`; of the memory, the moments and
the gradients of the larger of tokenizer and generator, all of which are there when their norm is taken.
"""

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bench import joint
from bench.ceilings import ceilings
from bench.joint import CLASSES, TARGET, WIDTH, Case
from bench.memory import held, resident_peak
from bench.plain_step import PlainStep, known, start
from bench.table import Row, alternating, machine, show
from gear import build
from gear.config import Config, ConfigError, grid
from gear.config_check import check
from gear.counting import Flops
from gear.noise import Dropout
from gear.plan import plan
from gear.recipes import RECIPES
from gear.step import Batch
from gear.train import log
from gear.train.loop import seed

K = 16384


@dataclass(frozen=True)
class Size:
    """target: the largest ratio wanted of the seconds. bound: by what these are. rounds: of which the median is."""

    case: Case
    target: float
    bound: str
    rounds: int


SIZES = {
    "vq-16": Size(Case("gear-b", 128, 4, "bfloat16", "cpu"), 1 / 1.5, "convolutions", rounds=2),
    "small": Size(Case("demo", 64, 32, "float32", "cpu"), 1 / 1.5, "arithmetic", rounds=5),
}
MEMORY = 0.5  # the largest ratio wanted
CHANGEABLE = ("recipe", "resolution", "batch", "precision")  # of a case


def config_of(case: Case) -> Config:
    """Raises ConfigError for what the plain step has not, and for sizes that no run can have."""
    config = joint.config_of(case)
    _, vq, _ = known(config)
    return check(replace(config, tokenizer=replace(config.tokenizer, quantizer=replace(vq, codebook_size=K))))


# ---------------------------------------------------------------------------------------------------- the two sides


@dataclass(frozen=True)
class Side:
    """step: its losses. generator: of which the dropout is off in the first step."""

    step: Callable[[], Mapping[str, Tensor | float]]
    generator: nn.Module


def built(config: Config) -> build.Training:
    """The same each time. The head is not zero, as it would be at first: that would hide what it is given."""
    training = build.training(config, CLASSES, {TARGET: WIDTH}, torch.device("cpu"), loaded=False)
    nn.init.normal_(training.groups[2].module.output.weight, std=0.02)
    return training


def ours(config: Config, batch: Batch, weights: Path) -> Side:
    """Built by the run's seed, which `weights` was as well."""
    training, lines = built(config), log.Log(weights.with_name("log.jsonl"), 0)

    def step() -> Mapping[str, Tensor]:
        with torch.autocast("cpu", torch.bfloat16, enabled=config.precision == "bfloat16"):
            taken = training.step(batch)
        lines.add(taken, len(batch.x))
        return taken.terms

    return Side(step, training.groups[2].module)


def plain(config: Config, batch: Batch, weights: Path) -> Side:
    step = PlainStep(config, CLASSES, {TARGET: WIDTH}, load_file(weights))
    assert isinstance(batch.c, torch.Tensor)
    x, c, f = batch.x, batch.c, batch.f
    return Side(lambda: step(x, c, f), step.generator)


SIDES: dict[str, Callable[[Config, Batch, Path], Side]] = {"ours": ours, "plain": plain}


@dataclass(frozen=True)
class Answer:
    """Of one step. MiB: the largest resident set of any step so far, above what was held before the first."""

    seconds: float
    MiB: float
    terms: dict[str, float]


def steps(side: str, case: Case, weights: Path) -> Iterator[Answer]:
    """One after the other, without end. The side is built when the first is asked for."""
    config = config_of(case)
    torch.manual_seed(1)
    x = torch.rand(case.batch, 3, case.resolution, case.resolution) * 2 - 1
    f = {TARGET: torch.randn(case.batch, grid(config) ** 2, WIDTH)}
    made = SIDES[side](config, Batch(x, torch.randint(CLASSES, (case.batch,)), f), weights)
    dropouts = [m for m in made.generator.modules() if isinstance(m, (nn.Dropout, Dropout))]
    p, before = [m.p for m in dropouts], held()
    for m in dropouts:
        m.p = 0.0
    number = 0
    while True:
        seed(config.seed, number)
        begun = time.perf_counter()
        terms = made.step()
        seconds = time.perf_counter() - begun
        yield Answer(seconds, (resident_peak() - before) / 2**10, {name: float(term) for name, term in terms.items()})
        for m, share in zip(dropouts, p, strict=True):
            m.p = share
        number += 1


# ------------------------------------------------------------------------------------------ a process for each side


def serve(side: str, case: Case, weights: Path) -> None:
    """In a process of its own: a step for each line that comes, an `Answer` as a line of JSON for each step."""
    taken = steps(side, case, weights)
    for _ in sys.stdin:
        print(json.dumps(asdict(next(taken))), flush=True)


@contextmanager
def served(side: str, case: Case, weights: Path) -> Iterator[Callable[[], Answer]]:
    """A process for one side; calling what this gives makes it take a step."""
    command = [sys.executable, "-m", "bench.step", "--serve", side, json.dumps(asdict(case)), str(weights)]
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


# ------------------------------------------------------------------------------------------------------ the two rows


def measure(name: str, size: Size) -> list[Row]:
    config, planned, last = config_of(size.case), plan(config_of(size.case)), dict[str, Answer]()
    with ExitStack() as stack:
        weights = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "weights.safetensors"
        save_file(start(built(config)), weights)
        sides = {side: stack.enter_context(served(side, size.case, weights)) for side in SIDES}

        def seconds(side: str) -> float:
            last[side] = sides[side]()
            return last[side].seconds

        for side in SIDES:  # slow, as all that is done for the first time
            seconds(side)
        same(last["ours"].terms, last["plain"].terms, config)  # a fast wrong answer is worth nothing
        t, spread = alternating({side: lambda side=side: seconds(side) for side in SIDES}, size.rounds)
    flops = sum((count for part, count in planned.flops.items() if part not in ("targets", "text")), Flops(0, 0))
    fastest = ceilings("cpu").floor(float32=flops.float32, bfloat16=flops.bfloat16)
    p = planned.parameters
    least = planned.held.optimizer + 4 * max(p["tokenizer"], p["generator"] + p["projectors"])  # bytes
    path, m = f"joint step, {name}", {side: last[side].MiB for side in SIDES}
    return [
        Row(path, "s", t["ours"], t["plain"], size.target, spread, size.bound, fastest),
        Row(path, "MiB", m["ours"], m["plain"], MEMORY, None, "activations", least / 2**20),
    ]


ROUNDING = {"float32": 1e-5, "bfloat16": 3e-2}  # of some hundred operations, each to 2^-24 or 2^-9


def same(ours: Mapping[str, float], plain: Mapping[str, float], config: Config) -> None:
    """Raises AssertionError if a loss or the norm of a gradient differs by more than rounding makes of it.

    In bfloat16 that is as much as the cosines of random features are large, so that a wrong alignment could pass: what
    shows that the steps are one is the test of both in float64 (`tests/test_plain_step.py`).

    Beside `ROUNDING`, of the N positions two may have another codeword, as near as the first: 2 / N of a mean over
    them. That is relative; of losses with either sign it is of what they are made of: verdicts of order 1, cosines of
    order 1 / sqrt(C) with the C channels of a target. The entropy is that of A over its temperature, whose rounding it
    has so many times, but of N positions in the mean. A norm has the roundings of the backward pass as well.
    """
    loss, N = config.tokenizer.loss, config.batch * grid(config) ** 2
    rounding = ROUNDING[config.precision]
    close = rounding + 2 / N
    signed = {
        "adversarial": close,
        "L_VQ": close,
        "entropy": rounding / (loss.entropy_temperature * math.sqrt(N)),
        "align_hard": close / math.sqrt(WIDTH),
        "align_soft": close / math.sqrt(WIDTH),
    }
    for name in plain:
        relative = 2 * close if name.startswith("grad_") else close
        if not math.isclose(ours[name], plain[name], rel_tol=relative, abs_tol=signed.get(name, 0.0)):
            raise AssertionError(f"the sides do not take the same step: {name} is {ours[name]} and {plain[name]}")


def run() -> list[Row]:
    return [row for name, size in SIZES.items() for row in measure(name, size)]


def main() -> None:
    about = "vq-16: VQ-16 and LlamaGen-B at 128 px in bfloat16; small: the networks of gear demo at 64 px in float32"
    parser = argparse.ArgumentParser(prog="python -m bench.step", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("size", nargs="?", choices=list(SIZES), help=f"{about}; both, as they are, unless given")
    parser.add_argument(
        "--recipe", choices=sorted(RECIPES), metavar="RECIPE", help="GEAR with VQ, as gear-l; in place of the size's"
    )
    parser.add_argument("--resolution", type=int, metavar="PIXELS", help="of the images' sides")
    parser.add_argument("--batch", type=int, metavar="IMAGES", help="of a step")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), help="of the networks")
    parser.add_argument("--serve", nargs=3, help=argparse.SUPPRESS)  # a side, a case as JSON, a file of weights
    a = parser.parse_args()
    if a.serve:
        serve(a.serve[0], Case(**json.loads(a.serve[1])), Path(a.serve[2]))
        return
    changed = {name: value for name in CHANGEABLE if (value := getattr(a, name)) is not None}
    if changed and a.size is None:
        parser.error(f"say which size to change: {' or '.join(SIZES)}.")
    chosen = {n: replace(s, case=replace(s.case, **changed)) for n, s in SIZES.items() if a.size in (None, n)}
    try:
        for size in chosen.values():
            config_of(size.case)
    except ConfigError as error:
        parser.error(str(error))
    show([row for name, size in chosen.items() for row in measure(name, size)], machine("cpu"))


if __name__ == "__main__":
    main()
