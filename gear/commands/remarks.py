"""What stands below a table: what our numbers were measured on, and what keeps them from comparing with the paper's."""

from collections.abc import Mapping, Sequence
from typing import Any

from gear.config import Config, Frozen, Sampling
from gear.config_json import differences, read
from gear.figures.paper.found import CONFIG, Run
from gear.figures.paper.result import Result, listed
from gear.figures.tables.apart import apart
from gear.figures.tables.ours import Number
from gear.figures.tables.table import Line, Table
from gear.recipes import RECIPES

ANYWAY = (  # fields that do not move a number, or of which the results speak themselves
    *("device", "log_every", "save_every", "keep_last", "keep_every", "guards", "watch", "sampling"),
    *("engine.shard", "engine.recompute", "engine.compile", "engine.tf32", "data.path", "data.workers"),
)
SAMPLED = ("temperature", "top_k", "top_p")
Used = Sequence[tuple[str, Number]]  # with the recipe of the row that it went to, "" for none


def remarks(table: Table, runs: Sequence[Run], lines: Sequence[Line], used: Used) -> list[str]:
    """All, each once: measured on what; warnings; not kept to the recipe; bold; not shown."""
    not_shown = apart(table, runs, [number for _, number in used])
    return [*measured(used), *changed(used, runs), *mixed(table, lines), *warned(used), *not_shown]


def measured(used: Used) -> list[str]:
    """A sentence for each results file that the lines have numbers of: what it was measured on, and how much of the
    row's training it has."""
    said: dict[str, None] = {}
    for recipe, number in used:
        r = number.result
        parts = [f"n = {number.n:,}" if number.n else "n unknown"]
        if (what := r.setting("interpolation")) and number.protocol == "reconstruction":
            parts.append(str(what))
        planned = RECIPES[recipe]().steps if recipe in RECIPES else None
        if r.steps is not None:
            of = f" of the row's {planned:,}" if planned not in (None, r.steps) else ""
            parts.append(f"{r.steps:,} steps{of}")
        if number.protocol == "probe":
            parts += _probed(r)
        elif r.reference:
            parts.append(f"against {r.reference}")
        if recipe not in RECIPES:
            parts += _sampled(r, Config().sampling)
        if r.measured:
            parts.append("{} of {} scales measured; the same command continues".format(*r.measured))
        said[f"{number.run} ({r.path}): {number.protocol}, {', '.join(parts)}."] = None
    return list(said)


def _probed(result: Result) -> list[str]:
    """Against which target, and on which images; the paper's is DINOv2."""
    whole = result.whole
    target = _at(whole, "reference", "name") or _at(whole, "similarity", "target")
    images = _at(whole, "source", "path") or _at(whole, "source", "kind")
    other = "" if str(target).startswith("dinov2") else " (not DINOv2)"
    return [*([f"against {target}{other}"] if target else []), *([f"on {images}"] if images else [])]


def _at(whole: Mapping[str, Any], part: str, name: str) -> Any:
    found = whole.get(part)
    return found.get(name) if isinstance(found, dict) else None


def warned(used: Used) -> list[str]:
    """Each warning of a results file once, with the runs that have it."""
    runs: dict[str, dict[str, None]] = {}
    for _, number in used:
        for text in listed(number.result.whole.get("warnings")):
            runs.setdefault(str(text).rstrip("."), {})[number.run] = None
    return [f"{', '.join(names)}: {text}." for text, names in runs.items()]


def changed(used: Used, runs: Sequence[Run]) -> list[str]:
    """A sentence for each run that stands in a row whose recipe it has not kept to, in training or in sampling: fields
    that could move a number."""
    fields: dict[tuple[str, str], dict[str, None]] = {}
    folders = {run.name: run.path for run in runs if run.config}
    for recipe, number in used:
        if recipe not in RECIPES:
            continue
        kept, one = RECIPES[recipe](), fields.setdefault((number.run, recipe), {})
        if number.run in folders and not one:
            one.update(dict.fromkeys(_moved(kept, read(folders[number.run] / CONFIG))))
        one.update(dict.fromkeys(f"sampling.{text}" for text in _sampled(number.result, kept.sampling)))
    return [f"{run} is not {recipe} as it stands: {'; '.join(one)}." for (run, recipe), one in fields.items() if one]


def _moved(kept: Config, found: Config) -> list[str]:
    """The differences that could move a number: another warm-up is one, too, but none is none; and batch statistics of
    a part matter to a tokenizer that trains."""
    anyway = ANYWAY
    if None not in (kept.tokenizer.init, found.tokenizer.init):
        anyway += ("tokenizer.init",)
    if isinstance(found.stage, Frozen):
        anyway += ("engine.accumulate",)
    return [line for line in differences(kept, found) if not line.startswith(anyway)]


def _sampled(result: Result, kept: Sampling) -> list[str]:
    """ "temperature: 1.0 -> 0.8", of how the images were drawn, as far as it is known."""
    drawn = {name: result.setting(name) for name in SAMPLED}
    told = [f"{name}: {getattr(kept, name)} -> {value}" for name, value in drawn.items()
            if value is not None and value != getattr(kept, name)]  # fmt: skip
    interval = result.setting("cfg_interval")
    return [*told, *([f"cfg_interval: none -> {interval}"] if interval is not None else [])]


def mixed(table: Table, lines: Sequence[Line]) -> list[str]:
    """Said where numbers of ours that stand together do not compare."""
    if not table.whole.get("mark", True):
        return []
    for group in {line.group for line in lines}:
        rows = [line.cells for line in lines if line.group == group and line.origin != "paper"]
        for column in range(len(table.columns)):
            bases = {cells[column].basis for cells in rows if column < len(cells)} - {None}
            if len(bases) > 1:
                return ["Our numbers are of different n or references: bold compares only those of equal ones."]
    return []
