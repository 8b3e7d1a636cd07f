"""Where the numbers and pictures of a run go beside its JSON lines: TensorBoard in the run folder, Weights & Biases.

Both are imported when a run opens them, since that takes seconds. In a run on several devices only rank 0 does.
"""

import importlib
import logging
import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Protocol, assert_never, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from gear.config import Config, ConfigError
from gear.config_json import plain
from gear.store.whole import explained, replacing
from gear.train.log import CODEBOOK

Name = Literal["tensorboard", "wandb"]

TENSORBOARD, WANDB_ID = "tensorboard", "wandb-id"  # in the run folder
GROUPS = {  # of a scalar; all others are losses
    "codebook": tuple(CODEBOOK),
    "speed": ("seconds", "images_per_s", "memory_gib", "ranks"),
    "evaluation": ("rfid", "gfid", "psnr"),
}

log = logging.getLogger("gear")


@runtime_checkable
class Tracker(Protocol):
    """What is shown of a run elsewhere. `step` is the number of updates made; it never falls."""

    def scalars(self, step: int, values: Mapping[str, float | int | None]) -> None:
        """Numbers by their names, such as a line of the log; "step" and what is None are passed over."""
        ...

    def picture(self, step: int, name: str, pixels: UInt8[np.ndarray, "H W 3"]) -> None:
        """An RGB image."""
        ...

    def close(self) -> None:
        """Writes what is waiting. Nothing may come after it."""
        ...


def require(names: Sequence[Name]) -> None:
    """Raises `ConfigError` for a tracker whose package is not installed; to be called before the long work."""
    for name in names:
        if find_spec(name) is None:
            package = "gear[wandb]" if name == "wandb" else name
            raise ConfigError(
                f"watch.trackers names {name}, which is not installed: `pip install '{package}'`, or train without it."
            )


def opened(names: Sequence[Name], run: Path, config: Config, step: int) -> Tracker:
    """All the trackers of a run that goes on after `step` updates, as one; without names it does nothing.

    Raises, before the long work, `ConfigError` for one that is not installed or cannot start, and `WriteError`. One
    that fails later is named once in the log and dropped: no run ends because it could not be shown.
    """
    require(names)
    return _All({name: _opened(name, run, config, step) for name in names})


def _opened(name: Name, run: Path, config: Config, step: int) -> Tracker:
    match name:
        case "tensorboard":
            return _TensorBoard(run, step)
        case "wandb":
            return _Wandb(run, config)
        case other:
            assert_never(other)


class _All:
    def __init__(self, trackers: dict[str, Tracker]):
        self.trackers = trackers

    def scalars(self, step: int, values: Mapping[str, float | int | None]) -> None:
        grouped = {group(name): v for name, v in values.items() if v is not None and name != "step"}
        self._each(lambda tracker: tracker.scalars(step, grouped))

    def picture(self, step: int, name: str, pixels: UInt8[np.ndarray, "H W 3"]) -> None:
        self._each(lambda tracker: tracker.picture(step, name, pixels))

    def close(self) -> None:
        self._each(lambda tracker: tracker.close())
        self.trackers.clear()

    def _each(self, act: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self.trackers.items()):
            try:
                act(tracker)
            except Exception as error:  # of any kind: of the disk, of the network, of the package itself
                del self.trackers[name]
                with suppress(Exception):
                    tracker.close()
                log.warning("%s shows no more of this run (%s); training and log.jsonl go on.", name, error)


def group(name: str) -> str:
    """The name under which a scalar is shown: "losses/ntp", "gradients/grad_critic", "evaluation/gfid"."""
    if name.startswith(("grad_", "skipped_")):
        return f"gradients/{name}"
    return f"{next((g for g, names in GROUPS.items() if name in names), 'losses')}/{name}"


class _TensorBoard:
    """Event files, each with what came before its first step taken back: a resumed run shows each step once."""

    def __init__(self, run: Path, step: int):
        from torch.utils.tensorboard import SummaryWriter

        with explained(run / TENSORBOARD):
            self.writer = SummaryWriter(str(run / TENSORBOARD), purge_step=step + 1)

    def scalars(self, step: int, values: Mapping[str, float | int | None]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()  # a killed run has shown all of it, and a full disk is seen here

    def picture(self, step: int, name: str, pixels: UInt8[np.ndarray, "H W 3"]) -> None:
        self.writer.add_image(name, pixels, step, dataformats="HWC")
        self.writer.flush()

    def close(self) -> None:
        try:
            self.writer.close()
        except Exception:  # it stops before its thread is ended, which would fail once more, minutes later
            if self.writer.file_writer is not None:
                self.writer.file_writer.close()
            raise


class _Wandb:
    """One W&B run for one run folder, however often it is interrupted."""

    def __init__(self, run: Path, config: Config):
        self.wandb: Any = importlib.import_module("wandb")  # an extra, so there need not be types
        try:
            self.run = self.wandb.init(
                project="gear",
                id=_identity(run),
                resume="allow",
                name=run.resolve().name,
                dir=str(run),
                config=plain(config),
                allow_val_change=True,  # a run may go on with more steps or on another device
                settings=self.wandb.Settings(console="off"),  # else each frame of a progress bar is a line
            )
        except self.wandb.Error as error:
            raise ConfigError(
                f"watch.trackers names wandb, which could not start ({error}): `wandb login`, or WANDB_MODE=offline to "
                "keep it in the run folder, or train without it."
            ) from error
        self.known = self.run.step  # W&B takes nothing back: what it has of steps that are made again is the same

    def scalars(self, step: int, values: Mapping[str, float | int | None]) -> None:
        if step >= self.known:
            self.run.log(dict(values), step=step)

    def picture(self, step: int, name: str, pixels: UInt8[np.ndarray, "H W 3"]) -> None:
        if step >= self.known:
            self.run.log({name: self.wandb.Image(pixels)}, step=step)

    def close(self) -> None:
        self.run.finish()


def _identity(run: Path) -> str:
    """The id of the W&B run, kept in the folder so that it is found again when the folder has moved."""
    file = run / WANDB_ID
    if not file.exists():
        with replacing(file) as temporary:
            temporary.write_text(secrets.token_hex(8) + "\n")
    return file.read_text().strip()
