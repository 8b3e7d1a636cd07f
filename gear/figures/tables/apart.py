"""What a table does not show of the runs it was given: results that fit no cell, and what would make fitting ones."""

import shlex
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from gear.figures.paper.found import HOW, Run
from gear.figures.paper.result import mapping
from gear.figures.tables.ours import Number, numbers
from gear.figures.tables.table import Table

SETTINGS = {"cfg": "cfg_scale", "prompts": "prompt_set", "interpolation": "interpolation"}  # of cells, and of results
OPTIONS = {
    "cfg": "cfg-scale",
    "prompts": "prompt-set",
    "interpolation": "interpolation",
}  # of commands, each of one value
DRAWING = ("adm", "gpic")  # whose commands know the scale, and take none for images
REFERENCED = ("adm", "gpic", "coco")
SCALES = "{scales}"


def apart(table: Table, runs: Sequence[Run], used: Sequence[Number]) -> list[str]:
    """A sentence for each result of which no number is shown though the table holds that metric, and for each run that
    has none at all for it."""
    cells = [{**row, **column} for row in table.rows if "recipes" in row for column in table.columns]
    cells = [cell for cell in cells if "protocol" in cell]
    shown = {id(number.result) for number in used}
    said: dict[str, list[str]] = {}
    for run in runs:
        own = [(number, asked) for number in numbers([run]) if (asked := _asking(number, cells))]
        for number, asked in own:
            if id(number.result) not in shown:
                text, at = _why(run, number, asked)
                scales = said.setdefault(text, [])
                scales += [at] if at not in scales else []
        if not own:
            said[_nothing(run, cells)] = []
    return [text.replace(SCALES, _either(scales)) for text, scales in said.items()]


def _asking(number: Number, cells: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Cells of a number's protocol and metric."""
    return [
        cell
        for cell in cells
        if (cell["protocol"], cell.get("prefix", "") + cell.get("metric", "")) == (number.protocol, number.metric)
    ]


def _why(run: Run, number: Number, cells: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """The sentence, with `SCALES` for what is second: the scale, so that a sweep has one sentence."""
    result, given = number.result, number.result.cfg_scale
    has = {name: list(dict.fromkeys(cell[name] for cell in cells if name in cell)) for name in SETTINGS}
    has |= {"cfg": []} if number.protocol == "reconstruction" else {}
    what = f"{run.name}: {number.protocol}, {result.of}, is not shown"
    if has["cfg"] and given is None:
        said = f"{what}: its scale of guidance is not said."
        if number.protocol in DRAWING:
            return (
                f"{said} Measure the run itself, or its images beside the note that `gear sample` leaves of them.",
                "",
            )
        return f"{said} {_fitting(run, number, has)}", ""
    if has["cfg"] and given not in has["cfg"]:
        return f"{what}: it is at CFG {SCALES}. {_fitting(run, number, has)}", f"{given:g}"
    for name in ("prompts", "interpolation"):
        found = result.setting(SETTINGS[name])
        if has[name] and found not in has[name]:
            return f"{what}: its {name} {_are(name, found)}. {_fitting(run, number, has)}", ""
    return f"{what}: another result has its cells, or none is of its recipe ({result.path}).", ""


def _are(name: str, found: Any) -> str:
    return f"{'are' if name == 'prompts' else 'is'} {'not said' if found is None else found}"


def _fitting(run: Run, number: Number, has: Mapping[str, Sequence[Any]]) -> str:
    """Which cells there are, and the command for one of them."""
    there = [f"{name.replace('cfg', 'CFG')} {_either(values)}" for name, values in has.items() if values]
    wanted = {f"--{option}": _chosen(number, name, has[name]) for name, option in OPTIONS.items() if has[name]}
    return f"The table has {'; '.join(there)}: `{_command(run, number, wanted)}` makes a fitting one."


def _chosen(number: Number, name: str, values: Sequence[Any]) -> str:
    found = number.result.cfg_scale if name == "cfg" else number.result.setting(SETTINGS[name])
    chosen = found if found in values else values[0]
    return f"{chosen:g}" if isinstance(chosen, float) else str(chosen)


def _command(run: Run, number: Number, wanted: Mapping[str, str]) -> str:
    """The one that made the result with other options; of a sweep's point, and where it is not known, a new one."""
    whole, start = number.result.whole, f"gear evaluate {number.protocol} "
    ran = whole.get("command")
    if isinstance(ran, str) and ran.startswith(start):
        words = shlex.split(ran)
        kept = [word for before, word in pairwise(["", *words]) if not {word, before} & wanted.keys()]
    else:
        known = run.path if run.log or run.config else mapping(whole.get("source")).get("path")
        kept = [*start.split(), str(known or ("RUN" if number.protocol in ("adm", "gpic") else "FOLDER"))]
        if number.protocol == "dpg":
            kept += ["--questions", str(mapping(whole.get("reference")).get("path") or "QUESTIONS")]
        if number.protocol in REFERENCED:
            kept += ["--reference", str(mapping(whole.get("reference")).get("path") or "REFERENCE")]
            kept += ["--n", str(number.n)] if number.n else []
    return shlex.join([*kept, *(word for pair in wanted.items() for word in pair)])


def _nothing(run: Run, cells: Sequence[Mapping[str, Any]]) -> str:
    protocols = list(dict.fromkeys(cell["protocol"] for cell in cells))
    if not protocols:
        return f"{run.name}: the table has no rows for results."
    what = f"results for this table, which holds {_either(protocols)}"
    if protocols[0] in HOW and (run.log or run.config):
        return run.lacks(protocols[0], what)
    return f"{run.name} has no {what}."


def _either(values: Sequence[Any]) -> str:
    texts = [f"{value:g}" if isinstance(value, float) else str(value) for value in values]
    return " and ".join([", ".join(texts[:-1]), texts[-1]] if len(texts) > 1 else texts)
