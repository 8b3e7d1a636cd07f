"""gear status: a run is read as it is, torn and hostile files included, and nothing of it changes."""

import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from gear import run as runs
from gear import status
from gear.cli import main
from gear.config import Config
from gear.config_json import to_json
from gear.recipes import demo
from gear.train import lock, log, state

ROOT = Path(__file__).parent.parent


def line(step: int, **more: Any) -> dict[str, Any]:
    numbers = {
        "step": step,
        "seconds": 2.0 * step,
        "images_per_s": 16.25,
        "ntp": 6.5 - step / 100,
        "grad_tokenizer": 0.5,
    }
    numbers |= {"skipped_tokenizer": 0, "effective_size": 400.0 - step, "codebook_entropy": 5.9, "dead_codes": 0.12}
    return numbers | {"memory_gib": 1.5, "ranks": 1} | more


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run of `demo` that was stopped after step 40 of 550, with its lock free and a checkpoint of step 30."""
    path = tmp_path / "runs" / "mine"
    path.mkdir(parents=True)
    (path / "config.json").write_text(to_json(demo()))
    write(path / log.NAME, [line(10), line(20, skipped_tokenizer=3), line(30), line(40)])
    checkpoint(path / state.NAME, 30)
    return path


def write(path: Path, lines: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(each) + "\n" for each in lines))


def aged(path: Path, seconds: float) -> None:
    """As if written so long ago, or in the future."""
    then = time.time() - seconds
    os.utime(path, (then, then))


def checkpoint(path: Path, step: int) -> None:
    path.parent.mkdir(exist_ok=True)
    save_file({"a": torch.zeros(5), "b": torch.zeros(3)}, path, state.header(step, demo(), ["x"]))


def table(path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> str:
    """As a user sees it in 80 columns, in one line to search in."""
    monkeypatch.setenv("COLUMNS", "80")
    capsys.readouterr()
    main(["status", str(path)])
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= 80
    return " ".join(said.split())


def object_of(path: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    def no_constant(name: str) -> None:
        pytest.fail(f"{name} is not JSON")

    capsys.readouterr()
    main(["status", str(path), "--json"])
    return json.loads(capsys.readouterr().out, parse_constant=no_constant)


def test_names_that_are_written_twice() -> None:
    """So that torch need not be imported."""
    assert (status.CONFIG, status.CHECKPOINT) == (runs.CONFIG, state.NAME)


def test_a_stopped_run(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    found = object_of(folder, capsys)
    assert (found["run"], found["name"], found["state"], found["stage"]) == (str(folder), "mine", "stopped", "Gear")
    assert (found["step"], found["steps"], found["resumes_at"], found["ranks"]) == (40, 550, 30, 1)
    assert (found["images_per_s"], found["seconds"], found["memory_gib"]) == (16.25, 80.0, 1.5)
    assert found["seconds_left"] == pytest.approx(510 * 2.0)
    assert 0 <= found["log_age_s"] < 60
    assert found["metrics"] == {"ntp": pytest.approx(6.1), "grad_tokenizer": 0.5}
    assert found["codebook"] == {
        "effective_size": 360.0,
        "largest_seen": 390.0,
        "codebook_entropy": 5.9,
        "dead_codes": 0.12,
    }
    assert found["skipped"] == {"tokenizer": {"updates": 3, "last_step": 20}}
    assert found["evaluations"] == {"last": None, "best": {}}
    (saved,) = found["checkpoints"]
    assert (saved["file"], saved["step"], saved["damaged"]) == (state.NAME, 30, False)
    assert saved["bytes"] == (folder / state.NAME).stat().st_size
    assert found["holder"] is None
    assert found["warnings"] == []
    assert found["disk_free"] > 0
    said = table(folder, capsys, monkeypatch)
    for expected in (
        "run mine, Gear",
        "state stopped at step 40; the same command goes on from 30",
        "step 40 of 550 (7.3%)",
        "speed 16.2 images/s, 80 s of training, 17.0 min left",
        "ntp 6.1",
        "effective size 360.0, 92% of the largest so far (390.0); entropy 5.900; 12.0% dead",
        "left out 3 of tokenizer (last: step 20) updates",
        "step 30 0.0 MiB",
        "iB free",
    ):
        assert expected in said, said


def test_the_keys_are_those_of_the_docstring(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys = object_of(folder, capsys).keys()
    assert [key for key in keys if f" {key} " not in (status.__doc__ or "")] == []
    assert len(keys) == 22


def test_a_run_in_progress(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with lock.locked(folder):
        found = object_of(folder, capsys)
        assert found["state"] == "running"
        assert found["holder"]["pid"] == os.getpid()
        assert f"state running as process {os.getpid()} on " in table(folder, capsys, monkeypatch)
    assert object_of(folder, capsys)["state"] == "stopped"


def test_before_the_first_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with lock.locked(tmp_path):  # while images are prepared there is nothing else
        found = object_of(tmp_path, capsys)
        assert (found["state"], found["step"], found["steps"]) == ("running", 0, None)
    (tmp_path / "config.json").write_text(to_json(demo()))
    found = object_of(tmp_path, capsys)
    assert (found["state"], found["steps"], found["log_age_s"], found["log_in_future"]) == (
        "not started",
        550,
        None,
        False,
    )


def test_without_locks_in_the_filesystem_a_fresh_log_tells(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    aged(folder / log.NAME, 1)
    assert object_of(folder, capsys)["state"] == "stopped"  # a run that has ended leaves no lock file
    (folder / lock.NAME).write_text("")
    for age, expected in ((1, "running"), (50, "running"), (80, "stopped")):  # a line takes 20 s
        aged(folder / log.NAME, age)
        assert object_of(folder, capsys)["state"] == expected
    write(folder / log.NAME, [line(10, seconds=100.0), line(20, seconds=200.0)])
    aged(folder / log.NAME, 250)
    assert object_of(folder, capsys)["state"] == "running"  # a line takes 100 s


def test_a_finished_run(trained: Path, tiny: Config, capsys: pytest.CaptureFixture[str]) -> None:
    """A real one, of which nothing changes."""
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in trained.iterdir() if path.is_file()}
    found = object_of(trained, capsys)
    assert (found["state"], found["step"], found["steps"]) == ("finished", tiny.steps, tiny.steps)
    assert found["seconds_left"] is None
    assert found["resumes_at"] == tiny.steps
    assert {"reconstruction", "ntp", "align_hard"} <= found["metrics"].keys()
    assert found["skipped"].keys() >= {"tokenizer", "generator"}
    assert found["codebook"]["largest_seen"] >= found["codebook"]["effective_size"] > 0
    after = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in trained.iterdir() if path.is_file()}
    assert after == before


def test_torn_and_hostile_lines(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    garbage = [
        b"\xff\xfe\x00",
        b"[" * 100_000,
        b"[1, 2]",
        b'"text"',
        b'{"step": "9"}',
        b'{"step": 1e9}',
        b'{"step": -4}',
    ]
    garbage += [b'{"step": 1' + b"0" * 400 + b"}", b"9" * 5000]
    good = [json.dumps(line(10)).encode(), json.dumps(line(20) | {"\x1b[31m[red]": 1.0, "ntp": None}).encode()]
    content = b"\n".join([*garbage, good[0], *garbage, good[1], b'{"step": 30, "nt'])
    (folder / log.NAME).write_bytes(content)
    found = object_of(folder, capsys)
    assert (found["step"], found["seconds"], found["resumes_at"]) == (30, 40.0, 30)
    assert found["metrics"]["ntp"] is None
    said = table(folder, capsys, monkeypatch)
    assert "\x1b" not in said
    assert r"\x1b[31m[red]" in said
    assert "ntp not finite" in said


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, -math.inf, 1e308, -3, True, "text", [1], {"a": 1}, 10**400], ids=lambda v: str(v)[:9]
)
def test_numbers_of_any_kind(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, value: Any
) -> None:
    last = {name: value for name in line(0) if name != "step"}
    (folder / log.NAME).write_text("\n".join(map(json.dumps, [line(10), last | {"step": 20}])))
    write(folder / "evaluations.jsonl", [{"step": 10, "gfid": value}])
    assert object_of(folder, capsys)["step"] == 30
    assert "mine, Gear" in table(folder, capsys, monkeypatch)


@pytest.mark.parametrize("ahead", [3600.0, 1.0])
def test_a_clock_that_went_backwards(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, ahead: float
) -> None:
    """A second is what the clocks of two machines may differ by."""
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    for name in (log.NAME, state.NAME):
        aged(folder / name, -ahead)
    found, said = object_of(folder, capsys), table(folder, capsys, monkeypatch)
    if ahead > 2:
        assert (found["log_age_s"], found["log_in_future"], found["checkpoints"][0]["age_s"]) == (None, True, None)
        assert said.count("in the future: clock") == 2
    else:
        assert 0 <= found["log_age_s"] < 1
        assert not found["log_in_future"]
        assert "future" not in said


def test_checkpoints_whole_and_damaged(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (20, 10):
        checkpoint(folder / "checkpoints" / f"step-{step:08}.safetensors", step)
    aged(folder / "checkpoints" / "step-00000010.safetensors", 7200)
    whole = (folder / state.NAME).read_bytes()
    save_file({"a": torch.zeros(1)}, folder / "checkpoints" / "step-1.safetensors")  # no step in it
    broken = {
        "step-2": whole[:-1],
        "step-3": whole[:40],
        "step-4": b"",
        "step-5": b"\xff" * 64,
        "step-6": whole + b"\0",
    }
    for name, content in broken.items():
        (folder / "checkpoints" / f"{name}.safetensors").write_bytes(content)
    found = object_of(folder, capsys)["checkpoints"]
    assert [(c["step"], c["damaged"]) for c in found] == [(30, False), (20, False), (10, False)] + 6 * [(None, True)]
    assert found[2]["age_s"] == pytest.approx(7200, abs=60)
    said = table(folder, capsys, monkeypatch)
    assert said.count("damaged") == 6
    assert "2.0 h ago checkpoints/step-00000010.safetensors" in said
    (folder / state.NAME).write_bytes(whole[:-1])
    assert object_of(folder, capsys)["resumes_at"] == 20


def test_a_configuration_only_in_the_checkpoint(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "config.json").unlink()
    found = object_of(folder, capsys)
    assert (found["steps"], found["stage"]) == (550, "Gear")
    (folder / "config.json").write_text('{"kind": "Config", "stage": {"kind": "Later"}, "steps": 70, "new": 1}')
    found = object_of(folder, capsys)  # of another version
    assert (found["steps"], found["stage"]) == (70, "Later")


def test_evaluations_and_warnings(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = [(10, 30.0, 20.0), (20, 25.0, 19.0), (30, None, 21.0), (40, 27.0, 20.5)]
    write(folder / "evaluations.jsonl", [{"step": s, "gfid": f, "psnr": p, "other": 1.0} for s, f, p in measured])
    told = [{"step": 10 * i, "kind": "effective_size", "message": f"fell [bold]{i}"} for i in range(5)]
    write(folder / "health.jsonl", [{"step": 1}, *told])
    found = object_of(folder, capsys)
    assert found["evaluations"] == {
        "last": {"step": 40, "gfid": 27.0, "psnr": 20.5, "other": 1.0},
        "best": {"gfid": {"value": 25.0, "step": 20}, "psnr": {"value": 21.0, "step": 30}},
    }
    assert found["warnings"] == told
    said = table(folder, capsys, monkeypatch)
    assert "evaluation of step 40" in said
    assert "gfid 27 best 25 at step 20" in said
    assert "psnr 20.5 best 21 at step 30" in said
    assert "warnings, 5 step 20, effective_size: fell [bold]2" in said
    assert "[bold]4" in said
    assert "[bold]1" not in said


def test_a_folder_of_runs(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    long = folder.parent / "a-run-with-quite-a-long-name-in-bfloat16"
    long.mkdir()
    (long / "config.json").write_text(to_json(demo()))
    write(long / log.NAME, [line(1_234_000, images_per_s=12345.678)])
    aged(long / log.NAME, -999)
    (folder.parent / "exported").mkdir()
    (folder.parent / "exported" / "config.json").write_text('{"kind": "Tokenizer"}')
    (folder.parent / "report.html").write_text("")
    found = object_of(folder.parent, capsys)
    assert [each["name"] for each in found["runs"]] == [long.name, "mine"]
    said = table(folder.parent, capsys, monkeypatch)
    for expected in ("1,234,000 / 550", "12345.7", "in future", "mine stopped 40 / 550 16.2 17.0 min"):
        assert expected in said, said


@pytest.mark.parametrize("name", ["nowhere", "file", "empty", "exported"])
def test_what_is_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    (tmp_path / "exported").mkdir()
    (tmp_path / "exported" / "config.json").write_text('{"kind": "Tokenizer"}')
    with pytest.raises(SystemExit) as end:
        main(["status", str(tmp_path / name)])
    assert end.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"gear: {tmp_path / name} is neither a run nor a folder of runs, there being n")
    assert said.err.count("\n") == 1


def test_it_neither_waits_for_torch_nor_writes(folder: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in [folder, *folder.rglob("*")]}
    code = "import atexit, os, sys; atexit.register(lambda: os._exit(9 if 'torch' in sys.modules else 0))"
    command = [sys.executable, "-c", f"{code}\nfrom gear.cli import main\nmain()", "status", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert {path: path.stat().st_mtime_ns for path in [folder, *folder.rglob("*")]} == before


def test_python_m_gear(folder: Path) -> None:
    command = [sys.executable, "-m", "gear", "status", str(folder), "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert json.loads(done.stdout)["step"] == 40
