"""Figure 1: (a) gFID against training steps with the speed-up; (b) gFID over model sizes, without and with guidance.

Two kinds of gFID are never in one frame, as their features differ: by the ADM protocol (Inception; results.json), or
as watched while training (EfficientNet; evaluations.jsonl). The first is drawn where some run has two steps of it.
"""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes

from gear.figures.paper import sizes
from gear.figures.paper.comparable import comparable, left_out
from gear.figures.paper.found import NothingToDraw, Run
from gear.figures.paper.labels import LONG, in_full, labels
from gear.figures.paper.result import mapping
from gear.figures.paper.speed import Curve, baseline, ended, reached, said
from gear.figures.paper.style import (
    COLOURS,
    COLUMN,
    FAR,
    TEXT,
    Drawing,
    arrow,
    beyond,
    legend,
    line,
    marked,
    near,
    panels,
    plot,
    steps,
    title,
)
from gear.train import lines


def draw(runs: Sequence[Run], against: str | None = None) -> Drawing:
    """Raises `NothingToDraw` where no run has a gFID at a step."""
    curves, kind, apart = of_steps(runs)
    bars, of, others = sizes.of_sizes(runs)
    if not any(curves) and not bars:
        raise NothingToDraw(" ".join(run.lacks("watched", "gFID during training") for run in runs))
    both = any(curves) and bool(bars)
    names = labels(runs, 28 if both else LONG)
    figure, axes = panels(1, 2 if both else 1, TEXT if both else COLUMN, 2.5)
    captions, lacking = [], left_out(apart, " of (a)" if both else "")
    if any(curves):
        captions.append(_converging(axes[0], runs, names, curves, kind, against, "a" if both else ""))
        bare = [run for run, curve in zip(runs, curves, strict=True) if not curve and (run.log or not run.results)]
        lacking += [run.lacks("watched", f"gFID {kind}") for run in bare if not any(run.name in text for text in apart)]
        legend(figure, axes[:1])
    if bars:
        captions.append(sizes.draw(figure, axes[-1], runs, names, bars, of, "b" if both else ""))
        lacking += left_out(others, " of (b)" if both else "")
    else:
        lacking += [run.lacks("adm", "gFID by the ADM protocol, which panel (b) shows") for run in runs]
    captions.append(in_full(names))
    return Drawing("figure1", figure, " ".join(c for c in captions if c), tuple(dict.fromkeys(lacking)))


def of_steps(runs: Sequence[Run]) -> tuple[list[Curve], str, list[str]]:
    """gFID against steps of each run, perhaps empty, which kind it is, and what is of another n, reference or network
    than most."""
    pairs = [(run, r) for run in runs for r in run.generated if r.cfg_scale == 1 and r.steps and "gfid" in r.metrics]
    kept, left = comparable(pairs)
    measured = [{float(r.steps or 0): r.metrics["gfid"] for owner, r in kept[::-1] if owner is run} for run in runs]
    if max((len(points) for points in measured), default=0) > 1:
        return (
            [sorted(points.items()) for points in measured],
            f"by the ADM protocol, without CFG, {kept[0][1].of}",
            left,
        )
    return _watched(runs)


def _watched(runs: Sequence[Run]) -> tuple[list[Curve], str, list[str]]:
    """`of_steps` of what was measured while training, against the run's own images."""
    groups: dict[tuple[str, ...], dict[str, Curve]] = {}
    told: dict[tuple[str, ...], str] = {}
    exact = all(run.data.get("files") for run in runs if run.watched)
    for run in runs:
        path = mapping(run.config.get("data")).get("path")
        for found in run.watched:
            n, network = lines.whole_number(found.get("n")), str(found.get("network") or "unknown features")
            basis = network, str(n), str(run.data.get("files") if exact else path)
            groups.setdefault(basis, {}).setdefault(
                run.name, run.curve("gfid", watched=True, n=found.get("n"), network=found.get("network"))
            )
            told[basis] = network + (f", n = {n:,}" if n else "") + (f" against {path}" if path else "")
    drawn = {basis: curves for basis, curves in groups.items() if any(curves.values())}
    if not drawn:
        return [[] for _ in runs], "during training", []
    most = max(drawn, key=lambda b: (len(drawn[b]), sum(map(len, drawn[b].values()))))
    left = [f"{name} ({told[b]})" for b, curves in drawn.items() if b != most for name, c in curves.items() if c]
    return [drawn[most].get(run.name, []) for run in runs], f"during training, in {told[most]}", left


def _converging(
    axes: Axes,
    runs: Sequence[Run],
    names: Mapping[str, str],
    curves: Sequence[Curve],
    kind: str,
    against: str | None,
    letter: str,
) -> str:
    drawn = [(i, run, curve) for i, (run, curve) in enumerate(zip(runs, curves, strict=True)) if curve]
    base = baseline([run for _, run, _ in drawn], against)
    _, base_run, base_curve = drawn[base]
    captions = [f"({letter}) gFID {kind}." if letter else f"gFID {kind}."]
    low = min(y for *_, curve in drawn for _, y in curve)
    shown = near([min(y for _, y in curve) for *_, curve in drawn])
    top = max(curve[0][1] for (*_, curve), inside in zip(drawn, shown, strict=True) if inside)
    far = [part for part, inside in zip(drawn, shown, strict=True) if not inside]
    top = min(top, FAR * base_curve[-1][1]) * 1.05 if base_curve[-1][1] <= FAR * low else top * 1.05
    axes.set_ylim(max(0.0, low - 0.12 * (top - low)), top)
    last = max(curve[-1][0] for *_, curve in drawn)
    steps(axes, last)
    for i, run, curve in drawn:
        plot(axes, curve, names[run.name], marked(i, len(curve)))
        if run is not base_run:
            found = reached(curve, base_curve)
            captions.append(said(names[run.name], found, names[base_run.name], ended(base_run, base_curve, "gFID")))
            if found and found.crossed and found.factor >= 1.05:
                arrow(axes, found, base_curve[-1][0], line(i)["color"])
    if len(drawn) > 1:
        axes.axhline(base_curve[-1][1], color=COLOURS[drawn[base][0] % len(COLOURS)], lw=0.7, ls=(0, (2, 2)))
    beyond(axes, [(f"{names[run.name]}: {_at(curve)}", line(i)["color"]) for i, run, curve in far])
    captions += [f"{names[run.name]}, at {_at(curve)}, is beyond the frame." for _, run, curve in far]
    axes.set_ylabel("gFID")
    title(axes, letter, "gFID against training steps", -1)
    return " ".join(captions)


def _at(curve: Curve) -> str:
    return f"{curve[-1][1]:.4g} at step {curve[-1][0]:,.0f}"
