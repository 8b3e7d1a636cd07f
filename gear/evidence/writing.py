"""RESULTS.md: what stands between `<!-- evidence SCALE NAME -->` and `<!-- end -->` is made of results, the rest is
people's. A NAME is "arms", "verdicts", "cost", "pace" or the number of a claim that the scale's seeds are for; each has
to be there once for a scale.
"""

import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from gear.evidence import convergence, overview, pictures, results, tables, verdicts
from gear.evidence.arms import arms
from gear.evidence.claims import CLAIMS
from gear.evidence.pace import NAME as PACE
from gear.evidence.quantities import of_seeds
from gear.evidence.scales import SCALES, Scale
from gear.figures.paper.style import look
from gear.store.whole import replacing

BEGIN = re.compile(r"^<!-- evidence (\S+) (\S+) -->$", re.MULTILINE)
END = re.compile(r"^<!-- end -->$", re.MULTILINE)


def report(scale: Scale, results_folder: Path) -> Path:
    """Where results go that nobody says a place for: the repository's own page has the first scale's, of its seeds and
    in its own folder. Others' have a page beside them, so that they never come under the words of these."""
    beside = Path() if results_folder == results.HERE else results_folder
    return beside / ("RESULTS.md" if (name := _title(scale)) == "cpu" else f"RESULTS-{name}.md")


def _title(scale: Scale) -> str:
    """The scale's name, and seeds that are not the protocol's: cpu-7-8-9."""
    announced = scale.seeds == SCALES[scale.name].seeds
    return scale.name if announced else "-".join([scale.name, *map(str, scale.seeds)])


def write(scale: Scale, results_folder: Path, report: Path) -> list[Path]:
    """Brings the report and its figures up to date, and says which files these are; one that is not there begins with
    a place for each of its parts. Nothing is written before all is made. Raises ValueError for a report without a
    marker, `ConfigError` for a result of another protocol."""
    everything = results.every(results_folder, scale)
    for (name, seed), result in everything.items():
        results.require(results.place(results_folder, scale, name, seed), result, scale, arms().get(name))
    found = of_seeds(everything, scale.seeds)
    pace = _pace(results_folder / scale.name / PACE)
    seconds = {name: taken["median"] for name, taken in pace["seconds"].items()} if pace else {}
    with look():
        drawn = pictures.drawings(scale, found, seconds)
        folder, of = results_folder / scale.name, _title(scale).removeprefix(scale.name)
        files = {folder / f"{each.name}{of}.svg": pictures.svg(each.figure) for each in drawn.values()}
    blocks = {"arms": overview.listed(scale, everything), "cost": overview.cost(scale, found)}
    blocks |= {"verdicts": verdicts.verdicts(scale, found)}
    blocks |= {"pace": overview.pace(pace, scale)}
    blocks |= {str(n): tables.claim(n, scale, found) for n in CLAIMS if scale.seeds_of(n)}
    if "1" in blocks:
        blocks["1"] += f"\n\n{convergence.tables(scale, of_seeds(found, scale.seeds_of(1)), seconds)}"
    if "7" in blocks:
        blocks["7"] += f"\n\n{convergence.training(scale, of_seeds(found, scale.seeds_of(7)))}"
    for (claim, drawing), file in zip(drawn.items(), files, strict=True):
        link = Path(os.path.relpath(file, report.parent)).as_posix()
        blocks[str(claim)] += f"\n\n![{drawing.caption.partition('.')[0]}]({link})\n\n{drawing.caption}"
    text = report.read_text(encoding="utf-8") if report.exists() else empty(scale, blocks)
    files[report] = filled(text, report, scale.name, blocks).encode()
    for path, content in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_bytes(content)
    return list(files)


def empty(scale: Scale, names: Iterable[str]) -> str:
    """A report with a place for each of these."""
    title = f"# What came of `gear evidence`, scale {scale.name}, seeds {', '.join(map(str, scale.seeds))}\n\n"
    headings = {name: f"Claim {name}" if name.isdecimal() else name.capitalize() for name in names}
    marks = (f"## {told}\n\n<!-- evidence {scale.name} {name} -->\n<!-- end -->\n" for name, told in headings.items())
    return title + "\n".join(marks)


def filled(text: str, report: Path, scale: str, blocks: Mapping[str, str]) -> str:
    """The text of the report with the blocks of a scale in their places. Raises ValueError."""
    left, parts, done = dict(blocks), [], 0
    begins = list(BEGIN.finditer(text))
    for begin, after in zip(begins, [*(b.start() for b in begins[1:]), len(text)], strict=True):
        end = END.search(text, begin.end(), after)
        if end is None:
            raise ValueError(f"{report}: no line <!-- end --> closes {begin.group()}: add it.")
        if begin[1] != scale:
            continue
        if begin[2] not in left:
            raise ValueError(f"{report}: {begin.group()} is there twice, or no part of these seeds: take it out.")
        parts += [text[done : begin.end()], f"\n\n{left.pop(begin[2])}\n\n"]
        done = end.start()
    if left:
        lines = f"<!-- evidence {scale} {next(iter(left))} --> and <!-- end -->"
        raise ValueError(f"{report} has no place for {', '.join(left)}: add the lines {lines}, and so on.")
    return "".join([*parts, text[done:]])


def _pace(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text()) if path.exists() else None
