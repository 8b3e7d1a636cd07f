"""The Markdown tables of a claim: of arms, means and spreads over seeds; of pairs of arms, differences seed by seed.
They say what was found and judge nothing."""

from collections.abc import Iterable, Mapping, Sequence

from gear.evidence.claims import CLAIMS, Pair, Part
from gear.evidence.quantities import Quantity, Results, Source, Value, of_seeds, stopped
from gear.evidence.scales import SCALES, Scale
from gear.evidence.statistics import CONFIDENCE, Estimate, estimate, paired

NOT_RUN, NONE, OTHER_N = "not run yet", "-", "other n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], words: int = 1) -> str:
    """Its first columns are words, the others numbers."""
    lines = [head, ["---" if i < words else "---:" for i in range(len(head))], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def fixed(value: float, digits: int) -> str:
    return f"{round(value, digits) + 0:,.{digits}f}"  # + 0: no -0.0


def spread(values: Sequence[float], digits: int) -> str:
    """Mean ± standard deviation; of one value itself."""
    if not values:
        return NONE
    found = estimate(values)
    mean = fixed(found.mean, digits)
    return mean if found.sd is None else f"{mean} ± {fixed(found.sd, digits)}"


def difference(arm: Mapping[int, float], other: Mapping[int, float], digits: int) -> str:
    """Mean, interval, and in how many seeds the sign is the mean's; "-" if no seed has both."""
    found = paired(arm, other)
    if found is None:
        return NONE
    same = sum((arm[seed] - other[seed]) * found.mean > 0 for seed in arm.keys() & other.keys())
    return f"{fixed(found.mean, digits)}{interval(found, digits)}, {same}/{found.n}"


def interval(found: Estimate, digits: int) -> str:
    if found.low is None or found.high is None:
        return ""
    return f" [{fixed(found.low, digits)}, {fixed(found.high, digits)}]"


def claim(number: int, scale: Scale, results: Results) -> str:
    found = of_seeds(results, scale.seeds_of(number))
    return "\n\n".join(_part(part, number, scale, found) for part in CLAIMS[number])


def _part(part: Part, number: int, scale: Scale, results: Results) -> str:
    shown, compared = part.shown + _there(part, results), _asked(part, results)
    blocks = [f"**{part.title}.**"] if part.title else []
    blocks.append(table(["arm", "seeds", *(q.name for q in shown)], (_row(arm, shown, results) for arm in part.arms)))
    notes = _sources(part.arms, shown, scale, results)
    if part.pairs:
        rows = [[f"`{a}` - `{b}`", *(_compared(q, (a, b), results) for q in compared)] for a, b in part.pairs]
        blocks.append(table(["difference", *(q.name for q in compared)], rows))
        notes.append(f"Differences: mean [{CONFIDENCE:.0%} interval], in how many seeds the sign is the mean's.")
        if any(OTHER_N in row for row in rows):
            notes.append(f'"{OTHER_N}": of different numbers of images, which do not compare.')
    return "\n\n".join([*blocks, bullets(*notes, made_by(part.arms, number, scale))])


def _row(arm: str, shown: Sequence[Quantity], results: Results) -> list[str]:
    every = [result for (name, _), result in results.items() if name == arm]
    n, short = len(every), sum(map(stopped, every))
    if not n:
        return [f"`{arm}`", NOT_RUN, *("" for _ in shown)]
    found = [(q, list(q.values(results, arm).values())) for q in shown]
    cells = [spread([value.number for value in values], q.digits) + _fewer(values, n) for q, values in found]
    return [f"`{arm}`", f"{n}, {short} stopped" if short else str(n), *cells]


def _fewer(values: Sequence[Value], n: int) -> str:
    return f" (n = {len(values)})" if 0 < len(values) < n else ""


def _compared(quantity: Quantity, pair: Pair, results: Results) -> str:
    found = _both(quantity, pair, results)
    return OTHER_N if found is None else difference(*found, quantity.digits)


def _both(quantity: Quantity, pair: Pair, results: Results) -> tuple[dict[int, float], dict[int, float]] | None:
    """Of either arm by seed what may be subtracted; None where both have some, of which nothing may."""
    a, b = (quantity.values(results, arm) for arm in pair)
    both = a.keys() & b.keys()
    alike = [seed for seed in both if quantity.unbiased or a[seed].n == b[seed].n]
    if both and not alike:
        return None
    return {seed: a[seed].number for seed in alike}, {seed: b[seed].number for seed in alike}


def differences(scale: Scale, results: Results) -> list[Estimate]:
    """All that the tables of the claims show, each once: arms on one tokenizer have its numbers in common, so that
    several pairs may have the same difference, or none but 0."""
    parts = [(part, scale.seeds_of(number)) for number, claim in CLAIMS.items() for part in claim]
    found_in = {seeds: of_seeds(results, seeds) for _, seeds in parts}
    asked = dict.fromkeys(
        (q, pair, seeds) for part, seeds in parts for pair in part.pairs for q in _asked(part, found_in[seeds])
    )
    both = [(q, found) for q, pair, seeds in asked if (found := _both(q, pair, found_in[seeds]))]
    unlike = {(q, *sorted(a.items()), *sorted(b.items())): (a, b) for q, (a, b) in both if a != b}
    return [found for a, b in unlike.values() if (found := paired(a, b))]


def _there(part: Part, results: Results) -> tuple[Quantity, ...]:
    return tuple(q for q in part.where_there if sum(bool(q.values(results, arm)) for arm in part.arms) > 1)


def _asked(part: Part, results: Results) -> tuple[Quantity, ...]:
    """The quantities of its differences."""
    return (part.shown if part.compared is None else part.compared) + _there(part, results)


def _sources(names: Sequence[str], shown: Sequence[Quantity], scale: Scale, results: Results) -> list[str]:
    """What the numbers of some arms are of: a sentence for quantities of the same images."""
    sources: dict[Source, list[Quantity]] = {}
    for quantity in shown:
        sources.setdefault(quantity.source, []).append(quantity)
    said = []
    for source, quantities in sources.items():
        what = _images(quantities, names, results) + source.what.format(counts=scale.counts, base=scale.base)
        said.append(f"{'; '.join(quantity.name for quantity in quantities)}: {what}.")
    return said


def _images(quantities: Sequence[Quantity], names: Sequence[str], results: Results) -> str:
    """How many there are, and of which arms where it differs; nothing where the results do not say."""
    counts: dict[int, list[str]] = {}
    for arm in names:
        found = [value for quantity in quantities for value in quantity.values(results, arm).values()]
        for n in sorted({value.n for value in found if value.n is not None}):
            counts.setdefault(n, []).append(f"`{arm}`")
    if len(counts) < 2:
        return "".join(f"{n:,} " for n in counts)
    return ", ".join(f"{n:,} ({', '.join(of)})" for n, of in counts.items()) + " "


def bullets(*sentences: str) -> str:
    return "\n".join(f"- {sentence}" for sentence in sentences)


def made_by(names: Sequence[str], claim: int, scale: Scale) -> str:
    """The commands that make what is told of a claim, and no more."""
    run = f"{called(scale)} --only {' '.join(names)}{_seeds(scale, scale.seeds_of(claim))}"
    return f"Made by `{run}`, then `{called(scale, ' write')}{_seeds(scale, scale.seeds)}`."


def _seeds(scale: Scale, seeds: Sequence[int]) -> str:
    """Where they are not all that a command takes of itself."""
    return "" if seeds == SCALES[scale.name].seeds else f" --seeds {' '.join(map(str, seeds))}"


def called(scale: Scale, what: str = "") -> str:
    return f"gear evidence{what}" + ("" if scale.name == "cpu" else f" --scale {scale.name}")
