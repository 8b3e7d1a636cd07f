"""Smoothing against a fit at each point by itself, and speed-ups by hand."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gear.figures.paper.found import opened
from gear.figures.paper.speed import Reached, baseline, reached, said, smoothed

BASE = [(100.0, 9.0), (500.0, 5.0), (1000.0, 3.0)]


def slow(curve: list[tuple[float, float]], window: float) -> list[float]:
    """A least-squares line through the neighbours of each point."""
    fitted = []
    for x, y in curve:
        near = np.array([p for p in curve if abs(p[0] - x) <= window])
        if len(near) < 3:
            fitted.append(y)
            continue
        A = np.stack([np.ones(len(near)), near[:, 0] - x], axis=1)
        fitted.append(float(np.linalg.lstsq(A, near[:, 1], rcond=None)[0][0]))
    return fitted


@pytest.mark.parametrize("window", [15.0, 60.0, 1e9])
def test_smoothing_is_a_line_through_the_neighbours(window: float) -> None:
    rng = np.random.default_rng(0)
    steps = np.cumsum(rng.integers(1, 20, 200)) + 1_000_000.0
    curve = list(zip(steps.tolist(), (np.exp(-(steps - 1e6) / 500) + rng.normal(0, 0.1, 200)).tolist(), strict=True))
    result = smoothed(curve, window)
    assert [x for x, _ in result] == steps.tolist()
    np.testing.assert_allclose([y for _, y in result], slow(curve, window), atol=1e-7)  # sums of squares of 1e6 steps


def test_a_straight_line_stays_where_it_is() -> None:
    """A mean of what came before would lag behind it, and move the step at which it is somewhere."""
    line = [(float(x), 7.0 - 0.01 * x) for x in range(10, 1000, 10)]
    np.testing.assert_allclose(smoothed(line, 100.0), line, rtol=1e-9)


def test_what_is_not_smoothed() -> None:
    assert smoothed([], 5.0) == []
    assert smoothed(BASE, 0.0) == BASE
    assert smoothed(BASE[:2], 1e6) == BASE[:2]
    assert smoothed(BASE, 1.0) == BASE


def test_where_a_curve_reaches_the_end_of_another() -> None:
    faster = [(100.0, 5.0), (200.0, 4.0), (300.0, 2.0), (1000.0, 1.0)]  # 3 is half way from 200 to 300
    assert reached(faster, BASE) == Reached(level=3.0, step=250.0, factor=4.0, crossed=True)
    assert reached(BASE, BASE) == Reached(3.0, 1000.0, 1.0, True)
    assert reached([(100.0, 9.0), (2000.0, 3.5)], BASE) is None
    assert reached([], BASE) is None
    assert reached(BASE, []) is None


def test_a_run_that_begins_below_is_not_called_faster() -> None:
    found = reached([(10.0, 1.0), (20.0, 0.5)], BASE)
    assert found == Reached(3.0, 10.0, 100.0, crossed=False)
    assert said("naive", found, "repa", "final loss") == "naive is below repa's final loss, 3, from its first point on."
    assert said("gear", Reached(3.0, 250.0, 4.0, True), "repa", "final loss").endswith("at step 250: 4.0x.")
    assert said("gear", None, "repa", "final loss") == "gear does not reach repa's final loss."


def test_the_baseline_is_the_named_run_else_the_frozen_one_else_the_first(runs: Path) -> None:
    found = opened([runs / "gear-l", runs / "llamagen-repa-l"])
    assert baseline(found) == 1
    assert baseline(found, "gear-l") == 0
    assert baseline(found, "not among these") == 1
    assert baseline(found[:1]) == 0
    plain = replace(found[1], config={"stage": {"kind": "Frozen", "lam": 0.0}})
    assert baseline([plain, *found]) == 2  # LlamaGen-REPA before LlamaGen
    assert baseline([found[0], plain]) == 1


@pytest.mark.parametrize("made_by", ["config", "name"])
def test_of_two_frozen_runs_the_one_whose_tokenizer_gear_made_is_no_baseline(
    runs: Path, tmp_path: Path, made_by: str
) -> None:
    """As text-to-image runs: both are frozen and aligned."""
    (repa,) = opened([runs / "llamagen-repa-l"])
    if made_by == "config":
        joint, warm = tmp_path / "joint", tmp_path / "not-gear"
        for folder, kind in ((joint, "Gear"), (warm, "Warmup")):
            folder.mkdir()
            (folder / "config.json").write_text(json.dumps({"stage": {"kind": kind}}))
    else:
        joint, warm = Path("runs/gear-xl"), Path("runs/warmup-vq")
    ours, theirs = (
        replace(repa, name=name, config={**repa.config, "tokenizer": {"init": str(init)}})
        for name, init in (("text-gear", joint), ("text-warmup", warm))
    )
    assert (ours.guided, theirs.guided) == (True, False)
    assert baseline([ours, theirs]) == 1
    assert baseline([theirs, ours]) == 0
    unaligned = replace(theirs, config={**theirs.config, "stage": {"kind": "Frozen", "lam": 0.0}})
    assert baseline([ours, unaligned]) == 1
