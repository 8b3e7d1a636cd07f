"""The lines of a table: results of runs put to the rows they belong to, by recipe, scale of guidance and settings."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gear.figures.paper.found import Run
from gear.figures.paper.result import Result
from gear.figures.reading import NONE
from gear.figures.tables.table import NOT_RUN, Cell, Line, Table, decimals, marked

OTHERS = "other runs"
FREE = ("recipes", "stages", "tokenizers")  # what tells whose a number is, not what it is of


@dataclass(frozen=True)
class Number:
    """One value, whose it is and what it is of."""

    run: str
    result: Result
    protocol: str
    metric: str
    value: float
    n: int


def numbers(runs: Sequence[Run]) -> list[Number]:
    """All that the runs measured; those of more images first, of equal ones the later step and date."""
    found = [number for run in runs for result in run.results for number in _of(run, result)]
    return sorted(found, key=lambda x: (x.n, x.result.steps or 0, str(x.result.whole.get("date"))), reverse=True)


def _of(run: Run, result: Result) -> list[Number]:
    protocol = result.protocol
    if protocol == "point":  # of a sweep, whose metrics say which protocol's it is
        said = result.setting("protocol")
        protocol = said if isinstance(said, str) else "adm" if "gfid" in result.metrics else "geneval"
    return [Number(run.name, result, protocol, name, value, result.n or 0) for name, value in result.metrics.items()]


def lines(
    table: Table, runs: Sequence[Run], same: Callable[[str], str] = str
) -> tuple[list[Line], list[tuple[str, Number]]]:
    """The paper's rows, each with ours below it, then runs that are no row; and the numbers that were used, with the
    recipe of the row they went to ("" for none).

    same: a recipe's name to that of the run it shares with others, so that gear-l is also table05-tau-0.1.
    """
    everything, found, used = numbers(runs), [], []
    for i, row in enumerate(table.rows):
        group = row.get("group", "all" if "recipes" in row or not _grouped(table) else str(i))
        found.append(Line("paper", tuple(Cell(text) for text in row["cells"]), group))
        if "recipes" not in row:
            continue
        taken = [_taken(table, row, column, everything, same) for column in table.columns]
        mine = [number for number in taken if number]
        used += [(next(iter(row["recipes"]), ""), number) for number in mine]
        if mine:
            names = ", ".join(dict.fromkeys(number.run for number in mine))
            found.append(Line(names, _cells(table, row, taken, range(table.labels)), group))
        else:
            wanted = row["recipes"][:1] or row["cells"][: table.labels]
            found.append(Line(NOT_RUN, tuple(Cell(text) for text in wanted), group))
    known = {number.run for _, number in used}
    others = [number for number in everything if number.run not in known]
    for run in dict.fromkeys(number.run for number in others):
        own = [number for number in others if number.run == run]
        for row in _specs(table):
            taken = [_taken(table, row, column, own, None) for column in table.columns]
            if any(taken):
                used += [("", number) for number in taken if number]
                found.append(Line(run, _cells(table, row, taken, table.whole.get("keep", []), run), OTHERS))
    return marked(table, found), used


def _grouped(table: Table) -> bool:
    return any("group" in row for row in table.rows)


def _specs(table: Table) -> list[Mapping[str, Any]]:
    """Of rows that ask for the same in every column, the first: whose it is does not count."""
    first: dict[str, Mapping[str, Any]] = {}
    for row in table.rows:
        asked = {name: row[name] for name in row if name not in (*FREE, "cells", "group", "section", "mark")}
        if "recipes" in row:
            first.setdefault(repr(sorted(asked.items())), row)
    return list(first.values())


def _taken(
    table: Table,
    row: Mapping[str, Any],
    column: Mapping[str, Any],
    numbers: Sequence[Number],
    same: Callable[[str], str] | None,
) -> Number | None:
    """The number of a cell. same None: whosever it is, but for the column's stages."""
    if not table.measures(column):
        return None
    asked = {**row, **column}
    recipes = [*asked.get("recipes", ()), *row.get("recipes", ())]
    if asked.get("protocol") == "reconstruction":
        recipes += row.get("tokenizers", ())
    name = asked.get("prefix", "") + asked.get("metric", "")
    fit = [x for x in numbers if (x.protocol, x.metric) == (asked.get("protocol"), name) and _asked(x, asked)]
    if same is None:
        return next((x for x in fit if _fits(x.result.stage, asked.get("stages"))), None)
    for wanted in (same(recipe) for recipe in recipes):
        for number in fit:
            said = number.result.recipe or number.result.name  # a folder's name counts where no recipe is known
            if said and same(said) == wanted:
                return number
    return None


def _fits(stage: str | None, stages: Sequence[str] | None) -> bool:
    return stages is None or stage is None or stage.lower() in stages


def _asked(number: Number, asked: Mapping[str, Any]) -> bool:
    """Whether it was measured as the cell is: the steps of a longer run, the scale of guidance, the interpolation, the
    set of prompts."""
    r = number.result
    if "steps" in asked and r.steps != asked["steps"]:
        return False
    guided = "cfg" in asked and number.protocol != "reconstruction"
    if guided and (r.cfg_scale is None or abs(r.cfg_scale - asked["cfg"]) > 1e-9):
        return False
    said = {"interpolation": r.setting("interpolation"), "prompts": r.setting("prompt_set")}
    return all(said[name] == asked[name] for name in said if name in asked)


def _cells(
    table: Table, row: Mapping[str, Any], taken: Sequence[Number | None], keep: Sequence[int], name: str = ""
) -> tuple[Cell, ...]:
    """Labels of the row, those in `keep`, `name` in the first of the others; then the numbers with as many decimals as
    the paper's."""
    cells = []
    free = next((j for j in range(table.labels) if j not in keep), None)
    for j, (column, number) in enumerate(zip(table.columns, taken, strict=True)):
        if not table.measures(column):
            cells.append(Cell(row["cells"][j] if j in keep else name if j == free else ""))
        elif number is None:
            cells.append(Cell("-" if row["cells"][j] in ("-", NONE) else NOT_RUN))
        else:
            basis = number.n, *number.result.basis[1:]
            cells.append(Cell(f"{number.value:.{decimals(table, j, row)}f}", basis=basis))
    return tuple(cells)
