"""What is read of a run, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from gear.figures.paper.found import NothingToDraw, finite, names, opened, run


def test_a_run_has_its_log_evaluations_results_and_probes(runs: Path) -> None:
    (found,) = opened([runs / "gear-l"])
    assert (found.name, found.stage, found.tap) == ("gear-l", "gear", 4)
    assert found.curve("ntp")[0] == (10.0, pytest.approx(5.9607894))
    assert len(found.curve("gfid", watched=True)) == 20
    assert found.curve("L_VQ") == []  # null throughout
    assert found.curve("missing", "ntp") == found.curve("ntp")
    scales = [(result.cfg_scale, result.metrics["gfid"]) for result in found.of("point")]
    assert scales == [(1.0, 10.0), (1.5, 4.0), (2.0, 6.0)]
    assert [(r.cfg_scale, r.n, r.params) for r in found.of("adm")] == [
        (1.0, 50_000, 343_000_000),
        (1.5, 50_000, 343_000_000),
    ]
    assert [r.steps for r in found.of("probe")] == [1000]


def test_the_log_that_training_writes(trained: Path) -> None:
    (found,) = opened([trained])
    for key in ("ntp", "align_hard", "align_soft", "codebook_entropy", "effective_size"):
        assert [step for step, _ in found.curve(key)] == [2.0, 4.0, 6.0], key
    assert (found.stage, found.tap) == ("gear", 1)


def test_a_folder_of_runs_stands_for_all_in_it(runs: Path) -> None:
    (runs / "empty").mkdir()
    found = opened([runs])
    assert [r.name for r in found] == ["gear-b", "gear-l", "llamagen-repa-b", "llamagen-repa-l", "warmup-vq"]
    assert [r.stage for r in found if r.name == "warmup-vq"] == ["warmup"]


def test_one_file_is_a_run(runs: Path) -> None:
    (probe, log) = opened([runs / "gear-l/probe/probe.json", runs / "gear-l/log.jsonl"])
    assert (len(probe.of("probe")), probe.log, len(log.log)) == (1, [], 100)
    assert probe.stage == "gear"  # as its model says


def test_names_tell_runs_apart(tmp_path: Path) -> None:
    paths = [tmp_path / "a" / "x", tmp_path / "b" / "x"]
    for path in paths:
        path.mkdir(parents=True)
    assert names(paths) == ["a/x", "b/x"]


def test_a_folder_that_is_given_twice_is_there_once(runs: Path) -> None:
    found = opened([runs / "gear-l", runs / "gear-l", runs / "gear-b" / ".." / "gear-l"], ["x"])
    assert [r.name for r in found] == ["x"]


def test_a_point_of_a_sweep_is_there_once(runs: Path) -> None:
    """The sweep leaves a results.json of each, too."""
    sweep = json.loads((runs / "gear-l/sweep/results.json").read_text())
    inner = runs / "gear-l" / "sweep" / "cfg-1.5"
    inner.mkdir()
    whole = {"protocol": "adm", "metrics": sweep["points"][1]["metrics"], "settings": {"cfg_scale": 1.5}}
    (inner / "results.json").write_text(json.dumps(whole | {"model": sweep["model"]}))
    (found,) = opened([runs / "gear-l"])
    assert len(found.of("adm")) == 2  # the two single ones
    assert [r.metrics["gfid"] for r in found.generated if r.cfg_scale == 1.5] == [pytest.approx(2.88), 4.0]


def test_of_a_step_that_is_there_twice_the_later_line_counts(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('{"step": 2, "ntp": 1.0}\n{"step": 1, "ntp": 3.0}\n{"step": 2, "ntp": 2.0}\n')
    assert run(tmp_path, "x").curve("ntp") == [(1.0, 3.0), (2.0, 2.0)]


@pytest.mark.parametrize("value", [None, "1", True, float("nan"), float("inf"), [1.0]])
def test_only_finite_numbers_count(value: Any) -> None:
    assert finite(value) is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is damaged"),
        ("[" * 100_000, "is damaged"),
        ("[]", "should hold a JSON object; it holds a list"),
        ("{}", 'has no "protocol"'),
        ('{"protocol": 3}', 'has no "protocol"'),
    ],
    ids=["torn", "nested", "a list", "empty", "another kind"],
)
def test_files_that_hold_no_results_are_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        opened([tmp_path])


def test_fields_of_another_kind_are_as_if_not_measured(tmp_path: Path) -> None:
    whole = {
        "protocol": "adm",
        "metrics": {"gfid": 3, "sfid": {"value": "x"}},
        "model": [],
        "settings": None,
        "points": 1,
    }
    (tmp_path / "results.json").write_text(json.dumps(whole))
    (found,) = run(tmp_path, "x").results
    assert (found.metrics, found.recipe, found.steps, found.cfg_scale, found.n) == ({}, None, None, None, None)


def test_what_cannot_be_opened_is_said_in_a_sentence(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no run was given"):
        opened([])
    with pytest.raises(ValueError, match="nowhere is not there"):
        opened([tmp_path / "nowhere"])
    with pytest.raises(ValueError, match="one name for each of 5 runs; there are 1"):
        opened([runs], ["GEAR"])
    with pytest.raises(ValueError, match="names that differ"):
        opened([runs / "gear-l", runs / "gear-b"], ["a", "a"])
    (tmp_path / "bare").mkdir()
    with pytest.raises(NothingToDraw, match=r"holds no log\.jsonl"):
        opened([tmp_path / "bare"])
