"""How time and memory grow with the size of the problem, beside the law that each should follow.

    python -m bench.growth                      # the table; within eight minutes on two cores
    python -m bench.growth --out growth.png     # and a figure of it; the points are kept in growth.json
    python -m bench.growth --json               # one JSON line for each point as it comes, then one for each cost

Stopped, it shows what it has. The same `--out` again goes on from the points that are kept, and shows them with the new
ones, those that `--only` leaves out too; points of older code are kept as well, so remove the file after a change.

The exponent of a cost is the slope of its logarithm on that of the size, by least squares over the sizes named; that
of the law is the slope of the law at the same sizes. Where the measured one is below the law's, something that does not
grow is paid as well; where it is above, the machine gets slower, as when a cache no longer holds what it did. "By the
law" is what the largest size would cost if the law held from the smallest on.

Time: the median of up to `RUNS` after a first one, no more of them than fit `SLOW` seconds; the first one alone where
none does. Memory: the growth of the resident set of a fresh process at each size, above inputs, weights and gradients
(with the generator's sizes: above nothing). World size: the recipe `demo`, its one batch shared by processes of one
thread each, so time should fall as 1 / W up to as many processes as there are cores; of its memory only what a batch
takes does, for each process holds all weights, gradients, moments and averages.
"""

import argparse
import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from unittest.mock import patch

import torch
from rich.console import Console
from rich.progress import Progress

from bench import costs, engine
from bench.costs import TABLES, Cost, Law
from bench.grown import Grown, Kept, KeptError, Point, draw, grown, show
from bench.memory import held, resident_peak
from bench.table import machine
from gear import ranks
from gear.progress import bars
from gear.train import distributed

RUNS, SLOW = 3, 5.0
WORLDS = (1, 2)
RETURNED = {"MALLOC_MMAP_THRESHOLD_": "65536"}  # else glibc keeps freed memory, up to 10 % by chance


@dataclass(frozen=True)
class Line:
    """A cost in one unit. measure: from the index of a size."""

    cost: Cost
    unit: str
    law: Law
    measure: Callable[[int], float]


def lines(name: str) -> list[Line]:
    """Of the table `name`."""
    found = list[Line]()
    for at, cost in enumerate(TABLES[name]()):
        if cost.time is not None:
            found.append(Line(cost, "s", cost.time, partial(seconds, cost)))
        if cost.memory is not None:
            found.append(Line(cost, "MiB", cost.memory, partial(memory, name, at)))
    return found


def seconds(cost: Cost, index: int) -> float:
    work = cost.make(index)

    def once() -> float:
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    first = once()
    return median([once() for _ in range(min(RUNS, int(SLOW / first)))] or [first])


