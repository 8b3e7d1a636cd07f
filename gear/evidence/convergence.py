"""Claim 1's other tables: when an arm is where another ends, in steps and in seconds, and what is reached in equal
time. All of the cheap distance, of which there is a curve while an arm trains."""

from collections.abc import Mapping
from itertools import pairwise

from gear.evidence.claims import CLAIMS, SIX
from gear.evidence.pace import stored
from gear.evidence.quantities import Results, at, stopped
from gear.evidence.results import Result
from gear.evidence.scales import Scale
from gear.evidence.statistics import reached
from gear.evidence.tables import NONE, NOT_RUN, bullets, difference, fixed, made_by, spread, table

Curve = list[tuple[float, float]]
Pace = Mapping[str, float]  # seconds a step, by the names of pace.json
LEVELS = ("repa", "llamagen")
ARMS = ("repa", "gear", "control", "repa-on-gear", "repa-on-control")  # repa itself may be there before its end
DIGITS = 1  # of a distance


def curve(result: Result) -> Curve:
    """(step, cheap gFID) while it trained."""
    return [(float(point["step"]), point["gfid"]) for point in result.curve if point.get("gfid") is not None]


def seconds_a_step(result: Result, pace: Pace) -> float | None:
    """An arm on a frozen tokenizer trains on stored tokens, as LlamaGen does."""
    if not _frozen(result):
        return pace.get(result.arm)
    return pace.get(stored("llamagen" if at(result.config, "stage", "lam") == 0 else "repa"))


def _frozen(result: Result) -> bool:
    return at(result.config, "stage", "kind") == "Frozen"


def behind(results: Results, result: Result, pace: Pace) -> float | None:
    """Seconds of the joint run that made its tokenizer; 0 where there was none beside the warm-up, which all share."""
    made = None if result.start is None else results.get((result.start, result.seed))
    if made is None or made.start is None:
        return 0.0
    each = seconds_a_step(made, pace)
    return None if each is None else each * made.config["steps"]


def tables(scale: Scale, results: Results, pace: Pace) -> str:
    rows = [_reaching(arm, level, results, pace) for level in LEVELS for arm in ARMS]
    head = ["arm", "reaches the end of", "at step, seed by seed", "times fewer steps", "times fewer seconds"]
    equal = [_ends(results), *(_in_time(arm, results, pace) for arm in ("gear", "control"))]
    return "\n\n".join(
        [
            "**Where another arm ends.**",
            table([*head, "with the joint run behind it", "never"], rows, words=3),
            bullets(
                f"Of the cheap gFID, which has a point every {scale.curve} steps and a straight line between two. "
                "≤: it is there at its first point, so the factor is at least so large.",
                "Factors: mean ± standard deviation over the seeds that reach it; the others count as never.",
                "Seconds: steps x seconds a step of `gear evidence pace`; of an arm on a frozen tokenizer those on "
                "stored tokens.",
                made_by(SIX, 1, scale),
            ),
            "**In equal time.**",
            table(["arm", "at step", "cheap gFID", "difference to `repa`"], equal),
            bullets(
                "Cheap gFID after the seconds that `repa` takes for all its steps on stored tokens; none where "
                "the first point comes later.",
                made_by(("repa", "gear", "control"), 1, scale),
            ),
        ]
    )


def _reaching(arm: str, level: str, results: Results, pace: Pace) -> list[str]:
    both = _pairs(arm, level, results)
    if not both:
        return [f"`{arm}`", f"`{level}`", NOT_RUN, "", "", "", ""]
    steps, fewer, sooner, in_all, never = [], [], [], [], 0
    for one, other in both:
        points, (last, end) = curve(one), curve(other)[-1]
        step = reached(points, end)
        if step is None:
            steps.append("never")
            never += 1
            continue
        steps.append(("≤ " if step == points[0][0] else "") + fixed(step, 0))
        fewer.append(last / step)
        each, others, before = seconds_a_step(one, pace), seconds_a_step(other, pace), behind(results, one, pace)
        if each is not None and others is not None and before is not None:
            sooner.append(last * others / (step * each))
            in_all.append(last * others / (step * each + before))
    factors = (spread(values, 2) for values in (fewer, sooner, in_all))
    return [f"`{arm}`", f"`{level}`", ", ".join(steps), *factors, f"{never} of {len(both)}"]


