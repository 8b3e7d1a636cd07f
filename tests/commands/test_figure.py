"""`gear figure` on the files of a run."""

import json
from pathlib import Path

import pytest
import tyro

from gear.commands.figure import figure


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    for name, rate in (("gear", 0.4), ("frozen", 0.1)):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps({"stage": {"kind": name.title()}}))
        lines = [{"step": s, "ntp": 1 / (1 + rate * s), "align_hard": -rate * s} for s in range(1, 40)]
        (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path / "runs"


def called(*args: object) -> None:
    tyro.cli(figure, prog="gear figure", args=[str(arg) for arg in args])


def test_it_writes_three_files_and_says_which(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    called("3", runs / "gear", runs / "frozen", "--out", tmp_path / "out", "--labels", "GEAR", "LlamaGen-REPA")
    said = capsys.readouterr().out
    assert "GEAR reaches LlamaGen-REPA's final next-token prediction loss" in said
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["figure3.pdf", "figure3.png", "figure3.txt"]
    assert all(str(tmp_path / "out" / f"figure3.{suffix}") in said for suffix in ("pdf", "png", "txt"))


def test_the_baseline_can_be_named(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    called("3", runs, "--out", tmp_path / "out", "--baseline", "gear")
    assert "frozen does not reach gear's final" in capsys.readouterr().out
    with pytest.raises(ValueError, match="--baseline other is none of the runs, which are frozen, gear"):
        called("3", runs, "--baseline", "other")


def test_a_report_is_one_page(runs: Path, tmp_path: Path) -> None:
    called("report", runs, "--out", tmp_path)
    assert "Next-token" not in (tmp_path / "report.html").read_text()[:200]
    assert "<h3>Losses</h3><figure>" in (tmp_path / "report.html").read_text()


def test_what_is_missing_is_said_and_nothing_written(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"`gear probe .*frozen --data IMAGES` makes one"):
        called("5", runs, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()
