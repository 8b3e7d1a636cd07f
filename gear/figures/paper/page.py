"""`gear figure report`: all that runs have, on one page without network or scripts, in the style of the demo's."""

import base64
import io
import json
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from gear.figures.paper import convergence, depth, dynamics, sweep, usage
from gear.figures.paper.found import NothingToDraw, Run
from gear.figures.paper.numbers import tables
from gear.figures.paper.result import finite, listed
from gear.figures.paper.style import Drawing
from gear.figures.reading import duration
from gear.store.whole import replacing

STYLE = Path(__file__).parent.parent / "report.html"  # whose style sheet this page has, too
TITLES = {
    "figure1": "gFID", "figure3": "Losses", "figure4": "Codebook", "figure5": "Layers of the generator",
    "figure_cfg": "Scale of guidance",
}  # fmt: skip
LONG = ("metrics", "points", "codebook", *depth.PARTS)  # what the figures and numbers show
SHEET = 8 << 20  # bytes of a sheet of images that goes onto the page
PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<link rel="icon" href="data:,">
<title>$title</title>
<style>$style
.drawn { background: #fff; border-radius: 6px; padding: 8px; image-rendering: auto; max-width: 900px }
.drawn + figcaption { color: var(--quiet); font-size: .88rem; max-width: 90ch; margin-top: 6px }
section h3 { margin-top: 28px }
summary { cursor: pointer; margin-top: 10px }
</style>
</head>
<body>
<header><div><h1>$title</h1><p>$summary</p></div></header>
<main>
<section id="figures"><h2>Figures</h2>$figures</section>
<section id="images"><h2>Images</h2>$images</section>
<section id="numbers"><h2>Numbers</h2>
<p>↑ higher is better, ↓ lower is better. In brackets: the interval that the evaluation gives.</p>$tables</section>
<section id="commands" class="commands"><h2>Commands</h2>$commands</section>
<section id="settings"><h2>Settings</h2>$settings</section>
</main>
</body>
</html>
""")


def write(runs: Sequence[Run], against: str | None, path: Path) -> None:
    """The whole page, atomically. Must be inside `style.look`. Raises OSError where it cannot be written."""
    text = page(runs, against)
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def page(runs: Sequence[Run], against: str | None = None) -> str:
    """As text. What no run has is said with the command that makes it; the same runs give the same bytes."""
    names = ", ".join(run.name for run in runs)
    return PAGE.substitute(
        title=escape(f"{names}: evaluation"),
        summary=escape(f"What the result files of {len(runs)} run{'s' if len(runs) > 1 else ''} say: {names}."),
        style=STYLE.read_text("utf-8").partition("<style>")[2].partition("</style>")[0],
        figures="".join(figures(runs, against)),
        images="".join(_sheets(run) for run in runs) or '<p class="quiet">No run has drawn samples.</p>',
        tables="".join(tables(runs)) or '<p class="quiet">Nothing was evaluated yet.</p>',
        commands="".join(_commands(run) for run in runs) or '<p class="quiet">No command is known.</p>',
        settings="".join(_settings(run) for run in runs),
    )


def figures(runs: Sequence[Run], against: str | None) -> list[str]:
    """Each figure that can be drawn, else why not."""
    kinds: dict[str, Callable[[], Drawing]] = {
        "figure1": lambda: convergence.draw(runs, against),
        "figure3": lambda: dynamics.draw(runs, against),
        "figure4": lambda: usage.draw(runs),
        "figure5": lambda: depth.draw(runs),
        "figure_cfg": lambda: sweep.draw(runs),
    }
    shown = []
    for name, make in kinds.items():
        head = f"<h3>{TITLES[name]}</h3>"
        try:
            shown.append(head + _figure(make()))
        except NothingToDraw as error:
            shown.append(f'{head}<p class="quiet">{escape(str(error))}</p>')
    return shown


def _figure(drawing: Drawing) -> str:
    buffer = io.BytesIO()
    drawing.figure.savefig(buffer, format="svg", metadata={"Date": None})
    encoded = base64.b64encode(buffer.getvalue()).decode("ascii")
    caption = escape(" ".join((drawing.caption, *drawing.lacking)))
    image = f'<img class="drawn" alt="{escape(drawing.caption)}" src="data:image/svg+xml;base64,{encoded}">'
    return f"<figure>{image}<figcaption>{caption}</figcaption></figure>"


def _sheets(run: Run) -> str:
    """The latest sheets that were drawn while it trained."""
    shown = []
    for kind in ("samples", "reconstructions"):
        found = sorted((run.path / "watch").glob(f"{kind}-*.png"))
        if found and found[-1].stat().st_size <= SHEET:
            source = base64.b64encode(found[-1].read_bytes()).decode("ascii")
            said = escape(f"{run.name}: {kind}, step {int(found[-1].stem.rpartition('-')[2]):,}")
            shown.append(f'<figure><img alt="{said}" style="max-width:900px" src="data:image/png;base64,{source}">'
                         f"<figcaption>{said}</figcaption></figure>")  # fmt: skip
    return "".join(shown)


def _commands(run: Run) -> str:
    said = dict.fromkeys(str(result.whole["command"]) for result in run.results if result.whole.get("command"))
    blocks = "".join(f'<pre tabindex="0"><code>{escape(command)}</code></pre>' for command in said)
    return f"<h3>{escape(run.name)}</h3>{blocks}" if blocks else ""


def _settings(run: Run) -> str:
    """Its configuration, then everything that a results file says but its numbers."""
    parts = [("configuration", run.config)] if run.config else []
    files = {result.path: result.whole for result in run.results}
    for path, whole in files.items():
        kept = {name: value for name, value in whole.items() if name not in LONG}
        parts.append((str(path), kept))
    warned = [str(text) for whole in files.values() for text in listed(whole.get("warnings"))]
    took = sum(finite(whole.get("seconds")) or 0.0 for whole in files.values())
    head = f"<h3>{escape(run.name)}</h3>" + (f"<p>Evaluated in {duration(took)}.</p>" if took else "")
    head += "".join(f"<p>Warning: {escape(text)}</p>" for text in dict.fromkeys(warned))
    return head + "".join(_details(name, value) for name, value in parts)


def _details(name: str, value: Mapping[str, Any]) -> str:
    text = json.dumps(value, indent=1, ensure_ascii=False)
    return f"<details><summary>{escape(name)}</summary><pre><code>{escape(text)}</code></pre></details>"
