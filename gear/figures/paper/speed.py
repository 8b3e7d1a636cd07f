"""How much sooner one run gets to where another ends: smoothing, and the factor that Figures 1 and 3 write."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from gear.figures.paper.found import Run

Curve = Sequence[tuple[float, float]]
WINDOW = 0.02  # of the longest run's steps: what is smoothed over, to either side


@dataclass(frozen=True)
class Reached:
    """level: where the baseline ends. step: at which the other run first is there. factor: how many times fewer.
    crossed: whether it came from above; a run that begins below is no faster for it, its loss is another."""

    level: float
    step: float
    factor: float
    crossed: bool


def smoothed(curve: Curve, window: float) -> list[tuple[float, float]]:
    """At each step the height of the straight line that fits best all points within `window` steps before and after it.

    Inside a curve that is their mean; unlike a mean that looks back alone, it does not lag behind a falling loss, and
    so does not move the step at which a level is reached; at the ends it does not bend. Fewer than three points, or
    window 0: unchanged.
    """
    if window <= 0 or len(curve) < 3:
        return list(curve)
    x, y = (np.array(part, dtype=np.float64) for part in zip(*curve, strict=True))
    low, high = np.searchsorted(x, x - window, "left"), np.searchsorted(x, x + window, "right")
    u = (x - x[0]) / (x[-1] - x[0])

    def within(values: Float64[np.ndarray, "n"]) -> Float64[np.ndarray, "n"]:
        total = np.concatenate([[0.0], np.cumsum(values)])
        return (total[high] - total[low]) / (high - low)

    mean_u, mean_y = within(u), within(y)
    spread, slope = within(u * u) - mean_u**2, within(u * y) - mean_u * mean_y
    fit = mean_y + (u - mean_u) * slope / np.where(spread > 0, spread, 1.0)
    kept = np.where(high - low > 2, fit, y)
    return list(zip(x.tolist(), kept.tolist(), strict=True))


def reached(curve: Curve, baseline: Curve) -> Reached | None:
    """Where `curve` first is as low as the last point of `baseline`, between points by a straight line; None if never.

    The factor is the baseline's last step over that step.
    """
    if not curve or not baseline:
        return None
    last, level = baseline[-1]
    before: tuple[float, float] | None = None
    for step, value in curve:
        if value <= level:
            if before is not None and before[1] > value:
                step = before[0] + (step - before[0]) * (before[1] - level) / (before[1] - value)
            return Reached(level, step, last / step, before is not None) if step > 0 else None
        before = step, value
    return None


def baseline(runs: Sequence[Run], named: str | None = None) -> int:
    """The index of the run that others are compared with: the one of that name, where it is among them, else the first
    on a frozen tokenizer, one that GEAR did not make before others, then an aligned one (LlamaGen-REPA), else the
    first."""
    names = [run.name for run in runs]
    if named in names:
        return names.index(named)
    frozen = [i for i, run in enumerate(runs) if run.stage == "frozen"]
    return min(frozen, key=lambda i: (runs[i].guided, not runs[i].aligned), default=0)


def ended(run: Run, curve: Curve, what: str) -> str:
    """ "final gFID"; of a run in progress "gFID at step 500 of 1,000"."""
    last, before = curve[-1][0], curve[-2][0] if len(curve) > 1 else curve[-1][0]
    if run.steps is None or last >= run.steps or last + (last - before) > run.steps:
        return f"final {what}"
    return f"{what} at step {last:,.0f} of {run.steps:,}"


def said(name: str, found: Reached | None, base: str, what: str) -> str:
    """A sentence of the caption. what: as `ended` says it."""
    if found is None:
        return f"{name} does not reach {base}'s {what}."
    if not found.crossed:
        return f"{name} is below {base}'s {what}, {found.level:.4g}, from its first point on."
    return f"{name} reaches {base}'s {what}, {found.level:.4g}, at step {found.step:,.0f}: {found.factor:.1f}x."
