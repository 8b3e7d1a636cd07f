"""What every benchmark returns, and how it is shown."""

import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

WIDE = 100  # columns of a terminal


@dataclass(frozen=True)
class Row:
    """One comparison. ours, plain: in `unit`, lower is better; target: the largest ratio wanted; spread: (max - min) /
    median of the rounds, None where it was measured once; bound: what the floor is made of; floor: what the arithmetic
    or the bytes that cannot be saved take at the speed of `bench.ceilings`, in `unit`; None where nobody counted."""

    path: str
    unit: str
    ours: float
    plain: float
    target: float
    spread: float | None
    bound: str
    floor: float | None = None

    @property
    def ratio(self) -> float:
        return self.ours / self.plain

    @property
    def met(self) -> bool:
        return self.ratio <= self.target


def alternating(sides: Mapping[str, Callable[[], float]], rounds: int) -> tuple[dict[str, float], float]:
    """The median of what each side returns, the sides taking turns, and the larger of their spreads."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, measure in sides.items():
            found[name].append(measure())
    medians = {name: statistics.median(values) for name, values in found.items()}
    return medians, max((max(values) - min(values)) / medians[name] for name, values in found.items())


def show(rows: Sequence[Row], title: str) -> None:
    """In a narrow terminal without the spread. `!` stands beside the ratio that misses its target."""
    console = Console()
    wide = console.width >= WIDE
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="dim")
    table.add_column("path", max_width=None if wide else 23)
    table.add_column("unit", no_wrap=True)
    for column in ("ours", "plain", "ratio", "target", "floor", *["spread"] * wide):
        table.add_column(column, no_wrap=True, justify="right")
    table.add_column("bound by")
    for r in rows:
        floor = "" if r.floor is None else _short(r.floor)
        ratio = f"{r.ratio:.2g}" if r.ratio < 0.01 else f"{r.ratio:.2f}"
        numbers = (
            _short(r.ours),
            _short(r.plain),
            ratio + ("  " if r.met else " !"),
            f"<= {round(r.target, 2)}",
            floor,
        )
        spread = "" if r.spread is None else f"{r.spread:.0%}"
        table.add_row(r.path, r.unit, *numbers, *[spread] * wide, r.bound)
    console.print(table)
    missed = sum(not r.met for r in rows)
    console.print(
        f"{len(rows) - missed} of {len(rows)} targets met" + f"; ! misses its target: {missed}" * (missed > 0)
    )


def machine(device: str) -> str:
    """What the numbers are of."""
    on = f"{processor()}, {torch.get_num_threads()} threads"
    if device == "cuda":
        on = f"{torch.cuda.get_device_name()}; {on}"
    return f"{on}, torch {torch.__version__}"


def processor() -> str:
    """The CPU's name, as the kernel has it where there is /proc."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
