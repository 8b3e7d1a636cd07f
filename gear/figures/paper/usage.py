"""Figure 4: how the codebook is used while training: mass of the most used codewords, entropy, effective size.

Lines are of the log, whose every line counts the hard indices since the line before; open markers are probes of
checkpoints, over as many images as they say. The warm-up, where one is given, is a dashed line across.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import mode
from typing import Any

from gear.figures.paper.found import NothingToDraw, Run
from gear.figures.paper.labels import in_full, labels
from gear.figures.paper.result import finite, mapping
from gear.figures.paper.style import (
    MARKERS,
    QUIET,
    TEXT,
    WARM,
    Drawing,
    legend,
    line,
    marked,
    panels,
    plot,
    settled,
    title,
)
from gear.figures.paper.style import steps as step_axis
from gear.train import lines

COLUMNS = 3
LEGEND = 28  # letters of a name for which a panel has room
PANELS = (  # of a probe's codebook, keys of the log, title
    ("top1", ("codebook_top1", "top1"), "Top-1 mass"),
    ("top10", ("codebook_top10", "top10"), "Top-10 mass"),
    ("top100", ("codebook_top100", "top100"), "Top-100 mass"),
    ("entropy", ("codebook_entropy",), "Usage entropy, nats"),
    ("effective_size", ("effective_size",), "Effective size exp(H)"),
)


def draw(runs: Sequence[Run]) -> Drawing:
    """Runs of a warm-up give the dashed line, the others curves; a warm-up alone is drawn as a curve. Raises
    `NothingToDraw` where nothing is known of any codebook."""
    trained = [run for run in runs if run.stage != "warmup"] or list(runs)
    bare = [run for run in trained if not any(run.curve(*logged) or probed(run, key) for key, logged, _ in PANELS)]
    warm = [run for run in runs if run.stage == "warmup" and run not in trained]
    trained = [run for run in trained if run not in bare] or trained
    drawn = {key: [(run.curve(*logged), probed(run, key)) for run in trained] for key, logged, _ in PANELS}
    if not any(curve or points for found in drawn.values() for curve, points in found):
        raise NothingToDraw(" ".join(run.lacks("probe", "codebook usage") for run in trained))
    last = max(x for found in drawn.values() for pair in found for points in pair for x, _ in points)
    shown = [panel for panel in PANELS if any(curve or points for curve, points in drawn[panel[0]])]
    rows = -(-(len(shown) + 1) // COLUMNS)  # one place is the legend's
    figure, axes = panels(rows, COLUMNS, TEXT, 1.85 * rows)
    lacking = [run.lacks("probe", "codebook usage") for run in bare if run.log or not run.results]
    missing = ", ".join(name.lower() for key, _, name in PANELS if key not in [key for key, *_ in shown])
    lacking += [run.lacks("probe", f"{missing} in its log") for run in trained if missing]
    names = labels([*trained, *warm], LEGEND)
    unknown: dict[tuple[str, str], list[str]] = {}
    for ax, letter, (key, logged, name) in zip(axes, "abcde", shown, strict=False):
        title(ax, letter, name)
        step_axis(ax, last)
        curved = any(curve for curve, _ in drawn[key])
        for i, (run, (curve, points)) in enumerate(zip(trained, drawn[key], strict=True)):
            if curve:
                plot(ax, curve, names[run.name], marked(i, len(curve)))
            if points:
                label = names[run.name] if not curve else "_probe"
                open_ones = {"marker": MARKERS[i % len(MARKERS)], "markerfacecolor": "white", "markersize": 5}
                style = "" if curve else "-"
                plot(ax, points, label, line(i), linestyle=style, clip_on=False, zorder=3, **open_ones)
        for run in warm:
            level = begun(run, key, logged if curved else ())
            if level is not None:
                ax.axhline(level, color=WARM, ls=(0, (4, 2)), lw=1.3, label="warm-up tokenizer", zorder=1.5)
            else:
                unknown.setdefault((run.name, "usage" if curved else "probe"), []).append(name.lower())
        settled(ax)
    if any(curve and points for found in drawn.values() for curve, points in found):
        quiet = {"color": QUIET, "linestyle": "", "marker": "o", "markerfacecolor": "white", "markersize": 5}
        plot(axes[0], [], "probe of a checkpoint", quiet)
    for (owner, kind), parts in unknown.items():
        lacking += [run.lacks(kind, f"level of {', '.join(parts)}") for run in warm if run.name == owner]
    legend(figure, axes[len(shown) - 1 :: -1], spare=axes[len(shown)])
    for ax in axes[len(shown) + 1 :]:
        ax.set_axis_off()
    caption = f"{_caption(trained, warm)} {in_full(names)}".rstrip()
    return Drawing("figure4", figure, caption, tuple(dict.fromkeys(lacking)))


def _caption(trained: Sequence[Run], warm: Sequence[Run]) -> str:
    """What is counted, over how many images."""
    keys = {key for _, logged, _ in PANELS for key in logged}
    logs = [run for run in (*trained, *warm) if any(run.curve(key) for key in keys)]
    probes = {probe.n for run in (*trained, *warm) for probe in run.of("probe") if natural(probe.whole) and probe.n}
    parts = []
    if logs:
        counts = sorted({count for run in logs if (count := per_point(run))})
        over = f", over {_either(counts)} images" if counts else ""
        parts.append(f"lines as logged, each point the steps since the one before{over}")
    if any(probed(run, key) for run in trained for key, *_ in PANELS):
        over = f", over {_either(sorted(probes))} images" if probes else ""
        parts.append(f"open markers: probes of checkpoints{over}")
    said = f"Usage of the codebook by hard indices: {'; '.join(parts)}."
    return f"{said} Dashed: the warm-up tokenizer, measured as the curves of its panel." if warm else said


def per_point(run: Run) -> int | None:
    """Images behind a line of its log: the batch times the steps between two lines; None where that is not known."""
    batch, steps = lines.whole_number(run.config.get("batch")), [line.get("step") for line in run.log]
    gaps = [b - a for a, b in pairwise(steps) if isinstance(a, int) and isinstance(b, int)]
    return batch * mode(gaps) if batch and gaps else None


def _either(counts: Sequence[int]) -> str:
    return " or ".join(f"{count:,}" for count in counts)


def probed(run: Run, key: str) -> list[tuple[float, float]]:
    """(step, value) of its probes that say their step."""
    points = {float(probe.steps): value for probe in run.of("probe")
              if probe.steps is not None and (value := finite(natural(probe.whole).get(key))) is not None}  # fmt: skip
    return sorted(points.items())


def begun(run: Run, key: str, logged: Sequence[str]) -> float | None:
    """A warm-up's value: of the last line of its log under these keys, where the curves are of the log; without any,
    of its latest probe. The two count over other images, and so do not compare."""
    if logged:
        curve = run.curve(*logged)
        return curve[-1][1] if curve else None
    values = [finite(natural(probe.whole).get(key)) for probe in run.of("probe")]
    return next((value for value in reversed(values) if value is not None), None)


def natural(probe: Mapping[str, Any]) -> Mapping[str, Any]:
    """The usage of hard indices, of a probe's two."""
    return mapping(mapping(probe.get("codebook")).get("natural"))
