"""What a comparison of runs measured: the input of `gear.figures.report`. Plain numbers and 8-bit images, no model."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import UInt8


class ReportError(ValueError):
    """Results that do not fit together: which part, what was needed, what came."""


@dataclass(frozen=True)
class Arm:
    """
    key: "gear", "llamagen-repa", "naive", or another. name: as shown. what: one sentence, what it does.
    commands: that make its parts, in order.
    log: the lines of its log.jsonl; a term that the arm does not have is absent.
    metrics: "psnr" (dB), "rfid", "gfid", "held_out_ntp" (nats per token), "codebook_entropy" (nats), "effective_size";
        None or absent where one does not apply.
    seconds: of training. images_per_s: while training.
    samples: a row for each class, drawn with the same seed in all arms. reconstructions: of the report's `inputs`.
    """

    key: str
    name: str
    what: str
    commands: tuple[str, ...]
    log: Sequence[Mapping[str, Any]]
    metrics: Mapping[str, float | None]
    steps: int
    seconds: float
    images_per_s: float
    samples: UInt8[np.ndarray, "classes cols H W 3"] | None
    reconstructions: UInt8[np.ndarray, "n H W 3"] | None

    def metric(self, name: str) -> float | None:
        """None where it does not apply or is not finite."""
        value = self.metrics.get(name)
        return value if value is not None and math.isfinite(value) else None

    def curve(self, name: str) -> list[tuple[float, float]]:
        """(step, value) of each log line that has a finite value."""
        points = [(float(line["step"]), float(line[name])) for line in self.log if line.get(name) is not None]
        return [(step, value) for step, value in points if math.isfinite(value)]


@dataclass(frozen=True)
class Report:
    """
    arms: in the order in which they are shown; their styles go by it. classes: names of the rows of every `samples`.
    inputs: held-out images. feature_network: in which rFID and gFID were measured. n_generated, n_reconstructed: images
    behind each. settings: name to value. notes: sentences. reproduce: the commands that make all of it.
    """

    title: str
    summary: str
    arms: tuple[Arm, ...]
    classes: tuple[str, ...]
    inputs: UInt8[np.ndarray, "n H W 3"]
    feature_network: str
    n_generated: int
    n_reconstructed: int
    codebook_size: int
    seed: int
    hardware: str
    versions: str
    date: str
    total_seconds: float
    settings: Mapping[str, str]
    notes: tuple[str, ...]
    reproduce: tuple[str, ...]

    def arm(self, key: str) -> Arm | None:
        return next((arm for arm in self.arms if arm.key == key), None)


def check(report: Report) -> None:
    """Raises `ReportError` where arms, classes and images do not fit together."""
    keys = [arm.key for arm in report.arms]
    if not keys or len(set(keys)) < len(keys):
        raise ReportError(f"a report needs at least one arm, each with a key of its own; the keys are {keys}.")
    for arm in report.arms:
        if arm.samples is not None and len(arm.samples) != len(report.classes):
            raise ReportError(
                f"the samples of {arm.key} need a row for each of {len(report.classes)} classes; "
                f"they have {len(arm.samples)}."
            )
        if arm.reconstructions is not None and len(arm.reconstructions) != len(report.inputs):
            raise ReportError(
                f"the reconstructions of {arm.key} must be of the {len(report.inputs)} inputs; "
                f"there are {len(arm.reconstructions)}."
            )
