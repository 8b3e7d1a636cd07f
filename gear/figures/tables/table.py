"""A table of the paper as data, and its lines: the paper's rows, ours below each, and runs that are no row of it.

`paper/tableNN.json` holds every cell as the paper prints it. A column says which metric of which protocol stands in it,
a row which recipe makes it; together they say what to look for in the results of a run:

    columns  name; group (a heading over several); better (1: larger, -1: smaller); mark (false: nothing bold);
             protocol, metric, prefix (of the metric's name); cfg, prompts; recipes, stages
    rows     cells; recipes (that make it; absent: another method, [] : no recipe yet); tokenizers (recipes whose
             tokenizer it has, for reconstruction); group (within which cells compare), section; cfg, interpolation, ...
             steps: after how many, where a longer run has the row, too; prompts: "short" or "long", which a result
             says as "prompt_set" among its settings
    table    runner_up: underlined. axis "row": cells of a row compare. mark: false, none do; unmarked:
             groups that do not. keep: labels that say what is measured, which a run of ours has, too. settings: of
             training, no results.
"""

import json
import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "paper"
NUMBERS = tuple(int(path.stem.removeprefix("table")) for path in sorted(FOLDER.glob("table*.json")))
NOT_RUN = "not run"


@dataclass(frozen=True)
class Table:
    number: int
    title: str
    notes: tuple[str, ...]
    columns: tuple[Mapping[str, Any], ...]
    rows: tuple[Mapping[str, Any], ...]
    whole: Mapping[str, Any] = field(repr=False)

    @property
    def labels(self) -> int:
        """How many columns, from the left, hold no numbers."""
        return next((i for i, c in enumerate(self.columns) if self.measures(c)), 1)

    def measures(self, column: Mapping[str, Any]) -> bool:
        return "metric" in column or "prefix" in column or "cfg" in column


@dataclass(frozen=True)
class Cell:
    """mark: "best", "second". basis: n and reference of a number of ours; those of equal ones compare."""

    text: str
    mark: str = ""
    basis: Hashable = None


@dataclass(frozen=True)
class Line:
    """origin: "paper", the name of a run, or "not run". group: lines of which are set apart from others. A line that
    was not run has its labels alone."""

    origin: str
    cells: tuple[Cell, ...]
    group: str


def load(number: int) -> Table:
    """Raises ValueError for a table that the paper does not have."""
    if number not in NUMBERS:
        raise ValueError(f"the paper has no Table {number}; it has {NUMBERS[0]} to {NUMBERS[-1]}.")
    whole = json.loads((FOLDER / f"table{number:02d}.json").read_text("utf-8"))
    notes, columns, rows = (tuple(whole[name]) for name in ("notes", "columns", "rows"))
    return Table(number, whole["title"], notes, columns, rows, whole)


def value(text: str) -> float | None:
    """The number that a cell begins with: 15.54* or 0.2440 (-0.0045); None for a dash or words."""
    found = re.match(r"-?\d+(\.\d+)?(?=$|[*\s])", text)
    return float(found[0]) if found else None


def decimals(table: Table, column: int, row: Mapping[str, Any] | None = None) -> int:
    """As the paper prints the cell, else the column."""
    texts = [row["cells"][column] if row else "", *(r["cells"][column] for r in table.rows)]
    printed = (re.match(r"-?\d+\.?(\d*)", text) for text in texts if value(text) is not None)
    return next((len(found[1]) for found in printed if found), 3)


def marked(table: Table, lines: Sequence[Line]) -> list[Line]:
    """With the best, and the runner-up where the paper has one, of each group or row: the paper's among themselves,
    ours among ours, of these the ones of equal n and reference. Equal ones share the mark."""
    if not table.whole.get("mark", True):
        return list(lines)
    if table.whole.get("axis") == "row":
        return [Line(line.origin, _ranked(line.cells, table.columns, table), line.group) for line in lines]
    groups: dict[tuple[str, bool], list[int]] = {}
    for i, line in enumerate(lines):
        if line.group not in table.whole.get("unmarked", ()):
            groups.setdefault((line.group, line.origin == "paper"), []).append(i)
    cells = [list(line.cells) for line in lines]
    for members in groups.values():
        for j, column in enumerate(table.columns):
            if column.get("better") and column.get("mark", True):
                kept = [i for i in members if j < len(cells[i])]
                ranked = _marked([cells[i][j] for i in kept], column["better"], table)
                for i, cell in zip(kept, ranked, strict=True):
                    cells[i][j] = cell
    return [Line(line.origin, tuple(c), line.group) for line, c in zip(lines, cells, strict=True)]


def _ranked(cells: Sequence[Cell], columns: Sequence[Mapping[str, Any]], table: Table) -> tuple[Cell, ...]:
    better = max((column.get("better", 0) for column in columns), key=abs)
    return tuple(_marked(cells, better, table))


def _marked(cells: Sequence[Cell], better: int, table: Table) -> list[Cell]:
    found = list(cells)
    for basis in dict.fromkeys(cell.basis for cell in cells):
        kept = [i for i, cell in enumerate(cells) if cell.basis == basis]
        for i, mark in zip(kept, _marks([cells[i].text for i in kept], better, table), strict=True):
            found[i] = replace(cells[i], mark=mark)
    return found


def _marks(texts: Sequence[str], better: int, table: Table) -> list[str]:
    values = [value(text) for text in texts]
    order = sorted({better * v for v in values if v is not None}, reverse=True)
    if sum(v is not None for v in values) < 2:
        return [""] * len(texts)
    names = {order[0]: "best"} | ({order[1]: "second"} if table.whole.get("runner_up") and len(order) > 1 else {})
    return ["" if v is None else names.get(better * v, "") for v in values]
