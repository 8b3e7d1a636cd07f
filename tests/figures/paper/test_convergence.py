"""Figure 1: curves and bars of what compares, the factor, and what is left out."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from gear.figures.paper import convergence, dynamics
from gear.figures.paper.found import Run, opened
from gear.figures.paper.sizes import of_sizes

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


def test_figure_1_has_the_curves_and_the_factor(runs: Path) -> None:
    drawing = convergence.draw(pair(runs))
    left, right = drawing.figure.axes
    found = pair(runs)
    for run in found:
        assert line(left, run.name) == [list(point) for point in run.curve("gfid", watched=True)]
    assert "\N{MULTIPLICATION SIGN} faster" in texts(left)
    factor = float(re.findall(r"([\d.]+)x\.", drawing.caption)[0])
    assert 3.5 < factor < 4.2  # four times the rate, by straight lines between evaluations
    heights = [round(bar.get_height(), 6) for bar in right.patches if isinstance(bar, Rectangle)]
    assert heights == [9.6, 12.0, 2.88, 3.6]  # gear and the baseline without, then with guidance
    assert "efficientnet_lite1" in drawing.caption


def test_figure_1_groups_sizes_of_one_method(runs: Path) -> None:
    sizes, of, left = of_sizes(opened([runs]))
    assert (of, left) == ("n = 50,000 against reference.npz", [])
    assert list(sizes) == ["gear", "llamagen-repa"]
    assert sizes["gear"] == {
        111_000_000: [16.0, pytest.approx(4.8)],
        343_000_000: [pytest.approx(9.6), pytest.approx(2.88)],
    }


def test_figure_1_takes_the_protocol_where_there_are_steps_of_it(runs: Path) -> None:
    folder = runs / "gear-l" / "adm-1.0"
    later = json.loads((folder / "results.json").read_text())
    later["model"]["steps"], later["metrics"]["gfid"]["value"] = 800_000, 8.0
    (runs / "gear-l" / "adm-later").mkdir()
    (runs / "gear-l" / "adm-later" / "results.json").write_text(json.dumps(later))
    curves, kind, _ = convergence.of_steps(pair(runs))
    assert curves[0] == [(400_000.0, pytest.approx(9.6)), (800_000.0, 8.0)]
    assert "ADM" in kind


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("efficientnet_lite1", "inception", "gear-b (inception)"),
        ('"step"', '"n": 64, "step"', "gear-b (efficientnet_lite1, n = 64)"),
    ],
)
def test_figure_1_does_not_mix_networks_or_counts(runs: Path, old: str, new: str, said: str) -> None:
    text = (runs / "gear-l" / "evaluations.jsonl").read_text()
    (runs / "gear-b" / "evaluations.jsonl").write_text(text.replace(old, new))
    drawing = convergence.draw([*opened([runs / "gear-b"]), *pair(runs)])
    assert not [drawn for drawn in drawing.figure.axes[0].get_lines() if drawn.get_label() == "gear-b"]
    assert f"Left out of (a), as gFIDs compare only at equal n and reference: {said}." in drawing.lacking
    assert not any("gear-b has no" in text for text in drawing.lacking)


@pytest.mark.parametrize(
    ("few", "reference", "said"),
    [
        (64, {"kind": "npz", "path": "reference.npz"}, "n = 64 against reference.npz"),
        (50_000, {"path": "cifar10-test", "n": 64}, "n = 50,000 against cifar10-test (64 images)"),
        (50_000, {"path": "reference.npz", "sha256": "x"}, "n = 50,000 against reference.npz of other content"),
    ],
)
def test_figure_1_does_not_mix_references(
    runs: Path, few: int, reference: dict[str, Any], said: str, head: Made, scores: Made
) -> None:
    """By how many images, in the curves and in the bars."""
    for name, gfid in (("few-1", 30.0), ("few-2", 20.0)):
        whole = head("adm", "gear-l", n=few, steps=100 * int(name[-1]), params=343_000_000)
        write = {"metrics": scores(few, gfid=gfid), "reference": reference}
        (runs / "gear-l" / name).mkdir()
        (runs / "gear-l" / name / "results.json").write_text(json.dumps(whole | write))
    curves, _, left = convergence.of_steps(pair(runs))
    assert [len(curve) for curve in curves] == [20, 20]  # by the protocol each has one step of 50,000 images
    sizes, of, left = of_sizes(pair(runs))
    assert sizes["gear"][343_000_000] == [pytest.approx(9.6), pytest.approx(2.88)]
    assert (of, left) == (
        "n = 50,000 against reference.npz",
        [f"gear-l ({said})"],
    )


def test_two_runs_of_one_size_are_both_drawn(write: Written, head: Made, scores: Made) -> None:
    for name, gfid in (("seed-s", 8.0), ("seed-l", 9.0)):
        write(f"{name}/adm", head("adm", name, params=1_000_000) | {"metrics": scores(gfid=gfid)})
    folder = write("other/adm", head("adm", "x", params=1_000_000) | {"metrics": scores(gfid=100.0)}).parent.parent
    drawing = convergence.draw(opened([folder / name for name in ("seed-s", "seed-l", "other")]))
    (axes,) = drawing.figure.axes
    bars = [bar for bar in axes.patches if isinstance(bar, Rectangle)]
    assert [bar.get_height() for bar in bars] == [8.0, 9.0, 100.0]
    assert bars[0].get_x() + bars[0].get_width() < bars[1].get_x()
    assert axes.get_ylim()[1] < 20  # far above the others
    assert "other: 100.0 without CFG" in texts(axes)
    assert [text.get_text() for text in drawing.figure.legends[0].get_texts()][:3] == ["seed-s", "seed-l", "other"]


def test_a_run_far_beyond_the_others_is_cut_off_and_said(runs: Path) -> None:
    file = runs / "gear-b" / "evaluations.jsonl"
    file.write_text(
        "".join(json.dumps({"step": s, "gfid": 105.0, "network": "efficientnet_lite1"}) + "\n" for s in (100, 200))
    )
    drawing = convergence.draw([*pair(runs), *opened([runs / "gear-b"])])
    assert drawing.figure.axes[0].get_ylim()[1] < 105
    assert "gear-b: 105 at step 200" in texts(drawing.figure.axes[0])
    assert "gear-b, at 105 at step 200, is beyond the frame." in drawing.caption


def test_a_run_in_progress_has_no_final_value(runs: Path) -> None:
    file = runs / "llamagen-repa-l" / "config.json"
    config = json.loads(file.read_text())
    for steps, said in ((1000, "final gFID"), (1049, "final gFID"), (2000, "gFID at step 1,000 of 2,000")):
        file.write_text(json.dumps(config | {"steps": steps}))
        assert f"gear-l reaches llamagen-repa-l's {said}, " in convergence.draw(pair(runs)).caption
    assert "next-token prediction loss at step 1,000 of 2,000" in dynamics.draw(pair(runs)).caption
