"""Which results may stand side by side: gFID falls with the number of images and depends on the reference, so those of
another n, or against another reference, are no worse or better for being larger or smaller."""

from collections.abc import Sequence

from gear.figures.paper.found import Run
from gear.figures.paper.result import Basis, Result

Pair = tuple[Run, Result]


def comparable(pairs: Sequence[Pair]) -> tuple[list[Pair], list[str]]:
    """Those of one n and reference, of which most runs have some, then most results, then the larger n; and what was
    left out: "NAME (n = 64 against cifar10-test)"."""
    groups: dict[Basis, list[Pair]] = {}
    for run, result in pairs:
        groups.setdefault(result.basis, []).append((run, result))
    if not groups:
        return [], []
    kept = max(
        groups, key=lambda basis: (len({run.name for run, _ in groups[basis]}), len(groups[basis]), basis[0] or 0)
    )
    of = groups[kept][0][1].of
    left = [
        f"{run.name} ({result.of}{' of other content' if result.of == of else ''})"
        for basis, pairs in groups.items()
        if basis != kept
        for run, result in pairs
    ]
    return groups[kept], list(dict.fromkeys(left))


def left_out(what: Sequence[str], where: str = "") -> list[str]:
    """A sentence on it, if there is something."""
    named = ", ".join(dict.fromkeys(what))
    return [f"Left out{where}, as gFIDs compare only at equal n and reference: {named}."] if what else []
