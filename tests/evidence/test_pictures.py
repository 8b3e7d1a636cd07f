"""What the figures show, and that they are the same bytes each time."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.lines import Line2D

from gear.evidence import pictures
from gear.evidence.results import Result
from gear.evidence.scales import CPU
from gear.figures.paper.style import look

from .conftest import Made

Results = dict[tuple[str, int], Result]


@pytest.fixture(autouse=True)
def looking() -> Iterator[None]:
    with look():
        yield


def seconds(pace: dict[str, Any]) -> dict[str, float]:
    return {name: taken["median"] for name, taken in pace["seconds"].items()}


def labelled(ax: Axes) -> list[Line2D]:
    return [line for line in ax.get_lines() if not str(line.get_label()).startswith("_")]


def test_the_same_bytes_each_time(everything: Results, pace: dict[str, Any]) -> None:
    first, second = (
        {claim: pictures.svg(d.figure) for claim, d in pictures.drawings(CPU, everything, seconds(pace)).items()}
        for _ in range(2)
    )
    assert first.keys() == {1, 4, 6}
    assert first == second
    assert all(b"<svg" in image and b"dc:date" not in image for image in first.values())


def test_a_curve_is_the_mean_and_its_band_all_seeds(result: Made, pace: dict[str, Any]) -> None:
    found = {("gear", seed): result("gear", seed, curve=[(100, 9.0 + seed), (200, 6.0)]) for seed in (0, 1, 2)}
    drawing = pictures.convergence(found, seconds(pace))
    assert drawing is not None
    by_step, by_second = drawing.figure.axes
    assert np.asarray(by_step.get_lines()[0].get_xydata()).tolist() == [[100, 10], [200, 6]]
    assert np.asarray(by_second.get_lines()[0].get_xydata()).tolist() == [[40, 10], [80, 6]]
    (band,) = by_step.collections
    assert isinstance(band, PolyCollection)
    box = band.get_paths()[0].get_extents()
    assert (box.y0, box.y1) == (6, 11)


def test_one_seed_has_no_band(result: Made) -> None:
    drawing = pictures.convergence({("gear", 0): result("gear", 0, curve=[(100, 9.0), (200, 6.0)])}, {})
    assert drawing is not None
    assert not drawing.figure.axes[0].collections


def test_lines_are_told_apart_without_colour(everything: Results, pace: dict[str, Any]) -> None:
    drawn = pictures.drawings(CPU, everything, seconds(pace))
    for claim in (1, 6):
        lines = labelled(drawn[claim].figure.axes[0])
        assert len({str(line.get_marker()) for line in lines}) == len(lines) == 6


def test_every_seed_is_a_mark_at_every_value(everything: Results) -> None:
    drawing = pictures.drawings(CPU, everything, {})[4]
    assert [str(line.get_label()) for line in labelled(drawing.figure.axes[0])] == ["seed 3", "seed 4", "seed 5"]
    assert [[tick.get_text() for tick in ax.get_xticklabels()] for ax in drawing.figure.axes[:3]] == [
        ["0.01", "0.05", "0.1", "0.5"],
        ["0.25", "0.5", "0.75", "1"],
        ["1", "2", "3"],
    ]
    for ax, values in zip(drawing.figure.axes, (4, 4, 3, 4, 4, 3), strict=True):
        assert [len(np.asarray(line.get_xydata())) for line in labelled(ax)] == [values] * 3


def test_nothing_is_drawn_of_nothing(result: Made) -> None:
    assert pictures.drawings(CPU, {}, {}) == {}
    assert pictures.drawings(CPU, {("gear", 0): result("gear", 0)}, {}) == {}
