"""One look for all figures: the demo page's Okabe-Ito palette, with dashes and markers that tell lines apart in grey.

Sizes are of the page they stand on: `COLUMN` or `TEXT` wide, nothing set smaller than 6 pt there.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patheffects import withStroke
from matplotlib.text import Annotation
from matplotlib.ticker import FuncFormatter, MaxNLocator

from gear.figures.paper.metrics import ARROWS
from gear.figures.paper.speed import Reached
from gear.store.whole import replacing

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#1a1c20", "#cc79a7", "#e69f00")  # as in report.html
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.2)), (0, (6, 2, 1.5, 2)))
MARKERS = ("o", "s", "^", "D", "v", "P")
WARM, QUIET, RULE = "#56b4e9", "#5a616b", "#d9dde2"  # the warm-up's level; targets and notes; the grid
COLUMN, TEXT = 3.35, 6.9  # inches: one column of a two-column page, and its whole width
HATCH = "/////"
Place = Literal["outside upper center", "outside lower center"]
FAR = 5.0  # times the best run's value, where small ones are better: a run that lies above is cut off, and said to be
LETTER, HANDLE, ROW = 0.058, 0.45, 0.14  # inches in a legend: of a letter, about, of a sample with its spaces, of a row
RC: Mapping[str, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib: the same letters everywhere
    "font.size": 7.5,
    "axes.titlesize": 8,
    "axes.labelsize": 7.5,
    "xtick.labelsize": 6.8,
    "ytick.labelsize": 6.8,
    "legend.fontsize": 6.8,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "lines.linewidth": 1.4,
    "lines.markersize": 3.6,
    "legend.frameon": False,
    "legend.handlelength": 2.6,
    "hatch.linewidth": 0.5,
    "pdf.fonttype": 42,  # TrueType: text stays text
    "svg.fonttype": "path",
    "svg.hashsalt": "gear",  # else the names inside an SVG are drawn at random
    "axes.unicode_minus": True,
    "path.simplify": True,
    "text.parse_math": False,  # a name with two dollar signs is no formula
}


@dataclass(frozen=True)
class Drawing:
    """A figure, the name of its files, what its caption has to say, what it lacks and the command that makes that."""

    name: str
    figure: Figure
    caption: str
    lacking: tuple[str, ...] = ()


@contextmanager
def look() -> Iterator[None]:
    """Everything is drawn, and saved, inside."""
    everything: dict[Any, Any] = {**matplotlib.rcParamsDefault, **RC, "backend": "agg"}
    with matplotlib.rc_context(everything):
        yield


def panels(rows: int, columns: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """A figure of `width` x `height` inches and its axes, row by row, none overlapping."""
    engine = ConstrainedLayoutEngine(w_pad=0.04, h_pad=0.04, wspace=0.05, hspace=0.08)
    figure = Figure(figsize=(width, height), layout=engine)
    return figure, [figure.add_subplot(rows, columns, i + 1) for i in range(rows * columns)]


def line(index: int) -> dict[str, Any]:
    """Colour and dash of the run at `index`."""
    return {"color": COLOURS[index % len(COLOURS)], "linestyle": DASHES[index % len(DASHES)]}


def marked(index: int, points: int) -> dict[str, Any]:
    """`line` with about eight markers along it, which do not meet those of the next run."""
    every = max(1, points // 8)
    return line(index) | {"marker": MARKERS[index % len(MARKERS)], "markevery": ((index * every // 3) % every, every)}


def plot(axes: Axes, points: Sequence[tuple[float, float]], label: str, look: dict[str, Any], **more: Any) -> None:
    """A line through (x, y); `more` goes before what `look` says."""
    axes.plot([x for x, _ in points], [y for _, y in points], **{**look, **more, "label": label})


def title(axes: Axes, letter: str, text: str, better: int = 0) -> None:
    """(a) and what is shown, with an arrow where one way is better."""
    said = f"{text} {ARROWS[better]}".rstrip()
    axes.set_title(f"({letter}) {said}" if letter else said, loc="left")


def steps(axes: Axes, last: float) -> None:
    """An axis of training steps from 0 to `last`: 0, 100k, 1.5M."""
    axes.set_xlim(0, last * 1.02 if last > 0 else 1)
    axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10], integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: rounded(value)))
    axes.set_xlabel("training steps")


def rounded(value: float) -> str:
    """20, 4k, 2.5k, 1.5M."""
    for unit, sign in ((1e6, "M"), (1e3, "k")):
        if value >= unit * 0.9995:
            return f"{value / unit:.3g}{sign}"
    return f"{value:.3g}"


def near(values: Sequence[float]) -> list[bool]:
    """Of each run's value, of which the smaller is the better, whether it fits a frame with the best."""
    best = min(values, default=0.0)
    return [best <= 0 or value <= FAR * best for value in values]


