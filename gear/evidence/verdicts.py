"""What each claim comes to, by the one difference that decides it: RESULTS.md's "What decides", on the results."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from string import ascii_lowercase

from gear.evidence.convergence import curve, ended, logged
from gear.evidence.quantities import (
    AT_END,
    CHEAP_GFID,
    CHEAP_RFID,
    GFID,
    LAST_TOKEN,
    PRE,
    TEXTS,
    USED_END,
    USED_LEAST,
    USED_LEAST_STEP,
    Quantity,
    Results,
    of_seeds,
)
from gear.evidence.results import Result
from gear.evidence.scales import Scale
from gear.evidence.statistics import Estimate, estimate, reached
from gear.evidence.tables import NONE, NOT_RUN, fixed, interval, table

HALF = 0.5  # of the codebook, below which its effective size is collapse


@dataclass(frozen=True)
class Decision:
    """
    claim: its number and what it says. by: what decides, for people. arms: whose results it needs. values: by seed.
    sign: -1 where the paper's finding makes them negative, 1 where positive.
    """

    claim: str
    by: str
    arms: tuple[str, ...]
    values: Callable[[Results], dict[int, float]]
    sign: int
    digits: int

    @property
    def number(self) -> int:
        """Of the claim, 4 of 4a."""
        return int(self.claim.split()[0].rstrip(ascii_lowercase))

    @property
    def expected(self) -> str:
        return "below 0" if self.sign < 0 else "above 0"

    def verdict(self, values: Mapping[int, float]) -> str:
        found = estimate(list(values.values()))
        if any(self.sign * value <= 0 for value in values.values()):
            return "does not show"
        bound = found.low if self.sign > 0 else found.high
        return "holds here" if bound is not None and self.sign * bound > 0 else "shows"


def less(claim: str, quantity: Quantity, arm: str, other: str, sign: int) -> Decision:
    """Of `arm` less `other`, seed by seed."""

    def values(results: Results) -> dict[int, float]:
        one, two = quantity.values(results, arm), quantity.values(results, other)
        return {seed: one[seed].number - two[seed].number for seed in sorted(one.keys() & two.keys())}

    return Decision(claim, f"{quantity.name}, `{arm}` - `{other}`", (arm, other), values, sign, quantity.digits)


def sooner(
    claim: str, read: Callable[[Result], list[tuple[float, float]]], what: str, arm: str, other: str
) -> Decision:
    """Steps from the last one of `other` to where `arm` reaches its end; 0 where it never does. A curve of one point
    does not say when."""

    def values(results: Results) -> dict[int, float]:
        both = {one.seed: (read(one), read(two)) for one, two in ended(arm, other, results)}
        ends = {seed: (points, end[-1]) for seed, (points, end) in both.items() if len(points) > 1 and end}
        return {seed: (reached(points, y) or last) - last for seed, (points, (last, y)) in ends.items()}

    by = f"step at which `{arm}` reaches `{other}`'s last {what}, less the last step"
    return Decision(claim, by, (arm, other), values, -1, 0)


def against(
    claim: str, quantity: Quantity, arm: str, words: str, level: Callable[[Result], float], sign: int
) -> Decision:
    """Of `quantity` less a level that is no other arm's."""

    def values(results: Results) -> dict[int, float]:
        found = quantity.values(results, arm)
        return {seed: value.number - level(results[arm, seed]) for seed, value in sorted(found.items())}

    return Decision(claim, f"{quantity.name}, `{arm}`, less {words}", (arm,), values, sign, quantity.digits)


def apart(one: Decision, two: Decision) -> Decision:
    """What a rule comes to on one arm, less what it comes to on another, seed by seed."""

    def values(results: Results) -> dict[int, float]:
        a, b = one.values(results), two.values(results)
        return {seed: a[seed] - b[seed] for seed in sorted(a.keys() & b.keys())}

    arms = tuple(dict.fromkeys(one.arms + two.arms))
    return Decision(two.claim, f"{one.by}; less the same of `{two.arms[0]}`", arms, values, one.sign, one.digits)


def _half(result: Result) -> float:
    quantizer = result.config["tokenizer"]["quantizer"]
    return HALF * (2 ** quantizer["bits"] if "bits" in quantizer else quantizer["codebook_size"])


def _last_step(result: Result) -> float:
    return float(result.log[-1]["step"])


def _alignment(result: Result) -> list[tuple[float, float]]:
    return logged(result, "align_hard")


