"""What `bench.growth` has measured: its points, kept in a file while they come, their table and their figure."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean

from rich.console import Console
from rich.table import Table

from bench.costs import Cost, Law
from gear.figures.paper.style import TEXT, line, look, panels, plot, title
from gear.store.whole import replacing


class KeptError(ValueError):
    """A file of points that these cannot be added to: which, why, what to do."""


@dataclass(frozen=True)
class Point:
    """unit: "s" or "MiB", of `cost`. at: the size."""

    path: str
    size: str
    rest: str
    unit: str
    at: float
    cost: float

    @property
    def of(self) -> tuple[str, str, str, str]:
        """What it is a point of."""
        return self.path, self.size, self.rest, self.unit


@dataclass
class Kept:
    """The points so far, also in `file`, if any, which is whole after each. on: the machine, one for all points of a
    file. Raises `KeptError` for a file of another machine or of something else."""

    file: Path | None
    on: str
    points: list[Point] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.file is None or not self.file.exists():
            return
        try:
            said = json.loads(self.file.read_text())
            there, self.points = said["on"], [Point(**one) for one in said["points"]]
        except (ValueError, KeyError, TypeError):
            raise KeptError(
                f"{self.file} should have the points of an earlier bench.growth, and has something else: remove it or "
                "give --out another name."
            ) from None
        if there != self.on:
            raise KeptError(
                f"{self.file} has points of {there}, and this is {self.on}: remove it or give --out another name."
            )

    def add(self, point: Point) -> None:
        """Raises `WriteError`."""
        self.points.append(point)
        if self.file is not None:
            with replacing(self.file) as partial:
                partial.write_text(
                    json.dumps({"on": self.on, "points": [asdict(one) for one in self.points]}, indent=1)
                )

    def costs(self, cost: Cost, unit: str) -> dict[float, float]:
        """Those of `cost` by size, the sizes increasing."""
        wanted = cost.path, cost.size, cost.rest, unit
        found = {one.at: one.cost for one in self.points if one.of == wanted}
        return {at: found[at] for at in map(float, cost.sizes) if at in found}


@dataclass(frozen=True)
class Grown:
    """One line of the table. points: (size, cost). lawful: the same by the law, through the first. exponent, expected:
    of these; None where there is one point."""

    path: str
    size: str
    rest: str
    unit: str
    points: tuple[tuple[float, float], ...]
    law: str
    lawful: tuple[tuple[float, float], ...]
    expected: float | None
    exponent: float | None


def exponent(points: Sequence[tuple[float, float]]) -> float:
    """The slope of log cost on log size, by least squares. Raises ValueError for sizes or costs that are not positive,
    and for fewer than two different sizes."""
    if any(size <= 0 or cost <= 0 for size, cost in points) or len({size for size, _ in points}) < 2:
        raise ValueError(f"an exponent needs two sizes or more, and positive costs; there are {list(points)}.")
    x, y = ([math.log(point[axis]) for point in points] for axis in (0, 1))
    x_mean, y_mean = fmean(x), fmean(y)
    spread = sum((a - x_mean) ** 2 for a in x)
    return sum((a - x_mean) * (b - y_mean) for a, b in zip(x, y, strict=True)) / spread


def grown(cost: Cost, unit: str, law: Law, costs: dict[float, float]) -> Grown:
    """costs: by size, one or more."""
    points = tuple(costs.items())
    lawful = tuple(law.along(tuple(costs), points[0]))
    slopes = (exponent(lawful), exponent(points)) if len(points) > 1 else (None, None)
    return Grown(cost.path, cost.size, cost.rest, unit, points, law.text, lawful, *slopes)


def show(found: Sequence[Grown], on: str) -> None:
    table = Table(title=on, title_justify="left", box=None, pad_edge=False, header_style="dim")
    names = ("cost", "against", "range", "from", "to", "by the law", "unit", "law", "its exponent", "measured")
    for column in names:
        numbers = column in ("from", "to", "by the law", "its exponent", "measured")
        table.add_column(column, no_wrap=column not in ("cost", "law"), justify="right" if numbers else "left")
    for g in found:
        (low, first), (high, last) = g.points[0], g.points[-1]
        about = f"{g.path} ({g.rest})"
        costs = (f"{first:.3g}", f"{last:.3g}", f"{g.lawful[-1][1]:.3g}", g.unit)
        exponents = ("" if slope is None else f"{slope:.2f}" for slope in (g.expected, g.exponent))
        table.add_row(about, g.size, f"{low:.5g} to {high:.5g}", *costs, g.law, *exponents)
    Console(width=max(140, Console().width)).print(table)


def draw(found: Sequence[Grown], file: Path) -> None:
    """Each cost over its size, both logarithmic, and its law through the first point, as a PNG. Lines of one point are
    left out."""
    drawn = [g for g in found if g.exponent is not None]
    columns = 2
    rows = max(1, -(-len(drawn) // columns))
    with look():
        figure, axes = panels(rows, columns, TEXT, 1.9 * rows)
        for ax, g in zip(axes, drawn, strict=False):
            sizes = [size for size, _ in g.points]
            plot(ax, g.lawful, "law", line(3), linestyle=(0, (1, 1.2)))
            plot(ax, g.points, "measured", line(0), marker="o")
            ax.set(xscale="log", yscale="log", xlabel=f"{g.size}  ({g.rest})", ylabel=g.unit)
            costs = [cost for _, cost in (*g.points, *g.lawful)]
            low, high = min(costs), max(costs)
            ax.set_ylim(low / 1.5, high * 1.5)  # what hardly grows looks so
            ax.set_xticks(sizes, [f"{size:.5g}" for size in sizes])
            ends = (low, high) if high > 1.5 * low else (high,)
            ax.set_yticks(ends, [f"{cost:.3g}" for cost in ends])
            for axis in (ax.xaxis, ax.yaxis):
                axis.set_ticks([], minor=True)
            title(ax, "", f"{g.path}: exponent {g.exponent:.2f}, law {g.expected:.2f}")
        for ax in axes[len(drawn) :]:
            ax.set_axis_off()
        with replacing(file) as partial:
            figure.savefig(partial, format="png", dpi=200)
