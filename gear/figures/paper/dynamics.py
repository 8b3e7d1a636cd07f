"""Figure 3: next-token loss (a) and alignment loss (b) while training, smoothed over the raw curve, with speed-ups."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes

from gear.figures.paper.found import NothingToDraw, Run
from gear.figures.paper.labels import in_full, labels
from gear.figures.paper.speed import WINDOW, baseline, ended, reached, said, smoothed
from gear.figures.paper.style import TEXT, Drawing, arrow, empty, legend, line, panels, plot, steps, title

PANELS = (("ntp", "next-token prediction", "nats per token"), ("align_hard", "alignment", "minus mean cosine"))
SHOWN = 0.98  # of the smoothed values are in the frame; the first steps would press the rest together


def draw(runs: Sequence[Run], against: str | None = None) -> Drawing:
    """Raises `NothingToDraw` where no run has logged either loss."""
    bare = [run for run in runs if not any(losses(run)) and (run.log or not run.results)]
    lacking = [run.lacks("log", "loss of a generator in its log") for run in bare]
    runs = [run for run in runs if any(losses(run))] or runs
    curves = {key: [losses(run)[i] for run in runs] for i, (key, *_) in enumerate(PANELS)}
    if not any(curve for found in curves.values() for curve in found):
        raise NothingToDraw(" ".join(run.lacks("log", "loss of a generator in its log") for run in runs))
    last = max(curve[-1][0] for found in curves.values() for curve in found if curve)
    window = WINDOW * last
    figure, axes = panels(1, 2, TEXT, 2.6)
    names = labels(runs)
    captions = [
        f"Lines: local linear fits over {window:,.0f} steps to either side ({100 * WINDOW:g} % of the longest run); "
        "faint: as logged."
    ]
    for ax, letter, (key, name, unit) in zip(axes, "ab", PANELS, strict=True):
        captions.append(_panel(ax, runs, names, curves[key], window, against, name))
        steps(ax, last)
        ax.set_ylabel(unit)
        title(ax, letter, f"{name[0].upper()}{name[1:]} loss", -1)
        lacking += [
            run.lacks("log", f"{name} loss") for run, c in zip(runs, curves[key], strict=True) if not c and run.aligned
        ]
    legend(figure, axes)
    return Drawing(
        "figure3", figure, " ".join(c for c in (*captions, in_full(names)) if c), tuple(dict.fromkeys(lacking))
    )


def losses(run: Run) -> list[list[tuple[float, float]]]:
    """Of each panel; empty for an alignment that is 0 throughout, as it is logged where there is none."""
    curves = [run.curve(key) for key, *_ in PANELS]
    return [curve if any(y for _, y in curve) else [] for curve in curves]


def _panel(
    axes: Axes,
    runs: Sequence[Run],
    names: Mapping[str, str],
    raw: Sequence[Sequence[tuple[float, float]]],
    window: float,
    against: str | None,
    name: str,
) -> str:
    drawn = [
        (i, run, curve, smoothed(curve, window)) for i, (run, curve) in enumerate(zip(runs, raw, strict=True)) if curve
    ]
    if not drawn:
        empty(axes, f"no {name} loss\nwas logged")
        return ""
    base = baseline([run for _, run, *_ in drawn], against)
    _, base_run, _, base_curve = drawn[base]
    for i, run, curve, smooth in drawn:
        faint = {"color": line(i)["color"], "alpha": 0.22, "linewidth": 0.5, "rasterized": len(curve) > 5000}
        plot(axes, curve, "_raw", faint)
        plot(axes, smooth, names[run.name], line(i))
    _frame(axes, [y for *_, smooth in drawn for _, y in smooth])
    said_of = []
    if len(drawn) > 1:
        axes.axhline(base_curve[-1][1], color=line(drawn[base][0])["color"], lw=0.7, ls=(0, (2, 2)))
    for i, run, _, smooth in drawn:
        if run is base_run:
            continue
        found = reached(smooth, base_curve)
        said_of.append(said(names[run.name], found, names[base_run.name], ended(base_run, base_curve, f"{name} loss")))
        if found and found.crossed and found.factor >= 1.05:
            arrow(axes, found, base_curve[-1][0], line(i)["color"])
    return " ".join(said_of)


def _frame(axes: Axes, values: Sequence[float]) -> None:
    """Leaves out the few largest values, and room below for the factor's text."""
    ordered = sorted(values)
    low, high = ordered[0], ordered[min(len(ordered) - 1, int(SHOWN * len(ordered)))]
    span = (high - low) or abs(high) or 1.0
    axes.set_ylim(low - 0.15 * span, high + 0.08 * span)