def _pairs(arm: str, other: str, results: Results) -> list[tuple[Result, Result]]:
    """Of the seeds in which both have a curve, and the other's has an end."""
    return [(one, two) for one, two in ended(arm, other, results) if curve(one) and curve(two)]


def ended(arm: str, other: str, results: Results) -> list[tuple[Result, Result]]:
    """Both arms of a seed, by seed, where the other was not stopped: where it ends is then a level to reach."""
    seeds = sorted(seed for name, seed in results if name == arm and (other, seed) in results)
    both = [(results[arm, seed], results[other, seed]) for seed in seeds]
    return [(one, two) for one, two in both if not stopped(two)]


def _ends(results: Results) -> list[str]:
    ends = [points[-1] for one, _ in _pairs("repa", "repa", results) if (points := curve(one))]
    if not ends:
        return ["`repa`", NOT_RUN, "", ""]
    return ["`repa`", spread([step for step, _ in ends], 0), spread([value for _, value in ends], DIGITS), ""]


def _in_time(arm: str, results: Results, pace: Pace) -> list[str]:
    both = _pairs(arm, "repa", results)
    if not both:
        return [f"`{arm}`", NOT_RUN, "", ""]
    each, stored = seconds_a_step(both[0][0], pace), seconds_a_step(both[0][1], pace)
    if each is None or stored is None:
        return [f"`{arm}`", NONE, NONE, NONE]
    steps, there, ends = [], {}, {}
    for one, repa in both:
        last, end = curve(repa)[-1]
        steps.append(last * stored / each)
        value = height(curve(one), steps[-1])
        if value is not None:
            there[one.seed], ends[one.seed] = value, end
    return [f"`{arm}`", spread(steps, 0), spread([*there.values()], DIGITS), difference(there, ends, DIGITS)]


def height(points: Curve, x: float) -> float | None:
    """Of a curve at x, between two points along a straight line; None before the first and after the last."""
    for (x0, y0), (x1, y1) in pairwise(points):
        if x0 <= x <= x1:
            return y0 + (y1 - y0) * (x - x0) / (x1 - x0)
    return points[0][1] if points and points[0][0] == x else None


TRAINED = (("align_hard", "alignment loss"), ("ntp", "next-token loss, over its own tokens"))


def training(scale: Scale, results: Results) -> str:
    """Claim 7's other table: when a loss in training is where that of another arm ends (Figure 3)."""
    (part,) = CLAIMS[7]
    rows = [_trained(key, name, *pair, results) for key, name in TRAINED for pair in part.pairs]
    head = ["loss in training", "arm", "reaches the end of", "at step, seed by seed", "times fewer steps", "never"]
    said = f"Each point is the mean of the {scale.base.log_every} steps of a log line, a straight line between two."
    notes = bullets(said, made_by(part.arms, 7, scale))
    return f"**Where another arm ends.**\n\n{table(head, rows, words=4)}\n\n{notes}"


def _trained(key: str, name: str, arm: str, level: str, results: Results) -> list[str]:
    curves = [(logged(one, key), logged(other, key)) for one, other in ended(arm, level, results)]
    curves = [(one, other) for one, other in curves if one and other]
    if not curves:
        return [name, f"`{arm}`", f"`{level}`", NOT_RUN, "", ""]
    steps = [(reached(one, other[-1][1]), other[-1][0]) for one, other in curves]
    told = ", ".join("never" if step is None else fixed(step, 0) for step, _ in steps)
    factors = [last / step for step, last in steps if step is not None]
    never = sum(step is None for step, _ in steps)
    return [name, f"`{arm}`", f"`{level}`", told, spread(factors, 2), f"{never} of {len(curves)}"]


def logged(result: Result, key: str) -> Curve:
    return [(float(line["step"]), line[key]) for line in result.log if line.get(key) is not None]
