"""Figure 4: how the codebook is used while training: mass of the most used codewords, entropy, effective size.

Lines are of the log, whose every line counts the hard indices since the line before; open markers are probes of
checkpoints, over as many images as they say. The warm-up, where one is given, is a dashed line across.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from gear.figures.paper.found import NothingToDraw, Run, finite
from gear.figures.paper.style import MARKERS, TEXT, WARM, Drawing, legend, line, marked, panels, plot, title
from gear.figures.paper.style import steps as step_axis

COLUMNS = 3
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
    warm = [run for run in runs if run.stage == "warmup"]
    trained = [run for run in runs if run.stage != "warmup"] or list(runs)
    bare = [run for run in trained if not any(run.curve(*logged) or probed(run, key) for key, logged, _ in PANELS)]
    warm = [run for run in warm if run not in trained]
    trained = [run for run in trained if run not in bare] or trained
    drawn = {key: [(run.curve(*logged), probed(run, key)) for run in trained] for key, logged, _ in PANELS}
    if not any(curve or points for found in drawn.values() for curve, points in found):
        raise NothingToDraw(" ".join(run.lacks("probe", "codebook usage") for run in trained))
    last = max(x for found in drawn.values() for pair in found for points in pair for x, _ in points)
    shown = [panel for panel in PANELS if any(curve or points for curve, points in drawn[panel[0]])]
    rows = -(-(len(shown) + 1) // COLUMNS)  # one place is the legend's
    figure, axes = panels(rows, COLUMNS, TEXT, 1.85 * rows)
    lacking, seen = [run.lacks("probe", "codebook usage") for run in bare if run.log or not run.results], False
    missing = ", ".join(name.lower() for key, _, name in PANELS if key not in [key for key, *_ in shown])
    lacking += [run.lacks("probe", f"{missing} in its log") for run in trained if missing]
    for ax, letter, (key, _, name) in zip(axes, "abcde", shown, strict=False):
        title(ax, letter, name)
        step_axis(ax, last)
        for i, (run, (curve, points)) in enumerate(zip(trained, drawn[key], strict=True)):
            if curve:
                plot(ax, curve, run.name, marked(i, len(curve)))
            if points:
                seen = True
                name_of = run.name if not curve else f"{run.name}, probe"
                open_ones = {"marker": MARKERS[i % len(MARKERS)], "markerfacecolor": "white", "markersize": 5}
                plot(ax, points, name_of, line(i), linestyle="" if curve else "-", **open_ones)
        for run in warm:
            if (value := begun(run, key)) is not None:
                ax.axhline(value, color=WARM, ls=(0, (4, 2)), lw=1.3, label="warm-up tokenizer", zorder=1.5)
            else:
                lacking.append(run.lacks("probe", f"{name.lower()}, the warm-up's level"))
    legend(figure, axes[len(shown) - 1 :: -1], spare=axes[len(shown)])
    for ax in axes[len(shown) + 1 :]:
        ax.set_axis_off()
    caption = "Usage of the codebook by hard indices: lines as logged, each point the steps since the one before"
    caption += "; open markers: probes of checkpoints." if seen else "."
    caption += " Dashed: the warm-up tokenizer." if warm else ""
    return Drawing("figure4", figure, caption, tuple(dict.fromkeys(lacking)))


def probed(run: Run, key: str) -> list[tuple[float, float]]:
    """(step, value) of its probes that say their step."""
    points = {float(probe.steps): value for probe in run.of("probe")
              if probe.steps is not None and (value := finite(natural(probe.whole).get(key))) is not None}  # fmt: skip
    return sorted(points.items())


def begun(run: Run, key: str) -> float | None:
    """A warm-up's value: of its latest probe, else of the last line of its log."""
    values = [finite(natural(probe.whole).get(key)) for probe in run.of("probe")]
    logged = run.curve(*next(keys for name, keys, _ in PANELS if name == key))
    return next((v for v in reversed(values) if v is not None), logged[-1][1] if logged else None)


def natural(probe: Mapping[str, Any]) -> Mapping[str, Any]:
    """The usage of hard indices, of a probe's two."""
    codebook = probe.get("codebook")
    found = codebook.get("natural") if isinstance(codebook, dict) else None
    return found if isinstance(found, dict) else {}
