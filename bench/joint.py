"""A whole training step: what `gear plan` says of it beside what it takes, and what the time goes to.

    python -m bench.joint                                     # GEAR-B at 128 px, 4 images (`make bench`: 2)
    python -m bench.joint --recipe gear-l --device cuda --resolution 256 --precision bfloat16 --compile --kernels 10

Weights, images, features and captions are random, so neither data nor checkpoints are needed, nor is a text encoder
run. On a GPU the batch is the largest power of two that fits, unless it is given. Memory: planned and measured bytes at
the peak of a step. Time: the operations that `gear plan` counts, over the seconds of a step; and the seconds they would
take at the rate that a large matrix product reaches on the same device, those in bfloat16 and those in float32 each at
their own, over the seconds that the step takes: the MFU that this machine's own libraries allow.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import torch

from bench.asked import add_device, count
from bench.ceilings import product
from bench.memory import held, resident_peak
from bench.table import Row
from gear import build
from gear.config import Config, ConfigError, Frozen, Target, Warmup, grid
from gear.config_check import check
from gear.counting import Flops
from gear.plan import plan
from gear.prompts import Prompts
from gear.recipes import RECIPES
from gear.step import Batch
from gear.text.sizes import size

TARGET, WIDTH = "efficientnet_lite0", 112  # whose features a step is given, ready made
CLASSES = 1000
STEPS, SLOW_START = 5, 2
FEW = 2  # images of the row of `make bench`, and steps: its memory is measured, not its time


@dataclass(frozen=True)
class Case:
    recipe: str
    resolution: int
    batch: int
    precision: Literal["float32", "bfloat16"]
    device: str
    compile: bool = False


@dataclass(frozen=True)
class Measured:
    """peak: bytes. seconds: of a step, median. spread: (max - min) / median. gemm, gemm32: operations a second of a
    large matrix product, in bfloat16 (0 where the step has none) and in float32. kernels: the longest, each with its
    share of the time on the device."""

    peak: float
    seconds: float
    spread: float
    gemm: float
    gemm32: float
    kernels: list[tuple[str, float]]


SMALL = Case("gear-b", 128, 4, "float32", "cpu")


def config_of(case: Case) -> Config:
    c = RECIPES[case.recipe]()
    return replace(
        c,
        tokenizer=replace(c.tokenizer, init=c.tokenizer.init if isinstance(c.stage, Frozen) else None),
        targets=() if isinstance(c.stage, Warmup) else (Target(TARGET),),
        data=replace(c.data, resolution=case.resolution),
        batch=case.batch,
        precision=case.precision,
        device=case.device,
        engine=replace(c.engine, compile=case.compile),
    )


def measure(case: Case, kernels: int = 0, steps: int = STEPS) -> Measured:
    """steps: timed, after `SLOW_START` that are not. In this process, which should be a fresh one: its resident set
    is what is measured on a CPU."""
    config, on = config_of(case), torch.device(case.device)
    before, synchronise = held(), torch.cuda.synchronize if on.type == "cuda" else lambda: None
    text, B, side = config.generator.text, case.batch, case.resolution
    c, null, classes = torch.randint(CLASSES, (B,), device=on), None, CLASSES
    if text is not None:
        width, classes = size(text.encoder).width, 0
        states = torch.randn(B, text.tokens, width, dtype=torch.float16, device=on)
        valid = torch.arange(text.tokens, device=on) >= torch.randint(text.tokens, (B, 1), device=on)
        c, null = Prompts(states * valid[..., None], valid), torch.zeros(1, width)
    training = build.training(config, classes, {TARGET: WIDTH}, on, null=null, loaded=False)
    x = torch.rand(B, 3, side, side, device=on) * 2 - 1
    batch = Batch(x, c, {TARGET: torch.randn(B, grid(config) ** 2, WIDTH, device=on)})

    def step() -> None:
        with torch.autocast(on.type, torch.bfloat16, enabled=case.precision == "bfloat16"):
            training.step(batch)
        synchronise()

    times = timed(step, SLOW_START + steps)[SLOW_START:]
    peak = torch.cuda.max_memory_allocated() if on.type == "cuda" else (resident_peak() - before) * 1024
    spread = (max(times) - min(times)) / statistics.median(times)
    low = product(on.type, torch.bfloat16) if case.precision == "bfloat16" else 0.0
    full = product(on.type, torch.float32)
    return Measured(peak, statistics.median(times), spread, low, full, longest(step, kernels) if kernels else [])


def timed(work: Callable[[], None], times: int) -> list[float]:
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return seconds


def longest(step: Callable[[], None], count: int) -> list[tuple[str, float]]:
    """The kernels (operators, on a CPU) that a step spends most of its time in, with their shares."""
    on_gpu = torch.cuda.is_available()
    activities = [torch.profiler.ProfilerActivity.CUDA if on_gpu else torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities) as profile:
        step()
    spent: dict[str, float] = {}
    for event in profile.key_averages():
        spent[event.key] = event.self_device_time_total if on_gpu else event.self_cpu_time_total
    total = sum(spent.values())
    return [(name, spent[name] / total) for name in sorted(spent, key=spent.__getitem__, reverse=True)[:count]]


def in_a_process_of_its_own(case: Case, kernels: int = 0, steps: int = STEPS) -> Measured:
    asked = ["--kernels", str(kernels), "--steps", str(steps)]
    command = [sys.executable, "-m", "bench.joint", "--one", json.dumps(asdict(case)), *asked]
    alone = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}  # else glibc keeps freed memory, up to 10 % by chance
    done = subprocess.run(command, capture_output=True, text=True, env=alone, check=False)
    if done.returncode:
        raise MemoryError(done.stderr) if "out of memory" in done.stderr else RuntimeError(done.stderr)
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def largest_batch(case: Case) -> Case:
    """Powers of two until the memory is full."""
    while True:
        try:
            in_a_process_of_its_own(replace(case, batch=2 * case.batch))
        except MemoryError:
            return case
        case = replace(case, batch=2 * case.batch)


def run() -> list[Row]:
    case = replace(SMALL, batch=FEW)
    planned, found = plan(config_of(case)), in_a_process_of_its_own(case, steps=FEW)
    name = f"plan, {case.recipe}"
    return [Row(name, "MiB", planned.peak / 2**20, found.peak / 2**20, 1.15, None, "planned beside measured")]


def report(case: Case, kernels: int, steps: int = STEPS) -> dict[str, Any]:
    planned, found = plan(config_of(case)), in_a_process_of_its_own(case, kernels, steps)
    flops = sum((count for part, count in planned.flops.items() if part not in ("targets", "text")), Flops(0, 0))
    at_best = flops.float32 / found.gemm32 + (flops.bfloat16 / found.gemm if flops.bfloat16 else 0.0)  # seconds
    return {
        **asdict(case),
        "torch": torch.__version__,
        "on": torch.cuda.get_device_name() if case.device == "cuda" else f"{torch.get_num_threads()} threads",
        "images_per_s": case.batch / found.seconds,
        "seconds": found.seconds,
        "spread": found.spread,
        "peak_GiB": found.peak / 2**30,
        "planned_peak_GiB": planned.peak / 2**30,
        "TFLOP": flops.total / 1e12,
        "TFLOP_float32": flops.float32 / 1e12,
        "TFLOP_per_s": flops.total / found.seconds / 1e12,
        "gemm_TFLOP_per_s": found.gemm / 1e12,
        "gemm32_TFLOP_per_s": found.gemm32 / 1e12,
        "mfu_of_gemm": at_best / found.seconds,
        "kernels": found.kernels,
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.joint", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--recipe", default=SMALL.recipe, choices=sorted(RECIPES), metavar="RECIPE")
    parser.add_argument("--resolution", type=count, default=SMALL.resolution)
    parser.add_argument("--batch", type=count, help="on a GPU by default the largest power of two that fits")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default=SMALL.precision)
    add_device(parser)
    parser.add_argument("--compile", action="store_true", help="torch.compile of the networks' blocks")
    parser.add_argument("--kernels", type=int, default=0, help="how many of the longest kernels to name")
    parser.add_argument("--steps", type=count, default=STEPS, help=f"that are timed, after {SLOW_START} that are not")
    parser.add_argument("--one", help=argparse.SUPPRESS)  # a case as JSON: measured here
    a = parser.parse_args()
    if a.one:
        print(json.dumps(asdict(measure(Case(**json.loads(a.one)), a.kernels, a.steps))))
        return
    case = Case(a.recipe, a.resolution, a.batch or SMALL.batch, a.precision, a.device, a.compile)
    try:
        check(config_of(case))
    except ConfigError as error:
        parser.error(str(error))
    if a.device == "cuda" and not a.batch:
        case = largest_batch(case)
    print(json.dumps(report(case, a.kernels, a.steps), indent=2))


if __name__ == "__main__":
    main()
