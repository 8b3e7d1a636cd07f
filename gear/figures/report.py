"""The demo's page: one HTML file without network, scripts or fonts of its own, from a `Report` of plain numbers.

`report.html` beside this file holds the style and all text that does not depend on the results; what does is made here,
section by section in the order of the page. Every text that comes in is escaped.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from html import escape
from pathlib import Path
from string import Template

from gear.figures.curves import Level, Line, Note, Panel, colour, svg, swatch
from gear.figures.pictures import reconstructions, samples
from gear.figures.reading import NONE, collapsed, duration, effective_size, headline, number, remarks
from gear.figures.results import Arm, Report, ReportError, check
from gear.store.whole import replacing

__all__ = ["Arm", "Report", "ReportError", "page", "write_report"]

TEMPLATE = Path(__file__).with_name("report.html")

# fmt: off
CURVES = (  # key in the log, what it is part of, title, unit, how to read it
    ("L_VQ", "tokenizer", "L_VQ, eq. 2", "", "The sum of the next six, weighted; guidance comes on top."),
    ("reconstruction", "tokenizer", "Reconstruction, L1", "", "Mean pixel error, in [-1, 1] images. Lower is better."),
    ("perceptual", "tokenizer", "Perceptual, LPIPS", "", "Distance in a vision network's features. Lower is better."),
    ("adversarial", "tokenizer", "Adversarial", "", "Minus the critic's score; the critic learns too."),
    ("entropy", "tokenizer", "Entropy term", "nats", "Low when each position is sure of its code and all are used."),
    ("quantizer", "tokenizer", "Codebook term", "", "Pulls codewords to the encoder's outputs."),
    ("commitment", "tokenizer", "Commitment", "", "Pulls the encoder's outputs to codewords."),
    ("ntp", "generator", "Next-token prediction", "nats per token", "Lower is better for equal codebook use."),
    ("align_hard", "generator", "Hard alignment", "", "Minus the cosine to the vision features. Trains the generator."),
    ("align_soft", "guidance", "Soft alignment", "", "The same through the soft read-out. Guides the tokenizer."),
    ("codebook_entropy", "codebook", "Codebook entropy H", "nats", "How evenly codewords are used."),
    ("effective_size", "codebook", "Effective size exp(H)", "codewords", "As many, used evenly, have the same H."),
)
# fmt: on
METRICS = (  # key, name, unit, better (1 up, -1 down, 0 neither)
    ("psnr", "PSNR", "dB", 1),
    ("rfid", "rFID", "", -1),
    ("gfid", "gFID", "", -1),
    ("held_out_ntp", "Held-out NTP", "nats per token", 0),
    ("codebook_entropy", "Codebook entropy", "nats", 0),
    ("effective_size", "Effective size", "codewords", 0),
)


def write_report(report: Report, path: Path) -> None:
    """Writes the page to `path` atomically: a page that is there stays whole until the new one is. About 1 MB.

    Raises `ReportError` for results that do not fit together, and OSError where nothing can be written.
    """
    text = page(report)
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def page(report: Report) -> str:
    """The whole page as text."""
    check(report)
    return Template(TEMPLATE.read_text("utf-8")).substitute(
        title=escape(report.title),
        summary=escape(report.summary),
        headline=escape(headline(report)),
        remarks="".join(f"<p>{escape(text)}</p>" for text in remarks(report)),
        facts=escape(
            f"{duration(report.total_seconds)} in all on {report.hardware}, seed {report.seed}, {report.date}"
        ),
        bars=bars(report),
        arms="".join(introduced(i, arm) for i, arm in enumerate(report.arms)),
        samples=samples(report),
        reconstructions=reconstructions(report),
        legend="".join(f'<li class="{colour(i)}">{swatch(i)}{escape(a.name)}</li>' for i, a in enumerate(report.arms)),
        curves="".join(frame(report, *row) for row in CURVES) or '<p class="quiet">Nothing was logged.</p>',
        table=_table(report),
        network=escape(report.feature_network),
        n_generated=f"{report.n_generated:,}",
        n_reconstructed=f"{report.n_reconstructed:,}",
        total=escape(f"{duration(report.total_seconds)} on {report.hardware}"),
        commands="".join(commands_of(i, arm) for i, arm in enumerate(report.arms)),
        reproduce=pre(report.reproduce),
        settings=pairs_of(
            [*report.settings.items(), ("codebook size", f"{report.codebook_size:,}"), ("seed", str(report.seed))]
        ),
        about=pairs_of([("hardware", report.hardware), ("versions", report.versions), ("date", report.date)]),
        notes="".join(f"<p>{escape(note)}</p>" for note in report.notes),
    )


# ---------------------------------------------------------------------------------------------------------- header


def bars(report: Report) -> str:
    """gFID of each arm that has one, as bars from zero."""
    measured = [(i, arm.name, value) for i, arm in enumerate(report.arms) if (value := arm.metric("gfid")) is not None]
    longest = max((value for *_, value in measured), default=0.0) or 1.0
    bars = (
        f'<li class="{colour(i)}"><span>{escape(name)}</span><b>{number(value)}</b>'
        f'<i style="width:{100 * value / longest:.1f}%"></i></li>'
        for i, name, value in measured
    )
    return "".join(bars) or '<li class="quiet">No arm has one.</li>'


def introduced(style: int, arm: Arm) -> str:
    trained = f"{arm.steps:,} steps in {duration(arm.seconds)}, {number(arm.images_per_s, 3)} images/s"
    return (
        f'<li class="{colour(style)}"><h3>{swatch(style)}{escape(arm.name)}</h3>'
        f'<p>{escape(arm.what)}</p><p class="quiet">{escape(trained)}</p></li>'
    )


# ---------------------------------------------------------------------------------------------------------- curves


def frame(
    report: Report, key: str, part: str, title: str, unit: str, about: str, levels: tuple[Level, ...] = ()
) -> str:
    """One frame with all arms; nothing if no arm has logged the quantity."""
    lines = tuple(Line(arm.name, i, arm.curve(key)) for i, arm in enumerate(report.arms))
    panel = Panel(title, unit, lines, levels)
    drawing = svg(_codebook(report, panel) if part == "codebook" else panel)
    if not drawing:
        return ""
    head = f'{escape(title)} <span class="unit">{escape(unit)}</span>'
    return (
        f'<figure class="panel"><p class="of">{part}</p><h3>{head}</h3><p>{escape(about)}</p>{drawing}'
        f'<figcaption><span class="quiet">Last:</span>{"".join(_end(line) for line in lines)}</figcaption></figure>'
    )


def _codebook(report: Report, panel: Panel) -> Panel:
    """From zero to the most that the codebook allows, a collapse of the naive arm pointed out."""
    K = report.codebook_size
    top = Level(math.log(K), f"log K = {math.log(K):.2f}") if panel.unit == "nats" else Level(float(K), f"K = {K:,}")
    notes = tuple(
        Note(i, f"collapse: {number(effective_size(arm), 3)} in use")
        for i, arm in enumerate(report.arms)
        if arm.key == "naive" and collapsed(arm, report)
    )
    return replace(panel, levels=(top,), notes=notes, include=(0.0,))


def _end(line: Line) -> str:
    value = number(line.points[-1][1], 3) if line.points else NONE
    spoken = f'<span class="sr">{escape(line.name)}</span>'
    return f'<span class="{colour(line.style)}">{swatch(line.style)}{spoken}{value}</span>'


# ----------------------------------------------------------------------------------------------------------- table


def _table(report: Report) -> str:
    counts = {"psnr": report.n_reconstructed, "rfid": report.n_reconstructed, "gfid": report.n_generated}
    K = report.codebook_size
    units = {"codebook_entropy": f"nats, at most {math.log(K):.2f}", "effective_size": f"of {K:,} codewords"}
    known = {key for key, *_ in METRICS}
    others = dict.fromkeys(key for arm in report.arms for key in arm.metrics if key not in known)
    rows = []
    for key, name, unit, better in (*METRICS, *((key, key, "", 0) for key in others)):
        size = f"n = {counts[key]:,}" if key in counts else ""
        detail = ", ".join(part for part in (units.get(key, unit), size) if part)
        rows.append((key, name, detail, better))
    return table(report, rows)


def table(report: Report, metrics: Sequence[tuple[str, str, str, int]]) -> str:
    """A row for each quantity, a column for each arm, so that it fits a phone. metrics: key, name, what it is in, and
    which way is better, as in `METRICS`."""
    heads = "".join(
        f'<th scope="col" class="{colour(i)}">{swatch(i)}{escape(a.name)}</th>' for i, a in enumerate(report.arms)
    )
    rows = [
        _row(
            name, ("", "higher", "lower")[better], detail, _best([arm.metrics.get(key) for arm in report.arms], better)
        )
        for key, name, detail, better in metrics
    ]
    rows.append(_row("Steps", "", "", [f"{arm.steps:,}" for arm in report.arms]))
    rows.append(_row("Training time", "", "", [duration(arm.seconds) for arm in report.arms]))
    rows.append(_row("Speed", "", "images/s", [number(arm.images_per_s, 3) for arm in report.arms]))
    return f"<thead><tr><td></td>{heads}</tr></thead><tbody>{''.join(rows)}</tbody>"


def _best(values: Sequence[float | None], better: int) -> list[str]:
    """The cells of a row, the best in bold where there are two to compare."""
    finite = [better * value for value in values if value is not None and math.isfinite(value)]
    best = max(finite) if better and len(finite) > 1 else None
    return [
        f"<strong>{number(value)}</strong>" if best is not None and value is not None and better * value == best
        else f'<span class="quiet" title="does not apply">{NONE}</span>' if value is None
        else number(value)
        for value in values
    ]  # fmt: skip


def _row(name: str, better: str, detail: str, cells: Sequence[str]) -> str:
    arrow = {"higher": "↑", "lower": "↓", "": ""}[better]
    mark = f' <span class="arrow" title="{better} is better" role="img" aria-label="{better} is better">{arrow}</span>'
    head = f"{escape(name)}{mark if better else ''}<small>{escape(detail)}</small>"
    return f'<tr><th scope="row">{head}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'


# ---------------------------------------------------------------------------------------------- commands, settings


def commands_of(style: int, arm: Arm) -> str:
    return f'<h3 class="{colour(style)}">{swatch(style)}{escape(arm.name)}</h3>{pre(arm.commands)}'


def pre(commands: Sequence[str]) -> str:
    return "".join(f'<pre tabindex="0"><code>{escape(command)}</code></pre>' for command in commands)


def pairs_of(pairs: Sequence[tuple[str, str]]) -> str:
    return "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in pairs)
