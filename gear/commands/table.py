"""`gear table`: the paper's tables with ours beside them."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tyro.conf import Positional

if TYPE_CHECKING:
    from gear.config import Config
    from gear.figures.paper.found import Result, Run
    from gear.figures.tables.ours import Number

ANYWAY = (  # fields that do not move a number, or of which the results speak themselves
    *("device", "log_every", "save_every", "keep_last", "keep_every", "engine", "guards", "watch", "sampling"),
    *("data.path", "data.workers", "tokenizer.init", "generator.init"),
)


def table(
    number: Positional[int],
    runs: Positional[tuple[Path, ...]] = (),
    /,
    format: Literal["markdown", "latex"] = "markdown",
    labels: tuple[str, ...] = (),
) -> None:
    """Print a table of the paper, with the paper's numbers, ours where there are results, and "not run" elsewhere.

    Results go to rows by their recipe, scale of guidance and interpolation; runs of other recipes follow below.

    Below the table: what each of our numbers was measured on.

    Args:
        number: Of the paper's tables, 1 to 19.
        runs: Run folders, folders of runs, or results.json files.
        format: "latex" needs booktabs.
        labels: Names of the runs, one each; by default the folders'.
    """
    from gear.figures.paper.found import opened
    from gear.figures.tables import ours, settings
    from gear.figures.tables.latex import latex
    from gear.figures.tables.markdown import markdown
    from gear.figures.tables.table import load

    chosen = load(number)
    if chosen.whole.get("settings"):
        lines, remarks = settings.lines(chosen, joint), []
    else:
        found = opened(runs, labels) if runs else []
        lines, used = ours.lines(chosen, found, same)
        remarks = [*measured(used), *changed(used, found)]
    print({"markdown": markdown, "latex": latex}[format](chosen, lines, remarks))


def same(recipe: str) -> str:
    """The recipe that trains the same run first; a name that is no recipe's is itself."""
    from gear.recipes import RECIPES, run_of

    return run_of(recipe) if recipe in RECIPES else recipe


def joint(number: int) -> "list[Config]":
    """The configurations of a table's rows in which tokenizer and generator train together, in their order."""
    from gear.config import Gear, Naive
    from gear.recipes import RECIPES, ROWS

    configs = [RECIPES[name]() for name, row in ROWS.items() if row.table == number]
    return [config for config in configs if isinstance(config.stage, Gear | Naive)]


def measured(used: "Sequence[tuple[str, Number]]") -> list[str]:
    """A sentence for each results file that the lines have numbers of: what it was measured on, and what differs from
    the row that it stands in."""
    from gear.recipes import RECIPES

    said: dict[str, None] = {}
    for recipe, number in used:
        r = number.result
        parts = [f"n = {number.n:,}" if number.n else "n unknown"]
        if (what := r.setting("interpolation")) and number.protocol == "reconstruction":
            parts.append(str(what))
        planned = RECIPES[recipe]().steps if recipe in RECIPES else None
        if r.steps is not None:
            parts.append(
                f"{r.steps:,} steps" + (f" of the row's {planned:,}" if planned not in (None, r.steps) else "")
            )
        if number.protocol not in ("reconstruction", "probe") and not knows_scale(r):
            parts.append("scale of guidance not said, taken as none")
        reference = r.whole.get("reference")
        if isinstance(reference, dict) and (name := reference.get("path") or reference.get("kind")):
            parts.append(f"against {name}")
        warnings = r.whole.get("warnings")
        warned = f"; warnings: {' '.join(map(str, warnings))}" if isinstance(warnings, list) and warnings else ""
        said[f"{number.run} ({r.path}): {number.protocol}, {', '.join(parts)}{warned}."] = None
    return list(said)


def changed(used: "Sequence[tuple[str, Number]]", runs: "Sequence[Run]") -> list[str]:
    """A sentence for each run that stands in a row whose recipe it has not kept to: fields that could move a number."""
    from gear.config_json import differences, read
    from gear.figures.paper.found import CONFIG
    from gear.recipes import RECIPES

    said: dict[str, None] = {}
    folders = {run.name: run.path for run in runs if run.config}
    for recipe, number in used:
        if recipe in RECIPES and number.run in folders:
            found = differences(RECIPES[recipe](), read(folders[number.run] / CONFIG))
            if fields := [line for line in found if not line.startswith(ANYWAY)]:
                said[f"{number.run} is not {recipe} as it stands: {'; '.join(fields)}."] = None
    return list(said)


def knows_scale(result: "Result") -> bool:
    return result.setting("cfg_scale") is not None or "points" in result.whole
