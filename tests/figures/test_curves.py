"""The charts: round ticks, points where they belong, lines that differ without colour."""

import math
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from gear.figures.curves import (
    BOTTOM,
    HEIGHT,
    LEFT,
    POINTS,
    RIGHT,
    TOP,
    WIDTH,
    Level,
    Line,
    Note,
    Panel,
    nice,
    svg,
    swatch,
    thin,
    tick_labels,
)

FALLING = Line("one", 0, [(0.0, 4.0), (50.0, 2.0), (100.0, 1.0)])
FLAT = Line("two & <more>", 1, [(0.0, 3.0), (40.0, 3.0)])


def texts(drawing: str) -> list[str]:
    return ["".join(e.itertext()) for e in ET.fromstring(drawing).iter("text")]


def paths(drawing: str) -> list[list[tuple[float, float]]]:
    """The points of each line, in pixels."""
    found = re.findall(r'<path class="line" d="M([^"]*)"', drawing)
    return [[(float(a), float(b)) for a, b in (p.split() for p in path.split("L"))] for path in found]


def test_points_are_where_their_values_are() -> None:
    """y from 1 to 4 in round numbers is 1 to 4; x from 0 to 100."""
    drawing = svg(Panel("loss", "nats", (FALLING, FLAT)))
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    expected = [(LEFT, TOP), ((LEFT + right) / 2, bottom - (bottom - TOP) / 3), (right, bottom)]
    for found, place in zip(paths(drawing)[0], expected, strict=True):
        assert found == pytest.approx(place, abs=0.06)
    assert texts(drawing) == ["1", "2", "3", "4", "0", "25", "50", "75", "100", "step"]


def test_it_says_its_numbers() -> None:
    """To a screen reader the ends of each line; to a mouse every point."""
    drawing = ET.fromstring(svg(Panel("loss", "nats", (FALLING, FLAT))))
    assert drawing.get("aria-label") == (
        "loss: one, step 0: 4.000 to step 100: 1.000; two & <more>, step 0: 3.000 to step 40: 3.000"
    )
    titles = [e.text for e in drawing.iter("title")]
    assert len(titles) == 5
    assert "one, step 50: 2.000 nats" in titles


def test_levels_notes_and_forced_values_are_inside_the_frame() -> None:
    panel = Panel("H", "nats", (FALLING,), (Level(6.24, "log K"),), (Note(0, "collapse"), Note(1, "absent")), (0.0,))
    drawing = svg(panel)
    assert texts(drawing)[:5] == ["0", "2", "4", "6", "8"]
    assert texts(drawing)[-2:] == ["log K", "collapse"]
    y = float(re.findall(r'class="level" d="M\d+ ([\d.]+)', drawing)[0])
    assert TOP < y < HEIGHT - BOTTOM


def test_lines_without_points_are_left_out() -> None:
    assert svg(Panel("loss", "", (Line("none", 0, []),))) == ""
    assert len(paths(svg(Panel("loss", "", (Line("none", 0, []), FLAT))))) == 1


@pytest.mark.parametrize("points", [[(20.0, 0.0)], [(20.0, 5.0), (40.0, 5.0)], [(1.0, -3e-7), (2.0, -3e-7)]])
def test_a_single_point_and_a_constant_have_axes_too(points: list[tuple[float, float]]) -> None:
    drawing = svg(Panel("loss", "", (Line("one", 0, points),)))
    assert all(TOP <= y <= HEIGHT - BOTTOM for _, y in paths(drawing)[0])


def test_lines_differ_without_colour() -> None:
    plain = [re.sub(r"arm-\d", "", swatch(style)) for style in range(4)]
    assert len(set(plain)) == 4
    assert len(set(re.findall(r'stroke-dasharray="[^"]*"', "".join(plain)))) == 3  # and one is solid


def test_ticks_are_round_and_enclose_the_values() -> None:
    rng = np.random.default_rng(0)
    for _ in range(500):
        width, count = float(10 ** rng.uniform(-5, 5)), int(rng.integers(3, 7))
        low = float(rng.choice([0.0, rng.uniform(-3, 3) * width]))
        ticks = nice(low, low + width, count)
        step = ticks[1] - ticks[0]
        assert ticks[0] <= low + 1e-6 * step
        assert ticks[-1] >= low + width - 1e-6 * step
        assert 3 <= len(ticks) <= count + 2
        mantissa = step / 10 ** math.floor(math.log10(step) + 1e-6)
        assert min(abs(mantissa - round_number) for round_number in (1, 2, 2.5, 5)) < 1e-4


def test_labels_of_an_axis_have_equal_decimals() -> None:
    assert tick_labels([-0.5, 0.0, 0.5]) == ["\N{MINUS SIGN}0.5", "0.0", "0.5"]
    assert tick_labels([0.225, 0.25]) == ["0.225", "0.250"]
    assert tick_labels([0.0, 10000.0]) == ["0", "10,000"]


def test_thinning_keeps_the_mean() -> None:
    points = [(float(i), float(i % 7)) for i in range(4 * POINTS)]
    thinned = thin(points)
    assert len(thinned) == POINTS
    assert sum(y for _, y in thinned) / POINTS == pytest.approx(sum(y for _, y in points) / len(points))
    assert thin(points[:POINTS]) == points[:POINTS]
