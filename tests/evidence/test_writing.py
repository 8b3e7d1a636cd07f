"""RESULTS.md: markers and what stands between them, and that the repository's own is in step with its results."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gear.config import ConfigError
from gear.evidence import results, writing
from gear.evidence.arms import ARMS
from gear.evidence.claims import CLAIMS
from gear.evidence.results import HERE, Result
from gear.evidence.scales import CPU, GPU, SCALES, Scale
from gear.evidence.writing import write

from .conftest import complete

Results = dict[tuple[str, int], Result]
ROOT = Path(__file__).parents[2]
OTHERS = ("RESULTS-cpu-7-8.md", "RESULTS-gpu.md")
NAMES = ("arms", "cost", "verdicts", "pace", *map(str, CLAIMS))
BLOCKS = "".join(f"## {name}\n\n<!-- evidence cpu {name} -->\nold\n<!-- end -->\n\nBy hand.\n\n" for name in NAMES)


@pytest.fixture
def report(tmp_path: Path) -> Path:
    path = tmp_path / "RESULTS.md"
    path.write_text(BLOCKS)
    return path


@pytest.fixture
def evidence(tmp_path: Path, everything: Results, pace: dict[str, Any]) -> Path:
    for (arm, seed), result in everything.items():
        results.write(results.place(tmp_path / "evidence", CPU, arm, seed), result)
    (tmp_path / "evidence" / "cpu" / "pace.json").write_text(json.dumps(pace))
    return tmp_path / "evidence"


def test_between_the_markers_all_is_made_and_the_rest_stays(report: Path, evidence: Path) -> None:
    paths = write(CPU, evidence, report)
    figures = [evidence / "cpu" / f"{name}.svg" for name in ("convergence", "knobs", "usage")]
    assert paths == [*figures, report]
    text = report.read_text()
    assert "old" not in text.splitlines()
    assert text.count("By hand.") == text.count("<!-- end -->") == len(NAMES)
    assert text.count("](evidence/cpu/") == 3
    for line in text.splitlines():  # a seed of another claim would be a fourth one
        cells = [cell.strip() for cell in line.split("|")]
        assert not line.startswith("| `") or "6" not in cells[2:3], line
        assert len(cells) != 9 or cells[2] not in ("`repa`", "`llamagen`") or cells[3].count(",") == 2, line
    assert "![" in text[text.index("cpu 4 -->") : text.index("cpu 5 -->")]


def test_writing_twice_gives_the_same_bytes(report: Path, evidence: Path) -> None:
    first = {path: path.read_bytes() for path in write(CPU, evidence, report)}
    assert {path: path.read_bytes() for path in write(CPU, evidence, report)} == first


def test_other_seeds_have_a_report_and_figures_of_their_own(evidence: Path) -> None:
    of_all = [complete(arm.name, seed) for arm in ARMS for seed in (7, 8)]  # seeds that are for every claim
    for result in of_all:
        results.write(results.place(evidence, CPU, result.arm, result.seed), result)
    again = replace(CPU, seeds=(7, 8))
    assert tuple(writing.report(scale, HERE) for scale in (CPU, again, GPU)) == tuple(
        map(Path, ("RESULTS.md", *OTHERS))
    )
    assert writing.report(CPU, Path("mine")) == Path("mine/RESULTS.md")
    paths = write(again, evidence, evidence.parent / "other" / writing.report(again, HERE))
    assert [path.name for path in paths[:-1]] == [f"{name}-7-8.svg" for name in ("convergence", "knobs", "usage")]
    text = paths[-1].read_text()
    assert text.startswith("# What came of `gear evidence`, scale cpu, seeds 7, 8\n")
    assert f"{len(of_all)} of {len(of_all)} results are there" in text
    assert "](../evidence/cpu/usage-7-8.svg)" in text
    first = {path: path.read_bytes() for path in paths}
    assert {path: path.read_bytes() for path in write(again, evidence, paths[-1])} == first


def test_claims_that_no_seed_is_for_are_left_out(tmp_path: Path) -> None:
    for result in (complete(name, seed, GPU) for name in ("repa", "gear") for seed in GPU.seeds):
        results.write(results.place(tmp_path, GPU, result.arm, result.seed), result)
    paths = write(GPU, tmp_path, tmp_path / "RESULTS-gpu.md")
    assert [path.name for path in paths] == ["convergence.svg", "RESULTS-gpu.md"]
    text = paths[-1].read_text()
    names = ("arms", "cost", "verdicts", "pace", "1", "2", "5", "10")
    assert re.findall(r"<!-- evidence gpu (\S+) -->", text) == [*names]
    decided = text[: text.index("**On seeds that were not")]
    assert {line.split()[1] for line in decided.splitlines() if re.match(r"\| \d+[a-c]? ", line)} == {
        *("1a", "1b", "1c", "2a", "2b", "5a", "5b", "10")
    }


def test_before_anything_has_run(report: Path, tmp_path: Path) -> None:
    assert write(CPU, tmp_path / "nowhere", report) == [report]
    assert "Nothing has run yet" in report.read_text()


def test_another_scale_is_left_alone(report: Path, tmp_path: Path) -> None:
    other = "<!-- evidence gpu 1 -->\nold\n<!-- end -->\n"
    report.write_text(BLOCKS + other)
    write(CPU, tmp_path, report)
    assert report.read_text().endswith(other)
    with pytest.raises(
        ValueError, match=r"no place for arms, cost, verdicts, pace, 2, .*: add the lines <!-- evidence gpu"
    ):
        write(GPU, tmp_path, report)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("<!-- evidence cpu 3 -->", "", "has no place for 3: add the lines <!-- evidence cpu 3 --> and <!-- end -->"),
        ("<!-- end -->", "", "no line <!-- end --> closes <!-- evidence cpu arms -->: add it"),
        ("<!-- evidence cpu 3 -->", "<!-- evidence cpu 2 -->", "<!-- evidence cpu 2 --> is there twice, or no part of"),
        (
            "<!-- evidence cpu 3 -->",
            "<!-- evidence cpu 33 -->",
            "<!-- evidence cpu 33 --> is there twice, or no part of",
        ),
    ],
)
def test_a_marker_that_is_wrong_is_named(report: Path, tmp_path: Path, old: str, new: str, said: str) -> None:
    report.write_text(before := BLOCKS.replace(old, new, 1))
    with pytest.raises(ValueError) as error:  # noqa: PT011
        write(CPU, tmp_path, report)
    assert said in str(error.value)
    assert report.read_text() == before


def test_a_result_of_another_protocol_is_refused(report: Path, evidence: Path, everything: Results) -> None:
    changed = replace(everything["gear", 0], protocol="another")
    results.write(results.place(evidence, CPU, "gear", 0), changed)
    with pytest.raises(ConfigError, match=r"gear-0\.json was made by another protocol"):
        write(CPU, evidence, report)


@pytest.mark.parametrize("scale", SCALES.values(), ids=SCALES.keys())
def test_the_reports_of_this_repository_are_in_step(scale: Scale, tmp_path: Path) -> None:
    report = shutil.copy(ROOT / writing.report(scale, HERE), tmp_path)
    shutil.copytree(ROOT / results.HERE / scale.name, tmp_path / results.HERE / scale.name)
    for made in write(scale, tmp_path / results.HERE, Path(report)):
        kept = ROOT / made.relative_to(tmp_path)
        assert made.read_bytes() == kept.read_bytes(), f"{kept}: `gear evidence write --scale {scale.name}`"
