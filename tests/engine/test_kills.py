"""`bench.kills` in short: a run that is killed, and started again by the same command, ends as one that is not. Real
processes, the real command line, SIGKILL. `python -m bench.kills --kills 50` is the long version."""

import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from bench import kills
from bench.differences import differences, drift
from bench.kills import Aim, Trial
from bench.lives import life
from gear.config import Config, Watch
from gear.config_json import to_json
from gear.store import torch_file
from gear.train import state
from gear.train.keep import Keeper


@pytest.fixture(scope="session")
def scheduled(tiny: Config) -> Config:
    """`tiny` with everything that a run writes; checkpoints come between two lines of the log."""
    watch = Watch(sample_every=6, samples=4, evaluate_every=12, generated=4, trackers=())
    return replace(tiny, batch=4, steps=27, log_every=3, save_every=4, keep_last=2, watch=watch)


def trial(config: Config, folder: Path, aims: Sequence[Aim], ranks: int) -> Trial:
    """Aims at a moment are in shares of the time that an undisturbed run trains."""
    file, done = folder / "kills.json", Trial(folder / "undisturbed")
    file.write_text(to_json(config))
    start, whole = kills.undisturbed(file, done.undisturbed, ranks)
    timed = [replace(a, delay=start + a.delay * (whole - start)) if a.at == "moment" else a for a in aims]
    kills.killed(file, done, timed, ranks, random.Random(0))
    return done


def test_one_process(scheduled: Config, tmp_path: Path) -> None:
    aims = [Aim("write", 0.0), Aim("evaluation", 0.05), Aim("moment", -0.5), Aim("moment", 0.4)]
    done = trial(scheduled, tmp_path, aims, ranks=1)
    assert done.differences == []
    assert [death.aim for death in done.deaths] == [aim.at for aim in aims]
    assert done.lives == len(done.deaths) + len(done.runs)
    assert done.deaths[1].phase == "sheet or evaluation"
    assert done.deaths[1].repeated == 0  # the checkpoint of its step comes first


def test_one_of_two_ranks(scheduled: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random.Random, "random", lambda self: 0.9)  # one rank, and not everything
    config = replace(scheduled, steps=14, watch=replace(scheduled.watch, evaluate_every=0))
    done = trial(config, tmp_path, [Aim("write", 0.2)], ranks=2)
    assert done.differences == []
    assert len(done.deaths) == 1


WRITING = """
import sys, torch
from gear.store.saving import save_safetensors
from pathlib import Path
file, x = Path(sys.argv[1]), torch.zeros(2**24)
while True:
    save_safetensors(file, {"x": x})
    file.unlink()
"""


def test_a_killed_write_leaves_nothing(tmp_path: Path) -> None:
    """Killed in the middle of one of many; the next life removes what is there."""
    with life([sys.executable, "-c", WRITING, str(tmp_path / state.NAME)], tmp_path, tmp_path / "said.txt") as here:
        while here.until(here.writes, 0.0) and not here.held(here.writes):
            pass
    (tmp_path / "said.txt").unlink()
    assert os.listdir(tmp_path)
    with Keeper(tmp_path, keep_last=2):
        assert os.listdir(tmp_path) == []


COUNTING = """
import itertools, sys, threading, time
def count(name):
    for number in itertools.count():
        with open(f"{sys.argv[1]}/{name}", "w") as file:
            file.write(str(number))
threading.Thread(target=count, args=("a",)).start()
count("b")
"""


def test_what_is_held_stands_still_and_what_is_not_goes_on(tmp_path: Path) -> None:
    def stamps() -> list[int]:
        return [(tmp_path / name).stat().st_mtime_ns for name in "ab"]

    seen = list[list[int]]()
    with life([sys.executable, "-c", COUNTING, str(tmp_path)], tmp_path, tmp_path / "said.txt") as here:
        assert here.until(lambda: (tmp_path / "a").exists() and (tmp_path / "b").exists())
        for _ in range(2):
            assert not here.held(lambda: seen.append(stamps()))
            assert here.until(lambda: stamps()[0] > seen[-1][0] and stamps()[1] > seen[-1][1])
        assert here.held(lambda: seen.append(stamps()) or True)
        time.sleep(0.1)
        assert stamps() == seen[-1]
    assert here.process.returncode == -signal.SIGKILL


# ------------------------------------------------------------------------------------------- what would be seen


@pytest.fixture
def pair(trained: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Two equal runs."""
    for name in ("a", "b"):
        shutil.copytree(trained, tmp_path / name)
        (tmp_path / name / "watch").mkdir()
        Image.new("RGB", (4, 4)).save(tmp_path / name / "watch" / "samples-00000002.png")
    return tmp_path / "a", tmp_path / "b"


def test_equal_runs(pair: tuple[Path, Path]) -> None:
    assert differences(*pair) == []
    assert [(step, largest) for step, largest, _ in drift(*pair)] == [(2, 0.0), (4, 0.0), (6, 0.0)]


def test_one_bit_of_one_tensor(pair: tuple[Path, Path]) -> None:
    file = pair[1] / state.NAME
    tensors, about = load_file(file), torch_file.header(file)
    assert about is not None
    key = next(key for key in tensors if key.startswith("critic_optimizer"))
    tensors[key].view(-1).view(dtype=torch.uint8)[0] ^= 1
    about["sha256"] = json.dumps(state.digests(tensors, {k: v for k, v in about.items() if k != "sha256"}))
    save_file(tensors, file, about)
    assert differences(*pair) == [f"{state.NAME}: {key} differs"]


def test_one_number_of_one_line(pair: tuple[Path, Path]) -> None:
    file = pair[1] / "log.jsonl"
    log = [json.loads(line) for line in file.read_text().splitlines()]
    log[1]["ntp"] *= 1 + 1e-7
    log[2]["seconds"] += 1
    file.write_text("".join(json.dumps(line) + "\n" for line in log))
    assert differences(*pair) == ["log.jsonl: line 2: ntp differ"]
    assert drift(*pair)[1] == (4, pytest.approx(1e-7, rel=1e-3), "ntp")
    file.write_text("".join(json.dumps(line) + "\n" for line in [*log, log[-1]]))
    assert "log.jsonl: 4 lines and not 3" in differences(*pair)


def test_pictures_and_files(pair: tuple[Path, Path]) -> None:
    sheet = pair[1] / "watch" / "samples-00000002.png"
    pixels = np.zeros((4, 4, 3), np.uint8)
    pixels[3, 3, 2] = 1
    Image.fromarray(pixels).save(sheet)
    (pair[1] / ".log.jsonl.0123.partial").touch()
    (pair[1] / "data.json").unlink()
    assert differences(*pair) == [
        ".log.jsonl.0123.partial is there",
        "data.json is missing",
        "watch/samples-00000002.png: other pixels",
    ]
