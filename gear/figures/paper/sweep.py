"""`gear figure cfg`: each metric of a sweep against the scale of classifier-free guidance, the best point marked."""

from collections.abc import Sequence

from matplotlib.ticker import MaxNLocator

from gear.figures.paper.found import NothingToDraw, Result, Run
from gear.figures.paper.style import COLUMN, TEXT, Drawing, legend, line, marked, panels, plot, title
from gear.train.lines import better

NAMES = {
    "gfid": "gFID", "sfid": "sFID", "inception_score": "Inception Score", "precision": "Precision", "recall": "Recall",
    "kid": "KID", "fdd": "FDD", "density": "Density", "coverage": "Coverage", "mmd": "MMD", "fid": "FID",
    "clip_score": "CLIP score", "overall": "Overall",
}  # fmt: skip
SIGN = dict.fromkeys(("density", "coverage", "clip_score", "overall"), 1) | {"fdd": -1, "mmd": -1, "kid": -1}


def draw(runs: Sequence[Run]) -> Drawing:
    """Raises `NothingToDraw` where no run has a sweep."""
    lacking = [run.lacks("sweep", "sweep of the guidance scale") for run in runs if not scales(run)]
    runs = [run for run in runs if scales(run)]
    found = [scales(run) for run in runs]
    metrics = [
        name for name in dict.fromkeys((*NAMES, *(m for r in found for m in r))) if any(name in r for r in found)
    ]
    if not metrics:
        raise NothingToDraw(" ".join(lacking))
    columns = min(3, len(metrics))
    rows = -(-len(metrics) // columns)
    figure, axes = panels(rows, columns, COLUMN if columns == 1 else TEXT, 0.45 + 1.75 * rows)
    captions = []
    for k, (ax, name) in enumerate(zip(axes, metrics, strict=False)):
        sign = direction(name)
        for i, (run, points) in enumerate(zip(runs, found, strict=True)):
            if not (curve := points.get(name, [])):
                continue
            plot(ax, curve, run.name, marked(i, len(curve)), markevery=1)
            if sign:
                x, y = max(curve, key=lambda point: sign * point[1])
                ax.plot(x, y, marker="*", ms=10, mfc=line(i)["color"], mec="white", mew=0.8, ls="", zorder=4)
                captions.append(f"{run.name}: best {NAMES.get(name, name)} {y:.4g} at {x:g}.")
        ax.set_xlabel("CFG scale")
        ax.margins(y=0.15)
        ax.xaxis.set_major_locator(MaxNLocator(5))
        ax.yaxis.set_major_locator(MaxNLocator(5))
        title(ax, "abcdefghijklmnopqrstuvwxyz"[k] if len(metrics) > 1 else "", NAMES.get(name, name), sign)
    spare = axes[len(metrics) :]
    legend(figure, axes[: len(metrics)], spare=spare[-1] if spare else None)
    for ax in spare[:-1]:
        ax.set_axis_off()
    return Drawing("figure_cfg", figure, " ".join(("Star: the best scale.", *captions)), tuple(lacking))


def scales(run: Run) -> dict[str, list[tuple[float, float]]]:
    """Metric -> (scale, value) by scale: of the sweep with the most steps; without a sweep, of single evaluations of
    one protocol at several scales."""
    points: Sequence[Result] = run.of("point")
    if not points:
        points = [r for r in run.of("adm") if r.steps == max((s.steps or 0) for s in run.of("adm"))]
        points = points if len({r.cfg_scale for r in points}) > 1 else []
    last = max((point.steps or 0 for point in points), default=0)
    curves: dict[str, dict[float, float]] = {}
    for point in points:
        for name, value in point.metrics.items():
            if (point.steps or 0) == last:
                curves.setdefault(name, {})[point.cfg_scale] = value
    return {name: sorted(curve.items()) for name, curve in curves.items()}


def direction(name: str) -> int:
    """1: the larger the better, -1: the smaller, 0: neither is known."""
    return SIGN.get(name) or better(name)
