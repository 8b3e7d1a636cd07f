"""Figure 1: (a) gFID against training steps with the speed-up; (b) gFID over model sizes, without and with guidance.

Two kinds of gFID are never in one frame, as their features differ: by the ADM protocol (Inception; results.json), or
as watched while training (EfficientNet; evaluations.jsonl). The first is drawn where some run has two steps of it.
"""

import re
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.patches import Patch

from gear.figures.paper.found import NothingToDraw, Result, Run
from gear.figures.paper.speed import Curve, baseline, reached, said
from gear.figures.paper.style import (
    COLOURS,
    COLUMN,
    HATCH,
    QUIET,
    TEXT,
    Drawing,
    arrow,
    legend,
    line,
    marked,
    panels,
    plot,
    steps,
    title,
)

FAR = 5.0  # times the best run's final gFID: what lies above is cut off, and said to be
SIZE = re.compile(r"(?i)(?<![a-z0-9])(xxxl|xxl|xl|[sbl])(?![a-z0-9])")
GUIDED = 1.5  # the paper's scale (section 4.1), where there are several


def draw(runs: Sequence[Run], against: str | None = None) -> Drawing:
    """Raises `NothingToDraw` where no run has a gFID at a step."""
    curves, kind = of_steps(runs)
    bars = of_sizes(runs)
    if not any(curves) and not bars:
        raise NothingToDraw(" ".join(run.lacks("watched", "gFID during training") for run in runs))
    both = any(curves) and bool(bars)
    figure, axes = panels(1, 2 if both else 1, TEXT if both else COLUMN, 2.5)
    captions, lacking = [], []
    if any(curves):
        captions.append(_converging(axes[0], runs, curves, kind, against, "a" if both else ""))
        bare = [run for run, curve in zip(runs, curves, strict=True) if not curve and (run.log or not run.results)]
        lacking += [run.lacks("watched", f"gFID {kind}") for run in bare]
    if bars:
        captions.append(_sizes(axes[-1], bars, "b" if both else ""))
    else:
        lacking += [run.lacks("adm", "gFID of 50,000 images, which panel (b) shows") for run in runs]
    if any(curves):
        legend(figure, axes[:1])
    return Drawing("figure1", figure, " ".join(captions), tuple(lacking))


def of_steps(runs: Sequence[Run]) -> tuple[list[Curve], str]:
    """gFID against steps of each run, perhaps empty, and which kind it is. Raises ValueError where networks differ."""
    measured = [
        sorted({r.steps: r.metrics["gfid"] for r in unguided(run) if r.steps and "gfid" in r.metrics}.items())
        for run in runs
    ]
    if max((len(points) for points in measured), default=0) > 1:
        return [[(float(x), y) for x, y in points] for points in measured], "by the ADM protocol, without CFG"
    networks = {str(found["network"]) for run in runs for found in run.watched if found.get("network")}
    if len(networks) > 1:
        raise ValueError(f"gFID was measured in the features of {', '.join(sorted(networks))}: they do not compare.")
    return [run.curve("gfid", watched=True) for run in runs], f"during training, in {''.join(networks) or 'features'}"


def unguided(run: Run) -> list[Result]:
    return [result for result in run.of("adm") if result.cfg_scale == 1]


