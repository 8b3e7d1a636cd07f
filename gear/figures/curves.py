"""Line charts as inline SVG: one frame for each quantity, all arms in it. No plotting library, no script.

Colours come from the page's style sheet (`--arm-0`, ... of the Okabe-Ito palette), so that they follow its light and
dark theme; dashes and markers tell the lines apart without colour. Hovering a point gives its numbers.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from gear.figures.reading import MINUS, number

WIDTH, HEIGHT = 360.0, 214.0
LEFT, RIGHT, TOP, BOTTOM = 56.0, 14.0, 12.0, 34.0  # margins around the frame
POINTS = 150  # of a line; more are averaged in runs of equal length
MARKERS = 6  # on a line, about, and at its last point
DASHES = ("", "7 4", "1.5 4", "9 3 2 3")
CAPS = ("butt", "butt", "round", "butt")
STYLES = 6  # arms with a colour of their own


@dataclass(frozen=True)
class Line:
    """`style`: index of the arm on the page. `points`: (x, y), all finite, x increasing."""

    name: str
    style: int
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Level:
    """A horizontal line: a bound, such as log K."""

    y: float
    label: str


@dataclass(frozen=True)
class Note:
    """A remark at the last point of the line of one arm."""

    style: int
    text: str


@dataclass(frozen=True)
class Panel:
    """
    unit: of y, said where a point is hovered. include: values that the y axis reaches in any case, such as 0.
    """

    title: str
    unit: str
    lines: tuple[Line, ...]
    levels: tuple[Level, ...] = ()
    notes: tuple[Note, ...] = ()
    include: tuple[float, ...] = ()


def svg(panel: Panel) -> str:
    """An <svg> element that scales to the width of its container; "" if no line has a point."""
    lines = [Line(line.name, line.style, thin(line.points)) for line in panel.lines if line.points]
    if not lines:
        return ""
    ys = [y for line in lines for _, y in line.points] + [level.y for level in panel.levels] + list(panel.include)
    x = Axis.over([0.0, *(x for line in lines for x, _ in line.points)], LEFT, WIDTH - RIGHT, 4)
    y = Axis.over(ys, HEIGHT - BOTTOM, TOP, 4)
    ends = "; ".join(f"{line.name}, {_at(*line.points[0])} to {_at(*line.points[-1])}" for line in lines)
    said = escape(f"{panel.title}: {ends}")
    parts = [
        f'<svg class="chart" viewBox="0 0 {WIDTH:g} {HEIGHT:g}" role="img" aria-label="{said}">',
        *_grid(x, y),
        *(_level(level, y) for level in panel.levels),
        *(_line(line, x, y, panel.unit) for line in lines),
        *(_note(note, line, x, y) for note in panel.notes for line in lines if line.style == note.style),
        "</svg>",
    ]
    return "".join(parts)


def swatch(style: int) -> str:
    """A piece of the line of an arm, for legends."""
    drawn = f'<path class="line" d="M1 6H33" {_stroke(style)}/>{_marker(style, 17.0, 6.0)}'
    return f'<svg class="swatch {colour(style)}" viewBox="0 0 34 12" aria-hidden="true">{drawn}</svg>'


def colour(style: int) -> str:
    """The CSS class that sets `--c`, the colour of an arm."""
    return f"arm-{style % STYLES}"


# ------------------------------------------------------------------------------------------------------------ axes


@dataclass(frozen=True)
class Axis:
    """A linear map from [low, high] to the pixels [start, end], with round numbers at its ticks and `low`, `high`."""

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[float, ...]

    @classmethod
    def over(cls, values: Sequence[float], start: float, end: float, count: int) -> "Axis":
        ticks = nice(min(values), max(values), count)
        return cls(ticks[0], ticks[-1], start, end, tuple(ticks))

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def nice(low: float, high: float, count: int) -> list[float]:
    """About `count` steps of 1, 2, 2.5 or 5 times a power of ten; the first tick is at most `low`, the last at least
    `high`."""
    if high <= low:
        low, high = low - (abs(low) / 10 or 0.5), high + (abs(high) / 10 or 0.5)
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def thin(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most `POINTS` points: means of x and y over neighbours."""
    run = math.ceil(len(points) / POINTS)
    parts = [points[i : i + run] for i in range(0, len(points), run)]
    return [(sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)) for part in parts]


# ---------------------------------------------------------------------------------------------------------- pieces


