"""`gear figure cfg`: curves against the scale of guidance, the best marked, a bad run cut off."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes

from gear.figures.paper import sweep
from gear.figures.paper.found import Run, opened

pytestmark = pytest.mark.usefixtures("drawn")

Written = Callable[..., Path]
Made = Callable[..., dict[str, Any]]


def pair(runs: Path) -> list[Run]:
    return opened([runs / "gear-l", runs / "llamagen-repa-l"])


def line(axes: Axes, label: str) -> list[list[float]]:
    (found,) = [drawn for drawn in axes.get_lines() if drawn.get_label() == label]
    return np.asarray(found.get_xydata()).tolist()


def texts(axes: Axes) -> str:
    return " ".join(text.get_text() for text in axes.texts)


def test_the_sweep_marks_the_best_scale(runs: Path) -> None:
    drawing = sweep.draw(pair(runs))
    gfid, score, _ = drawing.figure.axes if len(drawing.figure.axes) == 3 else (*drawing.figure.axes, None)
    assert line(gfid, "gear-l") == [[1.0, 10.0], [1.5, 4.0], [2.0, 6.0]]
    stars = [np.asarray(drawn.get_xydata()).tolist() for drawn in gfid.get_lines() if drawn.get_marker() == "*"]
    assert stars == [[[1.5, 4.0]]] * 2
    assert "gear-l: best Inception Score 300 at 2." in drawing.caption
    assert score.get_title("left") == "(b) Inception Score ↑"


def test_evaluations_at_several_scales_are_a_sweep_too(runs: Path, swept: Made) -> None:
    (run,) = opened([runs / "gear-b"])
    points = [(run, result) for result in sweep.swept(run)]
    assert sweep.scales(run, points) == {("", "gfid"): [(1.0, 16.0), (1.5, pytest.approx(4.8))]}


def test_an_interrupted_sweep_says_so_and_has_no_star(write: Written, swept: Made) -> None:
    whole = swept("gear-l")
    whole["settings"]["scales"], whole["points"] = [1.0, 1.5, 2.0], whole["points"][:1]
    drawing = sweep.draw(opened([write("a/sweep", whole).parent]))
    assert not [drawn for drawn in drawing.figure.axes[0].get_lines() if drawn.get_marker() == "*"]
    (said,) = drawing.lacking
    assert said.startswith("a: 1 of 3 scales measured; the same command continues: `gear evaluate sweep")


def test_a_bad_run_does_not_press_a_sweep_flat(runs: Path, write: Written, swept: Made) -> None:
    bad = swept("bad")
    for point in bad["points"]:
        point["metrics"]["gfid"]["value"] = 400.0
    drawing = sweep.draw([*pair(runs), *opened([write("bad/sweep", bad).parent])])
    low, high = drawing.figure.axes[0].get_ylim()
    assert 0 <= low < 4 < 10 < high < 15
    assert "bad: 400 at 1" in texts(drawing.figure.axes[0])
    assert "bad is beyond the frame of gFID: at best 400, at 1." in drawing.caption


def test_a_sweep_of_other_images_is_left_out(runs: Path, write: Written, swept: Made) -> None:
    few = swept("few") | {"reference": {"path": "elsewhere"}}
    drawing = sweep.draw([*pair(runs), *opened([write("few/sweep", few).parent])])
    assert "n = 50,000 against reference.npz" in drawing.caption
    assert any("few (n = 50,000 against elsewhere)" in text for text in drawing.lacking)


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [("temperature", 0.8, "temperature 0.8"), ("seed", 1, "seed 1"), ("top_k", 9, "top_k 9")],
)
def test_a_curve_is_of_one_way_to_draw(setting: str, value: float, said: str, write: Written, swept: Made) -> None:
    """Of several sweeps of a run, the one with most scales."""
    usual, other = swept("mine"), swept("mine")
    other["settings"][setting] = value
    for point in other["points"]:
        point["metrics"]["gfid"]["value"] += 1.0
    other["points"] = other["points"][:2]
    write("mine/another", other)
    drawing = sweep.draw(opened([write("mine/sweep", usual).parent]))
    assert line(drawing.figure.axes[0], "mine") == [[1.0, 10.0], [1.5, 4.0], [2.0, 6.0]]
    assert drawing.lacking == (f"Left out, as the points of a curve are drawn alike but for the scale: mine ({said}).",)


def test_what_is_left_out_may_be_the_usual_way(write: Written, swept: Made) -> None:
    usual, other = swept("mine"), swept("mine")
    other["source"] = {"kind": "samples", "precision": "int8"}
    usual["points"] = usual["points"][:1]
    write("mine/another", other)
    drawing = sweep.draw(opened([write("mine/sweep", usual).parent]))
    assert len(line(drawing.figure.axes[0], "mine")) == 3
    assert any("mine (as usual)" in text for text in drawing.lacking)