_CKNNA = 1  # of the probes' quantities, the one by patch
_RANK = 2  # of the texts', the mean rank
_1C = (
    sooner("1c convergence, as the paper counts it", curve, "cheap gFID", "gear", "repa"),
    sooner("1c", curve, "cheap gFID", "repa-on-gear", "repa"),
)
_1C_UNGUIDED = tuple(sooner("1c", curve, "cheap gFID", arm, "repa") for arm in ("control", "repa-on-control"))
_7 = sooner("7 transfer", _alignment, "alignment loss", "text-on-gear", "text-on-control")
_7_UNGUIDED = sooner("7", _alignment, "alignment loss", "text-on-control", "text-on-control")
DECISIONS = (
    less("1a guidance helps the pair", GFID, "gear", "control", -1),
    less("1b the tokenizer helps a fresh generator", GFID, "repa-on-gear", "repa-on-control", -1),
    *_1C,
    less("2a the naive way collapses", USED_END, "naive", "gear", -1),
    against("2a", USED_END, "naive", "half of the codebook", _half, -1),
    less("2b straight through is worse than soft", GFID, "ste", "gear", 1),
    less("3 VQ gains", CHEAP_GFID, "gear", "control", -1),
    less("3 LFQ gains", CHEAP_GFID, "gear-lfq", "control-lfq", -1),
    less("3 IBQ gains", CHEAP_GFID, "gear-ibq", "control-ibq", -1),
    less("4a a lower temperature is worse", CHEAP_GFID, "gear-tau-0.01", "gear", 1),
    less("4b lambda 0.5 is best", CHEAP_GFID, "gear-lambda-0.25", "gear", 1),
    less("4b", CHEAP_GFID, "gear-lambda-1", "gear", 1),
    less("4c without the adversarial loss it is worse", CHEAP_RFID, "gear-no-critic", "gear", 1),
    less("4d the warm-up helps", CHEAP_GFID, "gear-scratch", "gear", 1),
    less("4e the tap in between is best", CHEAP_GFID, "gear-tap-1", "gear", 1),
    less("4e", CHEAP_GFID, "gear-tap-3", "gear", 1),
    less("5a the tokenizer becomes less like the target", PRE[_CKNNA], "gear", "control", -1),
    less("5b the generator becomes more like it", AT_END[_CKNNA], "gear", "control", 1),
    against("6 usage sharpens, then relaxes", USED_LEAST_STEP, "gear", "the last step", _last_step, -1),
    against("6 above collapse", USED_LEAST, "gear", "half of the codebook", _half, 1),
    _7,
    less("8 a larger generator guides better", CHEAP_GFID, "repa-on-gear-large", "repa-on-gear-small", -1),
    less("9a words that are not rotated away are followed", TEXTS[_RANK], "text-zero-rotary", "text-on-gear", 1),
    less("9b bfloat16 costs something", CHEAP_GFID, "gear-bfloat16", "gear", 1),
    less("10 the last token misses guidance", LAST_TOKEN, "repa-on-gear", "repa-on-control", 1),
)


UNGUIDED = (  # rules that ask for no difference to an arm without guidance: on such arms, and less what they come to
    *_1C_UNGUIDED,
    *map(apart, _1C, _1C_UNGUIDED),
    against("6", USED_LEAST_STEP, "control", "the last step", _last_step, -1),
    against("6", USED_LEAST, "control", "half of the codebook", _half, 1),
    against("6", USED_LEAST_STEP, "repa", "the last step", _last_step, -1),  # whose tokenizer does not move
    _7_UNGUIDED,
    apart(_7, _7_UNGUIDED),
)


def verdicts(scale: Scale, results: Results) -> str:
    told, without = (
        table(
            ["claim", "decided by", "expected", "mean, 95% interval", "seeds", "here"],
            [_row(each, scale, results) for each in decisions if scale.seeds_of(each.number)],
            words=3,
        )
        for decisions in (DECISIONS, UNGUIDED)
    )
    said = (
        "**The same rules on arms without guidance.** One that holds there too says nothing of guidance; what it comes "
        "to, less what it comes to without, does."
    )
    parts = [told, said, without]
    if elsewhere := [row for each in DECISIONS if (row := _elsewhere(each, scale, results))]:
        parts.append(
            "**On seeds that were not announced for the claim**, where they have what its rule needs: run for another "
            "claim, or before seeds were changed. It decides nothing, no interval of it is counted, and the rules of "
            "6 and 7 ask for no arm without guidance here either."
        )
        head = ["claim", "decided by", "expected", "mean, 95% interval", "seeds", "as expected"]
        parts.append(table(head, elsewhere, words=3))
    return "\n\n".join(parts)


def _row(decision: Decision, scale: Scale, results: Results) -> list[str]:
    """A seed that has run may have no number: an arm was stopped, or all its samples were the same."""
    wanted = scale.seeds_of(decision.number)
    values = decision.values(of_seeds(results, wanted))
    run = [seed for seed in wanted if all((arm, seed) in results for arm in decision.arms)]
    seeds = f"{len(run)} of {len(wanted)}"
    if not run:
        return [decision.claim, decision.by, decision.expected, NOT_RUN, seeds, ""]
    told = _mean(decision, values) if values else NONE
    if len(values) < len(run):
        seeds += f", {len(run) - len(values)} without a number"
    whole = "no verdict" if len(values) < len(run) else decision.verdict(values)
    whole = whole if len(run) == len(wanted) else "unfinished"
    return [decision.claim, decision.by, decision.expected, told, seeds, whole]


def _elsewhere(decision: Decision, scale: Scale, results: Results) -> list[str]:
    """On seeds that were not announced for it; nothing where none has all of it."""
    values = decision.values(of_seeds(results, {*scale.seeds} - {*scale.seeds_of(decision.number)}))
    if not values:
        return []
    same = sum(decision.sign * value > 0 for value in values.values())
    seeds, told = ", ".join(map(str, values)), _mean(decision, values)
    return [decision.claim, decision.by, decision.expected, told, seeds, f"{same} of {len(values)}"]


def _mean(decision: Decision, values: Mapping[int, float]) -> str:
    found: Estimate = estimate(list(values.values()))
    return f"{fixed(found.mean, decision.digits)}{interval(found, decision.digits)}"
