"""Figure 1 (b): gFID over model sizes, without and with guidance."""

import re
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from gear.figures.paper.comparable import comparable
from gear.figures.paper.found import Run
from gear.figures.paper.labels import short
from gear.figures.paper.style import COLOURS, HATCH, QUIET, beyond, keys, near, title

SIZE = re.compile(r"(?i)(?<![a-z0-9])(xxxl|xxl|xl|[sbl])(?![a-z0-9])")
GUIDED = 1.5  # the paper's scale (section 4.1), where there are several
Sizes = dict[str, dict[int, list[float | None]]]  # method -> parameters -> gFID without and with guidance


def of_sizes(runs: Sequence[Run]) -> tuple[Sizes, str, list[str]]:
    """Method -> parameters -> gFID without and with guidance, of each run's latest step that has any; then of which n
    and reference, and what is of others.

    A method is a run's name without its size, gear-l and gear-xl are the method gear; where that makes one of two runs
    of one size, each is its own.
    """
    pairs = [(run, r) for run in runs for r in run.generated if "gfid" in r.metrics and r.params and r.cfg_scale]
    kept, left = comparable(pairs)
    scores: list[tuple[Run, int, list[float | None]]] = []
    for run in runs:
        scored = [r for owner, r in kept if owner is run]
        last = [r for r in scored if (r.steps or 0) == max((s.steps or 0) for s in scored)]
        plain = next((r.metrics["gfid"] for r in last if r.cfg_scale == 1), None)
        guided = sorted((r for r in last if r.cfg_scale != 1), key=lambda r: abs((r.cfg_scale or 0) - GUIDED))
        if last:
            scores.append((run, last[0].params or 0, [plain, guided[0].metrics["gfid"] if guided else None]))
    taken = [(method(run), params) for run, params, _ in scores]
    found: Sizes = {}
    for run, params, pair in scores:
        alone = all(taken.count((method(run), size)) == 1 for name, size in taken if name == method(run))
        found.setdefault(method(run) if alone else run.name, {})[params] = pair
    return found, kept[0][1].of if kept else "", left


def method(run: Run) -> str:
    return re.sub(r"[-_ ]{2,}", "-", SIZE.sub("", run.name)).strip("-_ ") or run.name


def draw(
    figure: Figure, axes: Axes, runs: Sequence[Run], names: Mapping[str, str], found: Sizes, of: str, letter: str
) -> str:
    """Bars of what `of_sizes` gives, side by side; one far above the best of its size and guidance is beyond the frame.
    names: as the figure has those of the runs. Returns the caption."""
    sizes = sorted({params for by_size in found.values() for params in by_size})
    width, highest, notes, said = 0.8 / (2 * len(found)), 0.0, [], []
    colours = [COLOURS[_first(name, runs) % len(COLOURS)] for name in found]  # as of its curve
    if len(set(colours)) < len(colours):
        colours = [COLOURS[m % len(COLOURS)] for m in range(len(found))]
    texts = [names.get(name, short(name)) for name in found]
    for guided in (0, 1):
        for k, size in enumerate(sizes):
            pairs = [(m, of_size[size]) for m, of_size in enumerate(found.values()) if size in of_size]
            bars = [(m, y) for m, pair in pairs if (y := pair[guided]) is not None]
            for (m, y), inside in zip(bars, near([y for _, y in bars]), strict=True):
                fill, hatch = ("white", HATCH) if guided else (colours[m], None)
                x = k + (2 * m + guided - len(found) + 0.5) * width
                bar = axes.bar(x, y, width * 0.92, edgecolor=colours[m], lw=0.8, facecolor=fill, hatch=hatch)
                text = f"{y:.1f}" if y >= 10 else f"{y:.2f}"
                if inside:
                    axes.bar_label(bar, [text], fontsize=6 if len(found) < 4 else 5, padding=1.5)
                    highest = max(highest, y)
                else:
                    notes.append((f"{texts[m]}: {text} {'with' if guided else 'without'} CFG", colours[m]))
                    said.append(f"{texts[m]}, at {text} {'with' if guided else 'without'} CFG, is beyond the frame.")
    kinds = [Patch(facecolor=colour, label=text) for colour, text in zip(colours, texts, strict=True)]
    kinds += [Patch(facecolor=QUIET, label="without CFG")]
    kinds += [Patch(facecolor="white", edgecolor=QUIET, hatch=HATCH, label="with CFG")]
    keys(
        figure,
        kinds,
        [str(kind.get_label()) for kind in kinds],
        "outside lower center" if letter else "outside upper center",
    )
    beyond(axes, notes)
    axes.set_ylim(0, highest * (1.1 + 0.1 * len(notes)))
    axes.set_xticks(range(len(sizes)), [f"{p / 1e6:.0f}M" if p >= 1e6 else f"{p:,}" for p in sizes])
    axes.set_xlim(-0.5, max(0.5, len(sizes) - 0.5))
    axes.set_xlabel("parameters of the generator")
    axes.set_ylabel("gFID")
    axes.grid(axis="x", visible=False)
    title(axes, letter, "gFID over model sizes", -1)
    caption = f"gFID by the ADM protocol, {of}, over model sizes: solid without, hatched with classifier-free guidance."
    return " ".join([f"({letter}) {caption}" if letter else caption, *said])


def _first(name: str, runs: Sequence[Run]) -> int:
    """Whose colour a method has."""
    return next((i for i, run in enumerate(runs) if name in (run.name, method(run))), 0)