def beyond(axes: Axes, notes: Sequence[tuple[str, str]]) -> None:
    """(text, colour) of what lies above the frame, at its top."""
    for row, (note, colour) in enumerate(notes):
        place = {"transform": axes.transAxes, "ha": "right", "va": "top", "fontsize": 6.5, "zorder": 5}
        place["bbox"] = {"facecolor": "white", "edgecolor": "none", "alpha": 0.9, "pad": 1}  # bars stand behind
        axes.text(0.98, 0.97 - 0.09 * row, note, color=colour, **place)


def settled(axes: Axes) -> None:
    """A frame around values that are all but one, instead of one that resolves their last digits."""
    values = [float(y) for line in axes.get_lines() for y in np.asarray(line.get_ydata(), dtype=float)]
    if values and max(values) - min(values) <= 1e-3 * abs(max(values)):
        axes.set_ylim(0.9 * min(values), 1.1 * max(values)) if min(values) > 0 else axes.margins(y=0.5)
        axes.yaxis.set_major_locator(MaxNLocator(3))
    axes.ticklabel_format(axis="y", useOffset=False, style="plain")


def legend(figure: Figure, axes: Sequence[Axes], spare: Axes | None = None) -> None:
    """One for all axes: in the place of `spare`, an axes that is not needed, else above them. Of equal labels the first
    is kept."""
    entries = {}
    for ax in axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    if spare is not None:
        spare.set_axis_off()
        place = spare.get_subplotspec()
        rows = place.get_gridspec().nrows if place else 1
        if ROW * 1.25 * len(entries) < figure.get_figheight() / rows:
            if entries:
                spare.legend(entries.values(), entries.keys(), loc="center", labelspacing=0.8)
            return
    keys(figure, list(entries.values()), list(entries), "outside upper center")


def keys(figure: Figure, handles: Sequence[Artist], labels: Sequence[str], place: Place) -> None:
    """A legend outside the axes, in as few rows as its width allows, for which the figure grows."""
    if not labels:
        return
    widths = [LETTER * len(label) + HANDLE for label in labels]
    columns = len(widths)
    if sum(widths) > figure.get_figwidth():
        columns = max(1, int(figure.get_figwidth() / max(widths)))
    figure.set_figheight(figure.get_figheight() + ROW * (-(-len(widths) // columns) - 1))
    figure.legend(handles, labels, loc=place, ncols=columns, columnspacing=1.4)


def arrow(axes: Axes, found: Reached, last: float, colour: str) -> None:
    """At the level from where a baseline ends, at step `last`, back to where another run was there before. The factor
    stands on its end: below a baseline that is still high there, above the other run. Those of further runs on top."""
    style = {"arrowstyle": "-|>", "lw": 1.0, "color": colour, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", (found.step, found.level), (last, found.level), arrowprops=style, zorder=4)
    before = sum(bool(text.get_text()) for text in axes.texts if isinstance(text, Annotation))
    text = f"{found.factor:.1f}\N{MULTIPLICATION SIGN} faster"
    look = {"color": colour, "fontsize": 7, "fontweight": "bold", "ha": "left", "va": "bottom", "zorder": 5}
    halo = [withStroke(linewidth=2.4, foreground="white")]  # curves behind stay seen, and do not cross the letters
    late = found.step > 0.6 * axes.get_xlim()[1]  # where there is no room to its right
    place = (last if late else found.step, found.level), (0 if late else 9, 3 + 9 * before)
    look |= {"ha": "right"} if late else {}
    axes.annotate(text, *place, textcoords="offset points", path_effects=halo, **look)


def empty(axes: Axes, text: str) -> None:
    """A panel without data says so."""
    axes.set(xticks=[], yticks=[])
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=QUIET, wrap=True)


def save(drawing: Drawing, folder: Path) -> list[Path]:
    """NAME.pdf, NAME.png (300 dpi) and NAME.txt, the caption, each whole or not at all; the same bytes each time."""
    files = []
    kinds: tuple[tuple[str, dict[str, Any]], ...] = (
        ("pdf", {"metadata": {"CreationDate": None, "ModDate": None}}),
        ("png", {"dpi": 300, "metadata": {"Software": None}}),
    )
    for suffix, options in kinds:
        files.append(folder / f"{drawing.name}.{suffix}")
        with replacing(files[-1]) as partial:
            drawing.figure.savefig(partial, format=suffix, **options)
    files.append(folder / f"{drawing.name}.txt")
    with replacing(files[-1]) as partial:
        partial.write_text("\n".join((drawing.caption, *drawing.lacking)) + "\n", encoding="utf-8")
    return files
