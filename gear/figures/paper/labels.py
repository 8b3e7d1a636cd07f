"""Names of runs as legends have room for them, and in letters that the font has; in full they stand in the caption."""

from collections.abc import Mapping, Sequence
from functools import cache

from matplotlib import font_manager

from gear.figures.paper.found import Run

LONG = 36  # letters of a name in a legend
DOTS, UNKNOWN = "\N{HORIZONTAL ELLIPSIS}", "?"


def labels(runs: Sequence[Run], most: int = LONG) -> dict[str, str]:
    """Name -> what stands for it in the figure; none twice."""
    texts = [short(run.name, most) for run in runs]
    ambiguous = {text for text in texts if texts.count(text) > 1}
    return {
        run.name: f"{text} ({i})" if text in ambiguous else text
        for i, (run, text) in enumerate(zip(runs, texts, strict=True), 1)
    }


def short(name: str, most: int = LONG) -> str:
    """At most `most` letters, its middle left out; those that the font lacks are question marks."""
    there = letters()
    text = "".join(letter if ord(letter) in there else UNKNOWN for letter in " ".join(name.split()))
    if len(text) <= most:
        return text
    tail = (most - 1) // 2
    return f"{text[: most - 1 - tail]}{DOTS}{text[-tail:]}"


def in_full(shown: Mapping[str, str]) -> str:
    """A sentence of the caption on the names that the figure has otherwise; "" where there is none."""
    told = [f"{text} is {name}" for name, text in shown.items() if text != name]
    return f"In full: {'; '.join(told)}." if told else ""


@cache
def letters() -> frozenset[int]:
    """Code points that the font has."""
    font = font_manager.get_font(font_manager.findfont("DejaVu Sans"))
    return frozenset(font.get_charmap())
