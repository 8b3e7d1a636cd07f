"""`gear table`: the paper's tables with ours beside them."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tyro.conf import Positional

if TYPE_CHECKING:
    from gear.config import Config


def table(
    number: Positional[int],
    runs: Positional[tuple[Path, ...]] = (),
    /,
    format: Literal["markdown", "latex"] = "markdown",
    labels: tuple[str, ...] = (),
) -> None:
    """Print a table of the paper, with the paper's numbers, ours where there are results, and "not run" elsewhere.

    Results go to rows by their recipe, scale of guidance and interpolation; runs of other recipes follow below.

    Below the table: what our numbers were measured on, and which results fit none of its cells.

    Args:
        number: Of the paper's tables, 1 to 19.
        runs: Run folders, folders of runs, or results.json files.
        format: "latex" needs the packages booktabs, amssymb and graphicx.
        labels: Names of the runs, one each; by default the folders'.
    """
    from gear.commands.remarks import remarks
    from gear.figures.paper.found import opened
    from gear.figures.tables import ours, settings
    from gear.figures.tables.latex import latex
    from gear.figures.tables.markdown import markdown
    from gear.figures.tables.table import load

    chosen = load(number)
    if chosen.whole.get("settings"):
        lines, told = settings.lines(chosen, studied), []
    else:
        found = opened(runs, labels) if runs else []
        lines, used = ours.lines(chosen, found, same)
        told = remarks(chosen, found, lines, used)
    print({"markdown": markdown, "latex": latex}[format](chosen, lines, told))


def same(recipe: str) -> str:
    """The recipe that trains the same run first; a name that is no recipe's is itself."""
    from gear.recipes import RECIPES, run_of

    return run_of(recipe) if recipe in RECIPES else recipe


def studied(number: int) -> "list[Config]":
    """The configurations of a table's rows in which tokenizer and generator train together, in their order; of all of
    them where none do, as in text-to-image."""
    from gear.config import Gear, Naive
    from gear.recipes import RECIPES, ROWS

    configs = [RECIPES[name]() for name, row in ROWS.items() if row.table == number]
    return [config for config in configs if isinstance(config.stage, Gear | Naive)] or configs
