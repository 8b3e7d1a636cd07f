"""What TensorBoard and Weights & Biases show of a run, read back from what they wrote; and their failures."""

import json
import logging
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from gear.config import Config, ConfigError
from gear.train import track

LINE = {"step": 0, "ntp": 3.5, "grad_critic": 0.25, "effective_size": 12.0, "images_per_s": 80.0, "rfid": 7.0}
UNKNOWN = {"gfid": None, "align_soft": None}  # a mean of nothing finite is null in the log
SHEET = np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=np.uint8)


def show(tracker: track.Tracker, steps: range, value: float) -> None:
    for step in steps:
        tracker.scalars(step, LINE | {"step": step, "ntp": value})
        if step % 4 == 0:
            tracker.picture(step, "samples", SHEET)


def shown(run: Path) -> Mapping[str, list[tuple[int, float]]]:
    """What TensorBoard reads: each curve as (step, value)."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / track.TENSORBOARD))
    events.Reload()
    curves = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    return curves | {tag: [(e.step, 0.0) for e in events.Images(tag)] for tag in events.Tags()["images"]}


def test_tensorboard_shows_every_number_in_its_group(tiny: Config, tmp_path: Path) -> None:
    tracker = track.opened(("tensorboard",), tmp_path, tiny, 0)
    tracker.scalars(2, LINE | UNKNOWN | {"skipped_generator": 1})
    tracker.close()
    assert shown(tmp_path) == {
        "losses/ntp": [(2, 3.5)],
        "gradients/grad_critic": [(2, 0.25)],
        "gradients/skipped_generator": [(2, 1.0)],
        "codebook/effective_size": [(2, 12.0)],
        "speed/images_per_s": [(2, 80.0)],
        "evaluation/rfid": [(2, 7.0)],
    }


def test_tensorboard_shows_the_very_pixels(tiny: Config, tmp_path: Path) -> None:
    from PIL import Image
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tracker = track.opened(("tensorboard",), tmp_path, tiny, 0)
    tracker.picture(4, "samples", SHEET)
    tracker.close()
    events = EventAccumulator(str(tmp_path / track.TENSORBOARD))
    events.Reload()
    (tmp_path / "seen.png").write_bytes(events.Images("samples")[0].encoded_image_string)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "seen.png")), SHEET)


def test_tensorboard_shows_each_step_once_after_a_kill(tiny: Config, tmp_path: Path) -> None:
    """Killed after step 8, its checkpoint was of step 5: nothing was closed, and steps 6 to 8 are made again."""
    killed = track.opened(("tensorboard",), tmp_path, tiny, 0)
    show(killed, range(1, 9), 1.0)
    time.sleep(1.1)  # TensorBoard orders its files by the second they were begun in
    resumed = track.opened(("tensorboard",), tmp_path, tiny, 5)
    show(resumed, range(6, 11), 2.0)
    resumed.close()
    curves = shown(tmp_path)
    assert curves["losses/ntp"] == [(step, 1.0 if step <= 5 else 2.0) for step in range(1, 11)]
    assert [step for step, _ in curves["samples"]] == [4, 8]


def test_what_is_shown_survives_a_kill(tiny: Config, tmp_path: Path) -> None:
    tracker = track.opened(("tensorboard",), tmp_path, tiny, 0)
    tracker.scalars(1, LINE)
    assert shown(tmp_path)["losses/ntp"] == [(1, 3.5)]  # read while the writer is open


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a full disk is simulated by Linux's /dev/full")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # TensorBoard's own thread
def test_a_full_disk_ends_the_tracker_and_not_the_training(
    tiny: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = track.opened(("tensorboard",), tmp_path, tiny, 0)
    (file,) = (tmp_path / track.TENSORBOARD).iterdir()
    file.unlink()
    file.symlink_to("/dev/full")
    with caplog.at_level(logging.WARNING, "gear"):
        show(tracker, range(1, 9), 1.0)
        tracker.close()
    assert [r.getMessage().partition(" (")[0] for r in caplog.records] == ["tensorboard shows no more of this run"]
    assert "No space left" in caplog.text


def test_without_trackers(tiny: Config, tmp_path: Path) -> None:
    tracker = track.opened((), tmp_path, tiny, 0)
    show(tracker, range(1, 5), 1.0)
    tracker.close()
    assert list(tmp_path.iterdir()) == []


def test_one_that_is_not_installed_is_refused(tiny: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])  # nothing can be found any more
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    with pytest.raises(ConfigError, match=r"pip install 'gear\[wandb\]'"):
        track.require(("wandb",))
    with pytest.raises(ConfigError, match=r"watch\.trackers names wandb, which is not installed"):
        track.opened(("tensorboard", "wandb"), tmp_path, tiny, 0)
    assert list(tmp_path.iterdir()) == []


def test_wandb_offline_is_one_run_however_often_interrupted(
    tiny: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    for start in (0, 4):
        tracker = track.opened(("wandb",), tmp_path, tiny, start)
        show(tracker, range(start + 1, start + 5), 1.0)
        tracker.close()
    identity = (tmp_path / track.WANDB_ID).read_text().strip()
    parts = sorted((tmp_path / "wandb").glob("offline-run-*"))
    assert [part.name.rpartition("-")[2] for part in parts] == [identity] * 2
    for part in parts:
        (written,) = part.glob("*.wandb")
        kept = written.read_bytes()
        assert all(name in kept for name in (b"losses/ntp", b"gradients/grad_critic", b"evaluation/rfid"))
        assert json.dumps(tiny.tokenizer.quantizer.dim).encode() in kept
        assert list(part.glob("files/media/images/samples_*.png"))
