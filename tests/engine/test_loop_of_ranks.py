"""What the loop logs, counts and decides on two ranks, on one, and on one number after another. Real torchrun ranks."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gear.train import log

WORKER = Path(__file__).parent / "loop_worker.py"
CLOCK = ("seconds", "images_per_s", "memory_gib", "ranks")
LONG = 300  # seconds in which a rank that waits for another in vain has been found out


def went(size: int, run: Path, stop: int = -1, spoiled: tuple[int, int] = (0, 0)) -> str:
    """What was printed."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(size)] if size > 1 else []
    command = [sys.executable, *launcher, str(WORKER), str(run), str(stop), *map(str, spoiled)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"}, timeout=LONG
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def lines(run: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in line.items() if k not in CLOCK} for line in log.read(run / log.NAME)]


def test_one_log_for_any_number_of_ranks(tmp_path: Path) -> None:
    """Also of a run that goes on with another number between two lines: two, one, two."""
    went(1, tmp_path / "alone", spoiled=(5, 7))
    went(2, tmp_path / "two", spoiled=(5, 7))
    for size, stop in ((2, 5), (1, 8), (2, -1)):
        went(size, tmp_path / "changing", stop, (5, 7))
    alone = lines(tmp_path / "alone")
    assert [line["step"] for line in alone] == [4, 8, 12]
    assert [line["skipped_tokenizer"] for line in alone] == [0, 2, 0]
    assert [line["broken_images"] for line in alone] == [2, 2, 2]
    for other in ("two", "changing"):
        assert lines(tmp_path / other) == [pytest.approx(line, rel=1e-5) for line in alone]


def test_two_ranks_stopped_within_a_row_of_updates_left_out(tmp_path: Path) -> None:
    """They count on alike: else one would look for the cause, which takes all of them, while the other trains."""
    went(2, tmp_path / "run", 4, (2, 99))
    said = went(2, tmp_path / "run", spoiled=(2, 99))
    assert sorted(line[:6] for line in said.splitlines()) == ["rank 0", "rank 1"]
    assert said.count("from step 2 on") == 2
    assert went(2, tmp_path / "run") == ""  # mended
