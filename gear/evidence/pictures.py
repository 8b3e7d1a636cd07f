"""The figures of RESULTS.md, as SVG. What is a mean over seeds has a band from the least to the largest; what is not
shows every seed."""

import io
from collections.abc import Callable, Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from gear.evidence.claims import SIX
from gear.evidence.convergence import Curve, Pace, curve, seconds_a_step
from gear.evidence.quantities import CHEAP_GFID, CHEAP_RFID, Quantity, Results, at, of_seeds, tap, usage
from gear.evidence.results import Result
from gear.evidence.scales import Scale
from gear.figures.paper.style import MARKERS, QUIET, RULE, TEXT, Drawing, legend, line, marked, panels, steps, title

USED = ("gear", "control", "ste", "naive", "gear-lfq", "gear-ibq")
COLLAPSED = "naive"
KNOBS: Mapping[str, Callable[[Result], float]] = {  # what of GEAR is varied, by how the arms that vary it begin
    "tau": lambda result: at(result.config, "stage", "tau"),
    "lambda": lambda result: at(result.config, "stage", "lam"),
    "tap": tap,
}
BAND = 0.18  # opacity, so that three of them do not hide a line


def drawings(scale: Scale, results: Results, pace: Pace) -> dict[int, Drawing]:
    """By claim, of those for which something has run; to be called within `gear.figures.paper.style.look`."""
    one, four, six = (of_seeds(results, scale.seeds_of(claim)) for claim in (1, 4, 6))
    made = {1: convergence(one, pace), 4: knobs(four), 6: used(scale, six)}
    return {claim: drawing for claim, drawing in made.items() if drawing is not None}


def convergence(results: Results, pace: Pace) -> Drawing | None:
    """The cheap distance of claim 1's arms while they train, against steps and against seconds."""
    curves = _curves(results, SIX, curve)
    if not any(curves.values()):
        return None
    figure, (left, right) = panels(1, 2, TEXT, 2.7)
    for i, (arm, seeds) in enumerate(curves.items()):
        _band(left, i, arm, seeds)
        each = next((seconds_a_step(r, pace) for (name, _), r in results.items() if name == arm), None)
        if each is not None:
            _band(right, i, arm, [[(step * each, y) for step, y in points] for points in seeds])
    _step_axis(left, curves)
    right.set_xscale("log")  # frozen arms are several times as fast, and a factor is a distance
    right.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    right.xaxis.set_minor_locator(NullLocator())
    right.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    right.set_xlabel("seconds of the run itself")
    left.set_ylabel("cheap gFID")
    title(left, "a", "against steps", -1)
    title(right, "b", "against seconds", -1)
    legend(figure, [left])
    caption = (
        "Cheap gFID while training, mean over seeds, the band from the least to the largest. Seconds are steps x "
        "seconds a step, on a frozen tokenizer of stored tokens; those behind the tokenizer are not in them."
    )
    return Drawing("convergence", figure, caption)


def knobs(results: Results) -> Drawing | None:
    """The cheap distances against temperature, coefficient and tap, a line for each seed."""
    if not any(arm.startswith(tuple(f"gear-{knob}-" for knob in KNOBS)) for arm, _ in results):
        return None
    quantities = (CHEAP_GFID, CHEAP_RFID)
    figure, axes = panels(len(quantities), len(KNOBS), TEXT, 3.6)
    places = [(quantity, knob) for quantity in quantities for knob in KNOBS]
    for letter, ax, (quantity, knob) in zip("abcdef", axes, places, strict=True):
        _knob(ax, quantity, knob, results)
        title(ax, letter, f"{quantity.name} against {knob}", -1)
    legend(figure, axes)
    return Drawing("knobs", figure, "GEAR with one thing changed, each seed a mark; GEAR's own value is dotted.")


def _knob(ax: Axes, quantity: Quantity, knob: str, results: Results) -> None:
    names = sorted({arm for arm, _ in results if arm == "gear" or arm.startswith(f"gear-{knob}-")})
    at_value: dict[float, dict[int, float]] = {}
    for name in names:
        value = next(KNOBS[knob](result) for (arm, _), result in results.items() if arm == name)
        at_value[value] = {seed: found.number for seed, found in quantity.values(results, name).items()}
    values = sorted(at_value)
    for i, seed in enumerate(sorted({seed for found in at_value.values() for seed in found})):
        points = [(x, at_value[value][seed]) for x, value in enumerate(values) if seed in at_value[value]]
        look = line(i) | {"marker": MARKERS[i % len(MARKERS)], "linewidth": 0.8, "label": f"seed {seed}"}
        ax.plot([x for x, _ in points], [y for _, y in points], **look)
    ax.set_xticks(range(len(values)), [f"{value:g}" for value in values])
    ax.set_xlim(-0.4, len(values) - 0.6)
    ax.grid(axis="x", visible=False)
    own = next((KNOBS[knob](result) for (arm, _), result in results.items() if arm == "gear"), None)
    if own is not None:
        ax.axvline(values.index(own), color=QUIET, linewidth=0.7, linestyle=":", zorder=0)


def used(scale: Scale, results: Results) -> Drawing | None:
    """The effective size of the codebook while arms of claim 6 train."""
    curves = _curves(results, USED, lambda result: [(float(step), size) for step, size in usage(result)])
    if not any(curves.values()):
        return None
    figure, (whole, near) = panels(1, 2, TEXT, 2.7)
    for i, (arm, seeds) in enumerate(curves.items()):
        _band(whole, i, arm, seeds)
        if arm != COLLAPSED:
            _band(near, i, arm, seeds)
    size = scale.base.tokenizer.quantizer.codebook_size
    for ax in (whole, near):
        _step_axis(ax, curves)
        ax.axhline(size, color=RULE, linewidth=1.2, zorder=0)
    whole.set_ylim(0, size * 1.05)
    whole.set_ylabel("effective size")
    title(whole, "a", f"of the codebook of {size}")
    title(near, "b", f"without {COLLAPSED}, nearer")
    legend(figure, [whole])
    caption = (
        "Effective size of the codebook, of codes in training, mean over seeds, the band from the least to the largest."
    )
    return Drawing("usage", figure, caption)


def _curves(results: Results, names: Sequence[str], of: Callable[[Result], Curve]) -> dict[str, list[Curve]]:
    """Of each arm those of its seeds that have points."""
    every = [(arm, of(results[arm, seed])) for arm, seed in sorted(results)]
    return {name: [points for arm, points in every if arm == name and points] for name in names}


def _band(ax: Axes, index: int, label: str, curves: Sequence[Curve]) -> None:
    """The mean at each x that all seeds have, and from the least to the largest."""
    if not curves:
        return
    seeds = [dict(points) for points in curves]
    shared = sorted(set.intersection(*(set(points) for points in seeds)))
    values = [[points[x] for points in seeds] for x in shared]
    look = marked(index, len(shared))
    ax.plot(shared, [sum(y) / len(y) for y in values], label=label, **look)
    if len(seeds) > 1:
        low, high = [min(y) for y in values], [max(y) for y in values]
        ax.fill_between(shared, low, high, color=look["color"], alpha=BAND, linewidth=0)


def _step_axis(ax: Axes, curves: Mapping[str, Sequence[Curve]]) -> None:
    steps(ax, max(points[-1][0] for seeds in curves.values() for points in seeds))


def svg(figure: Figure) -> bytes:
    """The same each time."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()
