"""What every benchmark returns, and how it is shown."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Row:
    """One comparison. ours, plain: in `unit`, lower is better; target: the largest ratio wanted; spread: (max - min) /
    median of the rounds; bound: what the floor is made of."""

    path: str
    unit: str
    ours: float
    plain: float
    target: float
    spread: float
    bound: str

    @property
    def ratio(self) -> float:
        return self.ours / self.plain


def show(rows: Sequence[Row], title: str) -> None:
    table = Table(title=title)
    for column in ("path", "unit", "ours", "plain", "ratio", "target", "spread", "bound by"):
        table.add_column(column, no_wrap=True)
    for r in rows:
        numbers = (f"{r.ours:.3g}", f"{r.plain:.3g}", f"{r.ratio:.2f}", f"<= {r.target}", f"{r.spread:.0%}")
        table.add_row(r.path, r.unit, *numbers, r.bound)
    Console().print(table)
