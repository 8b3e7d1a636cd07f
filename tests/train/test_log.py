"""Means over intervals, one line for each, and the same lines however often a run was interrupted."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gear.step import Step
from gear.train.log import Log, read

TIMES = ("seconds", "images_per_s")


def steps(n: int, K: int = 4) -> list[Step]:
    rng = np.random.default_rng(0)
    made = []
    for _ in range(n):
        terms = {"ntp": torch.tensor(rng.normal()), "align_hard": torch.tensor(rng.normal(), dtype=torch.float32)}
        made.append(Step(terms, torch.from_numpy(rng.integers(0, 9, K)).float()))
    return made


def untimed(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in line.items() if k not in TIMES} for line in lines]


def write(path: Path, steps: list[Step], every: int, done: int = 0, stop: int | None = None) -> dict[str, Any]:
    """Logs steps done .. stop as the loop does; returns what was pending at the end."""
    log = Log(path, done)
    for i in range(done, len(steps) if stop is None else stop):
        log.add(steps[i], 8)
        if (i + 1) % every == 0:
            log.line(i + 1)
    return log.pending()


def test_each_line_is_the_mean_since_the_line_before(tmp_path: Path) -> None:
    made = steps(6)
    assert write(tmp_path / "log", made, every=3) == {}
    lines = read(tmp_path / "log")
    assert [line["step"] for line in lines] == [3, 6]
    for line, part in zip(lines, (made[:3], made[3:]), strict=True):
        for name in ("ntp", "align_hard"):
            assert line[name] == pytest.approx(np.mean([s.terms[name].item() for s in part]), rel=1e-5)
        counts = np.sum([s.counts.numpy() for s in part], axis=0)
        p = counts[counts > 0] / counts.sum()
        assert line["codebook_entropy"] == pytest.approx(-(p * np.log(p)).sum(), rel=1e-5)
        assert line["effective_size"] == pytest.approx(math.exp(line["codebook_entropy"]), rel=1e-5)


def test_codebook_usage_is_that_of_the_summed_counts(tmp_path: Path) -> None:
    """Two steps that use one half each: together all four codewords, though each alone has an entropy of log 2."""
    log = Log(tmp_path / "log", 0)
    for counts in ([5, 5, 0, 0], [0, 0, 5, 5]):
        log.add(Step({}, torch.tensor(counts, dtype=torch.float32)), 8)
    line = log.line(2)
    assert line["codebook_entropy"] == pytest.approx(math.log(4))
    assert line["effective_size"] == pytest.approx(4)
    assert line["dead_codes"] == 0


def test_terms_that_a_step_reuses_are_not_changed(tmp_path: Path) -> None:
    log, term, counts = Log(tmp_path / "log", 0), torch.tensor(2.0), torch.ones(4)
    for _ in range(3):
        log.add(Step({"ntp": term}, counts), 8)
    assert log.line(3)["ntp"] == 2
    assert (term.item(), counts.tolist()) == (2, [1, 1, 1, 1])


def test_lines_after_the_step_are_dropped(tmp_path: Path) -> None:
    made = steps(8)
    write(tmp_path / "whole", made, every=2)
    write(tmp_path / "log", made, every=2, stop=7)
    write(tmp_path / "log", made, every=2, done=4)  # killed after step 7; its checkpoint was of step 4
    assert untimed(read(tmp_path / "log")) == untimed(read(tmp_path / "whole"))
    seconds = [line["seconds"] for line in read(tmp_path / "log")]
    assert seconds == sorted(seconds)


@pytest.mark.parametrize("at", range(9))
def test_an_interval_goes_on_where_it_was_interrupted(tmp_path: Path, at: int) -> None:
    made = steps(8)
    write(tmp_path / "whole", made, every=3)
    pending = write(tmp_path / "log", made, every=3, stop=at)
    assert bool(pending) == (at % 3 != 0)
    log = Log(tmp_path / "log", at, pending)
    for i in range(at, 8):
        log.add(made[i], 8)
        if (i + 1) % 3 == 0:
            log.line(i + 1)
    assert untimed(read(tmp_path / "log")) == untimed(read(tmp_path / "whole"))


def test_time_is_summed_over_interruptions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("time.perf_counter", lambda: now)
    made = steps(4)
    log = Log(tmp_path / "log", 0)
    log.add(made[0], 8)
    now = 102.0
    line = log.line(1)
    assert (line["seconds"], line["images_per_s"]) == (2, 4)
    log.add(made[1], 8)
    now = 105.0
    pending = log.pending()  # 3 s into the second line
    now = 1000.0
    log = Log(tmp_path / "log", 2, pending)
    log.add(made[2], 8)
    now = 1001.0
    line = log.line(3)
    assert (line["seconds"], line["images_per_s"]) == (2 + 3 + 1, (8 + 8) / (3 + 1))


@pytest.mark.parametrize(
    "end", ['{"step": 4, "sec', "{", '{"step": 4, "seconds": 2.0}'], ids=["cut", "brace", "no newline"]
)
def test_a_last_line_that_was_cut_short(tmp_path: Path, end: str) -> None:
    path = tmp_path / "log"
    path.write_text('{"step": 2, "seconds": 1.5}\n' + end)
    assert [line["step"] for line in read(path)] == ([2, 4] if end.endswith("}") else [2])
    log = Log(path, 2)
    log.add(steps(1)[0], 8)
    log.line(4)
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [2, 4]


def test_no_log_yet(tmp_path: Path) -> None:
    assert read(tmp_path / "log") == []


def test_a_full_disk_at_the_start_leaves_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "log", steps(2), every=1)
    before = (tmp_path / "log").read_bytes()

    def full(path: Path, text: str) -> None:
        path.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space left"):
        Log(tmp_path / "log", 1)
    assert (tmp_path / "log").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["log"]
