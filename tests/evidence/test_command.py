"""`gear evidence` as it is called."""

import os
from pathlib import Path

import pytest
import torch

from gear.commands.evidence import evidence
from gear.config import ConfigError
from gear.evidence import results
from gear.evidence.arms import ARMS
from gear.evidence.scales import SCALES, Scale

pytestmark = pytest.mark.usefixtures("stand_ins")


@pytest.fixture
def small(small_scale: Scale, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, from which `gear evidence` is called; its scale cpu is the smallest."""
    monkeypatch.setitem(SCALES, "cpu", small_scale)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_run_list_and_write(small: Path, small_scale: Scale, capsys: pytest.CaptureFixture[str]):
    evidence(only=("warmup-vq",), seeds=(5,))
    assert "next: gear evidence write --scale cpu --seeds 5\n" in capsys.readouterr().out
    assert list(results.every(small / "evidence", small_scale)) == [("warmup-vq", 5)]
    assert sorted(os.listdir(small / "runs" / "evidence" / "cpu")) == ["warmup-vq-5", "warmup-vq-5.queue"]

    evidence(only=("warmup-vq",), seeds=(5,))
    assert capsys.readouterr().out.startswith(
        "1 of 1 results are in evidence/cpu: nothing to run. Anew: --results NEW_FOLDER."
    )

    evidence("list", seeds=(5,))
    said = capsys.readouterr().out
    assert all(arm.name in said for arm in ARMS)
    assert f"1 of {len(ARMS)} results are in" in said

    evidence("write", seeds=(5,))
    assert capsys.readouterr().out.splitlines()[-1] == "RESULTS-cpu-5.md"
    assert "| `warmup-vq` |" in (small / "RESULTS-cpu-5.md").read_text()

    evidence(only=("warmup-vq",), seeds=(5,), results=Path("mine"))
    assert "next: gear evidence write --scale cpu --seeds 5 --results mine\n" in capsys.readouterr().out
    evidence("write", seeds=(5,), results=Path("mine"))
    assert capsys.readouterr().out.splitlines()[-1] == "mine/RESULTS-cpu-5.md"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"what": "write", "only": ("gear",)}, "gear evidence write is of all arms: leave --only out"),
        ({"what": "pace", "seeds": (1,)}, "gear evidence pace has a seed of its own: leave --seeds out"),
        ({"what": "run", "only": ("geer",)}, "there is no arm geer; there are warmup-vq, "),
    ],
)
def test_what_cannot_be_asked(given: dict, message: str, small: Path):
    what = given.pop("what")
    with pytest.raises(ValueError, match=message):
        evidence(what, **given)
    assert os.listdir(small) == []


@pytest.mark.parametrize("what", ["run", "pilot", "pace"])
def test_the_scale_of_a_gpu_wants_one(what, small: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="scale gpu is for a GPU, and torch sees none: leave --scale out, or give"):
        evidence(what, scale="gpu")
    assert os.listdir(small) == []


def test_what_is_there_of_it_can_be_seen_without(small: Path, capsys: pytest.CaptureFixture[str]):
    evidence("list", scale="gpu")
    assert "0 of 27 results are in evidence/gpu" in capsys.readouterr().out