def _converging(
    axes: Axes, runs: Sequence[Run], curves: Sequence[Curve], kind: str, against: str | None, letter: str
) -> str:
    kept = [(run, curve) for run, curve in zip(runs, curves, strict=True) if curve]
    base = baseline([run for run, _ in kept], against)
    drawn = [(i, run, curve) for i, (run, curve) in enumerate(kept)]
    _, base_run, base_curve = drawn[base]
    captions = [f"gFID {kind}."]
    low = min(y for *_, curve in drawn for _, y in curve)
    top = max(curve[0][1] for *_, curve in drawn if curve[-1][1] <= FAR * low)
    beyond = [(i, run, curve) for i, run, curve in drawn if curve[-1][1] > FAR * low]
    top = min(top, FAR * base_curve[-1][1]) * 1.05
    axes.set_ylim(max(0.0, low - 0.12 * (top - low)), top)
    last = max(curve[-1][0] for *_, curve in drawn)
    steps(axes, last)
    for i, run, curve in drawn:
        plot(axes, curve, run.name, marked(i, len(curve)))
        if run is not base_run:
            found = reached(curve, base_curve)
            captions.append(said(run.name, found, base_run.name, "gFID"))
            if found and found.crossed and found.factor >= 1.05:
                arrow(axes, found, base_curve[-1][0], line(i)["color"])
    if len(drawn) > 1:
        axes.axhline(base_curve[-1][1], color=COLOURS[drawn[base][0] % len(COLOURS)], lw=0.7, ls=(0, (2, 2)))
    for row, (i, run, curve) in enumerate(beyond):
        x, y = curve[-1]
        note = f"{run.name}: {y:.3g} at step {x:,.0f}"
        where = 0.98, 0.97 - 0.09 * row
        axes.text(*where, note, transform=axes.transAxes, ha="right", va="top", color=line(i)["color"], fontsize=6.5)
        captions.append(f"{run.name} ends at {y:.4g}, beyond the frame.")
    axes.set_ylabel("gFID")
    title(axes, letter, "gFID against training steps", -1)
    return " ".join(captions)


# ------------------------------------------------------------------------------------------------------------ sizes


def of_sizes(runs: Sequence[Run]) -> dict[str, dict[int, list[float | None]]]:
    """Method -> parameters -> gFID without and with guidance, of each run's latest step that has any.

    A method is a run's name without its size: gear-l and gear-xl are the method gear.
    """
    found: dict[str, dict[int, list[float | None]]] = {}
    for run in runs:
        scored = [result for result in run.of("adm") if "gfid" in result.metrics and result.params]
        last = [result for result in scored if (result.steps or 0) == max((r.steps or 0) for r in scored)]
        plain = next((r.metrics["gfid"] for r in last if r.cfg_scale == 1), None)
        guided = sorted((r for r in last if r.cfg_scale != 1), key=lambda r: abs(r.cfg_scale - GUIDED))
        if last and last[0].params:
            method = re.sub(r"[-_ ]{2,}", "-", SIZE.sub("", run.name)).strip("-_ ") or run.name
            found.setdefault(method, {})[last[0].params] = [plain, guided[0].metrics["gfid"] if guided else None]
    return found


def _sizes(axes: Axes, found: dict[str, dict[int, list[float | None]]], letter: str) -> str:
    sizes = sorted({params for by_size in found.values() for params in by_size})
    width, highest = 0.8 / (2 * len(found)), 0.0
    for m, by_size in enumerate(found.values()):
        colour = COLOURS[m % len(COLOURS)]
        for guided in (False, True):
            at = [(k, y) for k, p in enumerate(sizes) if (y := by_size.get(p, [None, None])[guided]) is not None]
            x = [k + (2 * m + guided - len(found) + 0.5) * width for k, _ in at]
            heights = [y for _, y in at]
            fill, hatch = ("white", HATCH) if guided else (colour, None)
            bars = axes.bar(x, heights, width * 0.92, edgecolor=colour, lw=0.8, facecolor=fill, hatch=hatch)
            axes.bar_label(bars, [f"{y:.1f}" if y >= 10 else f"{y:.2f}" for y in heights], fontsize=6, padding=1.5)
            highest = max(highest, *heights, 0.0)
    kinds = [Patch(facecolor=COLOURS[m % len(COLOURS)], label=method) for m, method in enumerate(found)]
    kinds += [Patch(facecolor=QUIET, label="without CFG")]
    kinds += [Patch(facecolor="white", edgecolor=QUIET, hatch=HATCH, label="with CFG")]
    axes.legend(handles=kinds, loc="upper right", ncols=2, handlelength=1.4, columnspacing=1.2)
    axes.set_ylim(0, highest * (1.12 + 0.13 * -(-len(kinds) // 2)))
    axes.set_xticks(range(len(sizes)), [f"{p / 1e6:.0f}M" if p >= 1e6 else f"{p:,}" for p in sizes])
    axes.set_xlim(-0.5, max(0.5, len(sizes) - 0.5))
    axes.set_xlabel("parameters of the generator")
    axes.set_ylabel("gFID")
    axes.grid(axis="x", visible=False)
    title(axes, letter, "gFID over model sizes", -1)
    return "gFID by the ADM protocol over model sizes: solid without, hatched with classifier-free guidance."
