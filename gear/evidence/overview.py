"""The Markdown of what is not of one claim: the arms announced beside those reported, seconds a step, what all cost."""

from collections.abc import Mapping
from typing import Any

from gear.evidence.arms import ARMS, Arm, announced, arms, asked
from gear.evidence.pace import stored
from gear.evidence.quantities import Results, stopped
from gear.evidence.scales import Scale
from gear.evidence.statistics import CONFIDENCE
from gear.evidence.tables import NONE, bullets, called, differences, table


def listed(scale: Scale, results: Results) -> str:
    """Arms that were announced or have a result, with which seeds either is."""
    wanted = [(arm.name, seed) for arm in ARMS for seed in scale.seeds if announced(scale, arm, seed)]
    named = {name for name, _ in [*wanted, *results]}
    rows = [_arm(arm, scale, results) for arm in ARMS if arm.name in named]
    there = sum(each in results for each in wanted)
    head = ["arm", "what it is", "begins with", "claims", "steps", "seeds", "reported", "further"]
    total = f"{len({name for name, _ in wanted})} arms: {there} of {len(wanted)} results are there."
    short = [f"`{arm}` of seed {seed}" for (arm, seed), result in results.items() if stopped(result)]
    told = f" Stopped before their end, with losses that were not finite: {', '.join(short)}." if short else ""
    return f"{table(head, rows, words=4)}\n\n{total}{told}"


def _arm(arm: Arm, scale: Scale, results: Results) -> list[str]:
    wanted = [seed for seed in scale.seeds if announced(scale, arm, seed)]
    there = sorted(seed for name, seed in results if name == arm.name)
    done, more = [seed for seed in there if seed in wanted], [seed for seed in there if seed not in wanted]
    seeds = [", ".join(map(str, each)) or NONE for each in (wanted, done, more)]
    numbers = {claim for seed in scale.seeds for claim in asked(scale, arm, seed)} - {0}
    claims = ", ".join(map(str, sorted(numbers))) or NONE
    start = NONE if arm.start is None else f"`{arm.start}`"
    return [f"`{arm.name}`", arm.what, start, claims, f"{arm.make(scale).steps:,}", *seeds]


def pace(found: Mapping[str, Any] | None, scale: Scale) -> str:
    """found: what pace.json has; None: there is none yet."""
    command = f"`{called(scale, ' pace')}`"
    if found is None:
        return f"Not measured yet: {command}."
    unit = stored("repa")
    least = found["seconds"][unit]["median"]
    rows = [
        [name, *(f"{taken[key]:.4g}" for key in ("median", "least", "largest")), f"{taken['median'] / least:.2f}"]
        for name, taken in found["seconds"].items()
    ]
    head = ["a step of", "median, s", "least, s", "largest, s", f"times {unit}"]
    about = f"{found['rounds']} rounds in turns, every image new, batch {found['batch']}, {found['hardware']}."
    return f"{table(head, rows)}\n\n{about} Made by {command}."


def cost(scale: Scale, results: Results) -> str:
    """Hours, hardware, versions and dates of all results together, and how many differences the tables show."""
    if not results:
        return f"Nothing has run yet: `{called(scale)}`."

    def told(key: str) -> str:
        return "; ".join(sorted({result.about[key] for result in results.values()}))

    def machines() -> str:
        seeds: dict[str, set[int]] = {}
        for (_, seed), result in results.items():
            seeds.setdefault(result.about["hardware"], set()).add(seed)
        return "; ".join(f"{name} (seeds {', '.join(map(str, sorted(of)))})" for name, of in sorted(seeds.items()))

    def hours(key: str) -> str:
        return f"{sum(result.seconds[key] for result in results.values()) / 3600:.1f}"

    known = arms()
    beside = sum(not announced(scale, known[name], seed) for name, seed in results)
    further = f", of which {beside} in no table of a claim" if beside else ""
    dates = sorted({result.about["date"] for result in results.values()})
    spans = [
        (found.low, found.high)
        for found in differences(scale, results)
        if found.low is not None and found.high is not None
    ]
    clear = sum(low > 0 or high < 0 for low, high in spans)
    return bullets(
        f"Results: {len(results)}{further}. Hours of training: {hours('train')}; of measuring: {hours('measure')}.",
        f"Hardware: {machines()}.",
        f"Versions: {told('versions')}.",
        f"Dates: {' to '.join(dict.fromkeys((dates[0], dates[-1])))}.",
        f"Commits: trained at {told('commit')}; measured at {told('measured')}.",
        f"Differences with an interval in the tables of the claims: {len(spans)}, of which {clear} exclude zero. Were "
        f"no arm different from another, about {(1 - CONFIDENCE) * len(spans):.0f} would; they are not independent of "
        "each other, since many are of one arm, so that it may be several times as many.",
    )