def _grid(x: Axis, y: Axis) -> list[str]:
    floor, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = [f'<path class="grid" d="M{LEFT:g} {y(tick):.1f}H{right:g}"/>' for tick in y.ticks]
    labels = tick_labels(y.ticks)
    parts += [
        f'<text class="tick y" x="{LEFT - 6:g}" y="{y(tick) + 3.8:.1f}">{label}</text>'
        for tick, label in zip(y.ticks, labels, strict=True)
    ]
    parts += [f'<path class="axis" d="M{x(tick):.1f} {floor:g}v4"/>' for tick in x.ticks]
    parts += [f'<text class="tick" x="{x(tick):.1f}" y="{floor + 15:g}">{tick:,.0f}</text>' for tick in x.ticks]
    return [
        *parts,
        f'<path class="axis" d="M{LEFT:g} {floor:g}H{right:g}"/>',
        f'<text class="tick" x="{(LEFT + right) / 2:g}" y="{HEIGHT - 5:g}">step</text>',
    ]


def _level(level: Level, y: Axis) -> str:
    return (
        f'<path class="level" d="M{LEFT:g} {y(level.y):.1f}H{WIDTH - RIGHT:g}"/>'
        f'<text class="remark end" x="{WIDTH - RIGHT - 2:g}" y="{y(level.y) - 4:.1f}">{escape(level.label)}</text>'
    )


def _line(line: Line, x: Axis, y: Axis, unit: str) -> str:
    places = [(x(a), y(b)) for a, b in line.points]
    path = "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in places)
    every = max(1, len(places) // MARKERS)
    offset = (line.style * every // 3) % every  # so that the markers of lines that coincide do not
    marked = {*range(offset, len(places), every), len(places) - 1}
    titles = [escape(f"{line.name}, {_at(*point)} {unit}".rstrip()) for point in line.points]
    hover = [
        f'<circle cx="{a:.1f}" cy="{b:.1f}" r="5"><title>{title}</title></circle>'
        for (a, b), title in zip(places, titles, strict=True)
    ]
    return (
        f'<g class="{colour(line.style)}"><path class="line" d="{path}" {_stroke(line.style)}/>'
        + "".join(_marker(line.style, *places[i]) for i in sorted(marked))
        + f'<g class="hover">{"".join(hover)}</g></g>'
    )


def _note(note: Note, line: Line, x: Axis, y: Axis) -> str:
    """To the right of the last point where there is room, else to its left; above it near the floor."""
    a, b = x(line.points[-1][0]), y(line.points[-1][1])
    roomy = a < (LEFT + WIDTH - RIGHT) / 2
    rise = 4 if roomy else -10
    side = "remark" if roomy else "remark end"
    place = f'x="{a + 9:.1f}"' if roomy else f'x="{a:.1f}"'
    return (
        f'<text class="{side} strong" {place} y="{min(b + rise, HEIGHT - BOTTOM - 5):.1f}">{escape(note.text)}</text>'
    )


def _stroke(style: int) -> str:
    i = style % len(DASHES)
    return f'stroke-dasharray="{DASHES[i]}" stroke-linecap="{CAPS[i]}"' if DASHES[i] else ""


def _marker(style: int, x: float, y: float) -> str:
    shapes = ("M{l} {y}a3.2 3.2 0 1 0 6.4 0a3.2 3.2 0 1 0 -6.4 0z", "M{l} {t}h5.6v5.6h-5.6z", "M{x} {t}l3.4 6h-6.8z")
    shape = (*shapes, "M{x} {t}l3.6 3.6l-3.6 3.6l-3.6 -3.6z")[style % 4]
    left, top = x - (3.2 if style % 4 == 0 else 2.8), y - (3.6 if style % 4 > 1 else 2.8)
    return f'<path class="marker" d="{shape.format(x=round(x, 1), y=round(y, 1), l=round(left, 1), t=round(top, 1))}"/>'


def _at(step: float, value: float) -> str:
    return f"step {round(step):,}: {number(value)}"


def tick_labels(ticks: Sequence[float]) -> list[str]:
    """All with as many decimals as the one that needs most: 0.25, 0.50, 1.00."""
    decimals = max(len(f"{tick:.10f}".rstrip("0").partition(".")[2]) for tick in ticks)
    return [f"{tick:,.{decimals}f}".replace("-", MINUS) for tick in ticks]