def memory(name: str, at: int, index: int) -> float:
    """MiB of a cost of the table `name`, in a process of its own: a fork of one that has all modules and has run
    nothing."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["bench.engine", "bench.grown"])
    with patch.dict(os.environ, RETURNED), ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(costs.memory, name, at, index).result()


# ---------------------------------------------------------------------------------------------------- world size


def worlds() -> list[Line]:
    """Of as many processes as there are cores; nothing on one core."""
    sizes, batch = [size for size in WORLDS if size <= (os.cpu_count() or 1)], engine.CONFIG.batch
    if len(sizes) < 2:
        return []
    cost = Cost("GEAR step, demo, world size", "W", f"batch {batch}, one thread each", sizes, lambda index: list)
    time, memory = costs.of_world(costs.state("demo", engine.CONFIG.data.resolution))
    return [
        Line(cost, "s", time, lambda index: world(sizes[index])["seconds"]),
        Line(cost, "MiB", memory, lambda index: world(sizes[index])["MiB"]),
    ]


@cache
def world(size: int) -> dict[str, float]:
    """seconds and MiB of a step in the first of `size` processes."""
    many = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(size)] if size > 1 else []
    command = [sys.executable, *many, "-m", "bench.growth", "--rank"]
    env = os.environ | RETURNED | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def rank() -> None:
    """One of the processes: the first one prints the seconds of a step, and the MiB that training holds at its peak."""
    with distributed.joined(torch.device("cpu")):
        size, batch = engine.CONFIG.data.resolution, engine.CONFIG.batch // ranks.size()
        _alone(costs.joint_step("demo", size, 2))  # the libraries' own first allocations are nobody's
        gc.collect()
        before = held()
        step = costs.joint_step("demo", size, batch)
        gc.collect()
        held()  # to build it takes more than a step of a small share does
        step()
        peak, times = (resident_peak() - before) / 2**10, list[float]()
        for _ in range(RUNS):  # as many on every rank
            start = time.perf_counter()
            step()
            times.append(time.perf_counter() - start)
        _alone(step)
        if ranks.rank() == 0:
            print(json.dumps({"seconds": median(times), "MiB": peak}))


def _alone(step: costs.JointStep) -> None:
    for group in step.training.groups:
        group.alone()


# ---------------------------------------------------------------------------------------------------- all of them


def measure(wanted: list[Line], kept: Kept, progress: Progress, as_json: bool) -> None:
    """Adds to `kept` what it lacks of the lines, and tells each point."""
    missing = [
        (line, index)
        for line in wanted
        for index, at in enumerate(line.cost.sizes)
        if float(at) not in kept.costs(line.cost, line.unit)
    ]
    bar = progress.add_task("growth", total=len(missing), note="")
    for line, index in missing:
        cost, at = line.cost, float(line.cost.sizes[index])
        progress.update(bar, note=f"{cost.path} at {cost.size} = {at:.4g}")
        point = Point(cost.path, cost.size, cost.rest, line.unit, at, line.measure(index))
        kept.add(point)
        progress.advance(bar)
        if as_json:
            print(json.dumps(asdict(point)), flush=True)
        else:
            progress.console.print(f"{cost.path}, {cost.size} = {at:.4g} ({cost.rest}): {point.cost:.3g} {line.unit}")


@contextmanager
def shown(every: list[Line], kept: Kept, as_json: bool, out: Path | None) -> Iterator[None]:
    """At the end of the block, or where it stops: the table of all points, and the figure."""
    try:
        yield
    finally:
        found = list[Grown]()
        for line in every:
            if by_size := kept.costs(line.cost, line.unit):
                found.append(grown(line.cost, line.unit, line.law, by_size))
        if as_json:
            print("\n".join(json.dumps(asdict(g)) for g in found))
        else:
            show(found, kept.on)
        if out is not None:
            draw(found, out)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.growth", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small sizes, no processes in parallel; for a test")
    parser.add_argument("--only", default="", metavar="TEXT", help="only costs with this in their names, as read-outs")
    parser.add_argument("--json", action="store_true", help="one JSON line for each point, then one for each cost")
    parser.add_argument("--out", type=Path, metavar="FILE", help="a figure, FILE.png; what is measured is in FILE.json")
    parser.add_argument("--rank", action="store_true", help=argparse.SUPPRESS)  # one of several processes
    a = parser.parse_args()
    if a.rank:
        rank()
        return
    if a.out is not None and (a.out.suffix != ".png" or not a.out.parent.is_dir()):
        parser.error(f"--out needs a name that ends in .png, in a folder that is there; {a.out} is none.")
    try:
        kept = Kept(None if a.out is None else a.out.with_suffix(".json"), machine("cpu"))
    except KeptError as error:
        parser.error(str(error))
    every = lines("quick") if a.quick else [*lines("usual"), *worlds()]
    wanted = [line for line in every if a.only in line.cost.path]
    with shown(every, kept, a.json, a.out), bars(Console(stderr=True)) as progress:
        measure(wanted, kept, progress, a.json)


if __name__ == "__main__":
    main()
