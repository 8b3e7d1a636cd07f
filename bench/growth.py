"""How time and memory grow with the size of the problem, beside the law that each should follow.

    python -m bench.growth                      # the table; about seven minutes on two cores
    python -m bench.growth --out growth.png     # and a figure of it
    python -m bench.growth --json               # one JSON line for each cost

The exponent of a cost is the slope of its logarithm on that of the size, by least squares over the sizes named; that
of the law is the slope of the law at the same sizes. Where the measured one is below the law's, something that does not
grow is paid as well; where it is above, the machine gets slower, as when a cache no longer holds what it did.

Time: the median of `RUNS` after a first one, or one alone where the first took longer than `SLOW`. Memory: the growth
of the resident set of a fresh process at each size, above inputs, weights and gradients (with the generator's sizes:
above nothing). World size: the recipe `demo`, its one batch shared by processes of one thread each (`bench.engine`), so
time should fall as 1 / W up to as many processes as there are cores, and each holds all weights.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, median

import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from bench import engine
from bench.costs import TABLES, Cost, Law, Work
from bench.readout import resident_peak
from bench.table import machine
from gear import ranks
from gear.figures.paper.style import TEXT, line, look, panels, plot, title
from gear.progress import bars
from gear.train import distributed

RUNS, SLOW = 3, 2.0
WORLDS, WORLD = (1, 2, 4), "GEAR step, demo, world size"


@dataclass(frozen=True)
class Grown:
    """One line of the table. unit: "s" or "MiB". points: (size, cost). exponent, expected: measured, and the law's."""

    path: str
    size: str
    rest: str
    unit: str
    points: tuple[tuple[float, float], ...]
    law: str
    expected: float
    exponent: float


def exponent(points: Sequence[tuple[float, float]]) -> float:
    """The slope of log cost on log size, by least squares. Raises ValueError for sizes or costs that are not positive,
    and for fewer than two different sizes."""
    if any(size <= 0 or cost <= 0 for size, cost in points) or len({size for size, _ in points}) < 2:
        raise ValueError(f"an exponent needs two sizes or more, and positive costs; there are {list(points)}.")
    x, y = ([math.log(point[axis]) for point in points] for axis in (0, 1))
    x_mean, y_mean = fmean(x), fmean(y)
    spread = sum((a - x_mean) ** 2 for a in x)
    return sum((a - x_mean) * (b - y_mean) for a, b in zip(x, y, strict=True)) / spread


def grown(cost: Cost, unit: str, law: Law, costs: Sequence[float]) -> Grown:
    expected = exponent([(size, law.of(size)) for size in cost.sizes])
    points = tuple(zip(map(float, cost.sizes), costs, strict=True))
    return Grown(cost.path, cost.size, cost.rest, unit, points, law.text, expected, exponent(points))


def seconds(work: Work) -> float:
    def once() -> float:
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    return once() if once() > SLOW else median(once() for _ in range(RUNS))


def memory(name: str, at: int, index: int) -> float:
    """MiB of a cost of the table `name`, in a process of its own."""
    command = [sys.executable, "-m", "bench.growth", "--memory", name, str(at), str(index)]
    alone = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}  # else glibc keeps freed memory, up to 10 % by chance
    done = subprocess.run(command, capture_output=True, text=True, env=alone, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return float(done.stdout.splitlines()[-1])


def measure_memory(work: Work) -> float:
    before = _held()
    work()
    return (resident_peak() - before) / 2**10


def _held() -> int:
    """KiB of this process now; its peak starts there anew, where Linux lets it."""
    Path("/proc/self/clear_refs").write_text("5")
    return resident_peak()


def measured(name: str, only: str, progress: Progress) -> list[Grown]:
    """Every cost of the table `name` whose path has `only` in it."""
    costs, found = {at: cost for at, cost in enumerate(TABLES[name]()) if only in cost.path}, list[Grown]()
    total = sum(len(cost.sizes) * ((cost.time is not None) + (cost.memory is not None)) for cost in costs.values())
    bar = progress.add_task("growth", total=total, note="")
    for at, cost in costs.items():
        indices = range(len(cost.sizes))
        progress.update(bar, note=f"{cost.path} against {cost.size}")
        if cost.time is not None:
            times = []
            for index in indices:
                times.append(seconds(cost.make(index)))
                progress.advance(bar)
            found.append(grown(cost, "s", cost.time, times))
        if cost.memory is not None:
            sizes = []
            for index in indices:
                sizes.append(memory(name, at, index))
                progress.advance(bar)
            found.append(grown(cost, "MiB", cost.memory, sizes))
    return found


# ---------------------------------------------------------------------------------------------------- world size


def worlds(progress: Progress) -> list[Grown]:
    """Of as many processes as there are cores; nothing on one core."""
    sizes = [size for size in WORLDS if size <= (os.cpu_count() or 1)]
    if len(sizes) < 2:
        return []
    bar = progress.add_task("world size", total=len(sizes), note="")
    said = []
    for size in sizes:
        many = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(size)] if size > 1 else []
        command = [sys.executable, *many, "-m", "bench.growth", "--rank"]
        env = os.environ | {"OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}
        done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr)
        said.append(json.loads(done.stdout.splitlines()[-1]))
        progress.advance(bar)
    cost = Cost(WORLD, "W", f"batch {engine.CONFIG.batch}, one thread each", sizes, lambda index: list)
    return [
        grown(cost, "s", Law("1 / W", lambda W: 1 / W), [one["seconds"] for one in said]),
        grown(cost, "MiB", Law("batch / W", lambda W: 1 / W), [one["MiB"] for one in said]),
    ]


