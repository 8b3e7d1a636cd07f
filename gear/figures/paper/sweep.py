"""`gear figure cfg`: each metric of a sweep against the scale of classifier-free guidance, the best point marked."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from gear.figures.paper.comparable import Pair, comparable, left_out
from gear.figures.paper.found import NothingToDraw, Run
from gear.figures.paper.labels import in_full, labels
from gear.figures.paper.metrics import NAMES, called, direction
from gear.figures.paper.result import Result
from gear.figures.paper.speed import Curve
from gear.figures.paper.style import (
    COLUMN,
    TEXT,
    Drawing,
    beyond,
    legend,
    line,
    marked,
    near,
    panels,
    plot,
    settled,
    title,
)

SAMPLED = ("temperature", "top_k", "top_p", "cfg_interval", "classes", "precision", "negative", "seed")


def draw(runs: Sequence[Run]) -> Drawing:
    """Raises `NothingToDraw` where no run has a sweep."""
    pairs = [(run, result) for run in runs for result in swept(run)]
    kinds = list(dict.fromkeys(kind(result) for _, result in pairs))
    kept, apart, drawn_otherwise = list[Pair](), list[str](), list[str]()
    for one in kinds:
        some, others = comparable([pair for pair in pairs if kind(pair[1]) == one])
        some, otherwise = alike(some)
        kept, apart, drawn_otherwise = kept + some, apart + others, drawn_otherwise + otherwise
    lacking = [run.lacks("sweep", "sweep of the guidance scale") for run in runs if not swept(run)]
    if not kept:
        raise NothingToDraw(" ".join(dict.fromkeys(lacking)))
    lacking += left_out(apart)
    if named := ", ".join(dict.fromkeys(drawn_otherwise)):
        lacking.append(f"Left out, as the points of a curve are drawn alike but for the scale: {named}.")
    runs = [run for run in runs if any(owner is run for owner, _ in kept)]
    found = {run.name: scales(run, kept) for run in runs}
    there = [name for curves in found.values() for name in curves]
    whole = [(one, name) for one in kinds for name in (*NAMES, *(name for _, name in there))]
    metrics = [panel for panel in dict.fromkeys(whole) if panel in there]
    if len(kinds) > 1:  # the parts of each benchmark would be too many
        metrics = [panel for panel in metrics if not panel[0] or panel[1] == "overall"] or metrics
    names = labels(runs)
    columns = min(3, len(metrics))
    rows = -(-len(metrics) // columns)
    figure, axes = panels(rows, columns, COLUMN if columns == 1 else TEXT, 0.45 + 1.75 * rows)
    of = dict.fromkeys(f"{kind(result)}: {result.of}" if kind(result) else result.of for _, result in kept)
    captions = [f"By scale, {'; '.join(of)}. Star: the best scale."]
    for k, (ax, (one, name)) in enumerate(zip(axes, metrics, strict=False)):
        shown = f"{one}, {called(name).lower()}" if one else called(name)
        curves = {run: curves.get((one, name), []) for run, curves in found.items()}
        captions += _panel(ax, shown, direction(name), curves, names)
        title(ax, "abcdefghijklmnopqrstuvwxyz"[k] if len(metrics) > 1 else "", shown, direction(name))
    spare = axes[len(metrics) :]
    legend(figure, axes[: len(metrics)], spare=spare[-1] if spare else None)
    for ax in spare[:-1]:
        ax.set_axis_off()
    captions.append(in_full(names))
    return Drawing("figure_cfg", figure, " ".join(c for c in captions if c), (*lacking, *interrupted(runs)))


def _panel(axes: Axes, name: str, sign: int, found: Mapping[str, Curve], names: Mapping[str, str]) -> list[str]:
    """Draws the curve of each run, and says where it is best; what is far above the best run is left beyond the frame,
    where small values are better."""
    captions, notes = [], []
    drawn = [(i, run, curve) for i, (run, curve) in enumerate(found.items()) if curve]
    inside = near([min(y for _, y in curve) for *_, curve in drawn]) if sign < 0 else [True] * len(drawn)
    for i, run, curve in drawn:
        plot(axes, curve, names[run], marked(i, len(curve)), markevery=1)
    settled(axes)
    shown = [y for (*_, curve), within in zip(drawn, inside, strict=True) if within for _, y in curve]
    room = 0.15 * (max(shown) - min(shown)) or 0.1 * abs(max(shown)) or 1.0
    low, top = min(shown) - room, max(shown) + room * (1 + inside.count(False))
    axes.set_ylim(max(0.0, low) if min(shown) >= 0 else low, top)
    for (i, run, curve), within in zip(drawn, inside, strict=True):
        x, y = max(curve, key=lambda point: (sign or 1) * point[1])
        if not within:
            notes.append((f"{names[run]}: {y:.3g} at {x:g}", line(i)["color"]))
            captions.append(f"{names[run]} is beyond the frame of {name}: at best {y:.4g}, at {x:g}.")
        elif sign and len(curve) > 1:
            look = {"marker": "*", "ms": 10, "mfc": line(i)["color"], "mec": "white", "mew": 0.8, "ls": ""}
            axes.plot(x, y, zorder=4, clip_on=False, **look)
            captions.append(f"{names[run]}: best {name} {y:.4g} at {x:g}.")
    beyond(axes, notes)
    axes.set_xlabel("CFG scale")
    if len({x for *_, curve in drawn for x, _ in curve}) == 1:
        axes.set_xlim(drawn[0][2][0][0] - 0.5, drawn[0][2][0][0] + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    return captions


def swept(run: Run) -> list[Result]:
    """The points of its sweep; without one, single evaluations at several scales. Those of the most steps alone."""
    points = [r for r in run.of("point") or run.of("adm") if r.cfg_scale is not None]
    last = max((r.steps or 0 for r in points), default=0)
    points = [r for r in points if (r.steps or 0) == last]
    several = len({r.cfg_scale for r in points}) > 1
    return points if several or (points and points[0].protocol == "point") else []


def alike(pairs: Sequence[Pair]) -> tuple[list[Pair], list[str]]:
    """Of each run the points that are drawn alike but for the scale, of which there are most; and what was left out, by
    what differs: "NAME (temperature 0.8)"."""
    groups: dict[str, dict[tuple[str, ...], list[Pair]]] = {}
    for run, result in pairs:
        how = tuple(f"{name} {value}" for name in SAMPLED if (value := result.setting(name)) not in (None, []))
        groups.setdefault(run.name, {}).setdefault(how, []).append((run, result))
    kept, left = list[Pair](), list[str]()
    for name, of in groups.items():
        most = max(of, key=lambda how: len({result.cfg_scale for _, result in of[how]}))
        kept += of[most]
        left += [f"{name} ({', '.join(x for x in how if x not in most) or 'as usual'})" for how in of if how != most]
    return kept, left


def kind(result: Result) -> str:
    """Which benchmark of texts a point is of; "" for the ADM protocol."""
    protocol, prompts = result.setting("protocol"), result.setting("prompt_set")
    name = {"geneval": "GenEval", "dpg": "DPG-Bench"}.get(str(protocol), "")
    return f"{name} ({prompts})" if name and prompts else name


def scales(run: Run, pairs: Sequence[Pair]) -> dict[tuple[str, str], Curve]:
    """`kind` and metric -> (scale, value) by scale, of what is a run's among the pairs."""
    curves: dict[tuple[str, str], dict[float, float]] = {}
    for owner, result in pairs:
        if owner is run and result.cfg_scale is not None:
            for name, value in result.metrics.items():
                curves.setdefault((kind(result), name), {})[result.cfg_scale] = value
    return {name: sorted(curve.items()) for name, curve in curves.items()}


def interrupted(runs: Sequence[Run]) -> list[str]:
    """A sentence for each sweep that has not come to its last scale."""
    said: dict[str, None] = {}
    for run in runs:
        for result in run.of("sweep"):
            if result.measured:
                done, planned = result.measured
                command = result.whole.get("command")
                how = f": `{command}`" if isinstance(command, str) else ""
                said[f"{run.name}: {done} of {planned} scales measured; the same command continues{how}."] = None
    return list(said)
