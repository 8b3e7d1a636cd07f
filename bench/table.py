"""What every benchmark returns, and how it is shown."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Row:
    """One comparison. ours, plain: in `unit`, lower is better; target: the largest ratio wanted; spread: (max - min) /
    median of the rounds; bound: what the floor is made of; floor: what the arithmetic or the bytes that cannot be saved
    take at the speed of `bench.ceilings`, in `unit`; None where nobody counted."""

    path: str
    unit: str
    ours: float
    plain: float
    target: float
    spread: float
    bound: str
    floor: float | None = None

    @property
    def ratio(self) -> float:
        return self.ours / self.plain


def alternating(sides: Mapping[str, Callable[[], float]], rounds: int) -> tuple[dict[str, float], float]:
    """The median of what each side returns, the sides taking turns, and the larger of their spreads."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, measure in sides.items():
            found[name].append(measure())
    medians = {name: statistics.median(values) for name, values in found.items()}
    return medians, max((max(values) - min(values)) / medians[name] for name, values in found.items())


def show(rows: Sequence[Row], title: str) -> None:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="dim")
    for column in ("path", "unit", "ours", "plain", "ratio", "target", "floor", "spread"):
        table.add_column(column, no_wrap=True, justify="left" if column in ("path", "unit") else "right")
    table.add_column("bound by")  # gives way in 80 columns
    for r in rows:
        floor = "" if r.floor is None else _short(r.floor)
        numbers = (_short(r.ours), _short(r.plain), f"{r.ratio:.2f}", f"<= {r.target}", floor, f"{r.spread:.0%}")
        table.add_row(r.path, r.unit, *numbers, r.bound)
    Console().print(table)


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