def rank() -> None:
    """One of the processes: the first one prints the seconds of a step, and the MiB that training adds."""
    with distributed.joined(torch.device("cpu")):
        case = engine.case(engine.CONFIG, "cpu", 1)
        training, before = case.training(), _held()
        case.block(training)
        peak = (resident_peak() - before) / 2**10
        times = [case.seconds(lambda: case.block(training)) / engine.BLOCK for _ in range(RUNS)]
        for group in training.groups:
            group.alone()
        if ranks.rank() == 0:
            print(json.dumps({"seconds": median(times), "MiB": peak}))


# ---------------------------------------------------------------------------------------------------- what is shown


def show(found: Sequence[Grown], on: str) -> None:
    table = Table(title=on, title_justify="left", box=None, pad_edge=False, header_style="dim")
    for column in ("cost", "against", "range", "from", "to", "unit", "law", "its exponent", "measured"):
        numbers = column in ("from", "to", "its exponent", "measured")
        table.add_column(column, no_wrap=column != "cost", justify="right" if numbers else "left")
    for g in found:
        (low, first), (high, last) = g.points[0], g.points[-1]
        about, exponents = f"{g.path} ({g.rest})", (f"{g.expected:.2f}", f"{g.exponent:.2f}")
        costs = (f"{first:.3g}", f"{last:.3g}", g.unit)
        table.add_row(about, g.size, f"{low:.4g} to {high:.4g}", *costs, g.law, *exponents)
    Console(width=max(120, Console().width)).print(table)


def draw(found: Sequence[Grown], file: Path) -> None:
    """Each cost over its size, both logarithmic, and its law through the last point, as a PNG."""
    columns = 2
    rows = -(-len(found) // columns)
    with look():
        figure, axes = panels(rows, columns, TEXT, 2.0 * rows)
        for ax, g in zip(axes, found, strict=False):
            sizes, (largest, last) = [size for size, _ in g.points], g.points[-1]
            law = [(size, last * (size / largest) ** g.expected) for size in sizes]
            plot(ax, law, "law", line(3), linestyle=(0, (1, 1.2)))
            plot(ax, g.points, "measured", line(0), marker="o")
            ax.set(xscale="log", yscale="log", xlabel=g.size, ylabel=g.unit, xticks=sizes)
            ax.set_xticks([], minor=True)
            ax.set_xticklabels([f"{size:.4g}" for size in sizes])
            title(ax, "", f"{g.path}: exponent {g.exponent:.2f}, law {g.expected:.2f}")
        for ax in axes[len(found) :]:
            ax.set_axis_off()
        figure.savefig(file, format="png", dpi=200)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.growth", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small sizes, no processes in parallel; for a test")
    parser.add_argument("--only", default="", metavar="TEXT", help="only costs with this in their names, as read-outs")
    parser.add_argument("--json", action="store_true", help="one JSON line for each cost")
    parser.add_argument("--out", type=Path, metavar="FILE", help="a figure, as PNG")
    parser.add_argument("--memory", nargs=3, help=argparse.SUPPRESS)  # a table, a cost and a size: measured here
    parser.add_argument("--rank", action="store_true", help=argparse.SUPPRESS)  # one of several processes
    a = parser.parse_args()
    if a.memory:
        name, at, index = a.memory
        print(measure_memory(TABLES[name]()[int(at)].make(int(index))))
        return
    if a.rank:
        rank()
        return
    if a.out is not None and not a.out.parent.is_dir():
        parser.error(f"--out needs a folder that is there; {a.out.parent} is none.")
    with bars(Console(stderr=True)) as progress:
        found = measured("quick" if a.quick else "usual", a.only, progress)
        found += worlds(progress) if a.only in WORLD and not a.quick else []
    if a.json:
        print("\n".join(json.dumps(asdict(g)) for g in found))
    else:
        show(found, machine("cpu"))
    if a.out is not None:
        draw(found, a.out)


if __name__ == "__main__":
    main()
