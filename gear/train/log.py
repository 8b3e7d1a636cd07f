"""The log of a run: one JSON line every few steps, each number the mean since the line before.

Losses stay on the device between lines, so that logging costs one host sync a line.
"""

import json
import time
from pathlib import Path
from typing import Any

import torch

from gear.assignment import usage
from gear.step import Step

NAME = "log.jsonl"


class Log:
    """Collects steps; `line` closes an interval. Lines after `step` are dropped, so a resumed run has each once."""

    def __init__(self, path: Path, step: int):
        self.path = path
        kept = [line for line in read(path) if line["step"] <= step]
        self.seconds = kept[-1]["seconds"] if kept else 0.0
        path.write_text("".join(json.dumps(line) + "\n" for line in kept))
        self._clear()

    def add(self, step: Step, images: int) -> None:
        self.steps, self.images = self.steps + 1, self.images + images
        with torch.no_grad():
            for name, value in step.terms.items():
                self.sums[name] = self.sums[name] + value if name in self.sums else value.clone()
            self.counts = step.counts if self.counts is None else self.counts + step.counts

    def line(self, step: int) -> dict[str, Any]:
        """Writes and returns the means of the interval that ends with `step` updates made."""
        assert self.counts is not None, "line() before any step"
        used = usage(self.counts)
        names = [*self.sums, "codebook_entropy", "effective_size", "dead_codes"]
        sums = [*self.sums.values(), *(v * self.steps for v in (used.entropy, used.effective_size, used.dead))]
        means = (torch.stack([s.float() for s in sums]) / self.steps).tolist()  # the only host sync
        seconds = time.perf_counter() - self.start
        self.seconds += seconds
        line = {"step": step, "seconds": round(self.seconds, 3), "images_per_s": round(self.images / seconds, 2)}
        line |= dict(zip(names, means, strict=True))
        with open(self.path, "a") as f:
            f.write(json.dumps(line) + "\n")
        self._clear()
        return line

    def _clear(self) -> None:
        self.sums: dict[str, torch.Tensor] = {}
        self.counts: torch.Tensor | None = None
        self.steps = self.images = 0
        self.start = time.perf_counter()


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of a log; a last line that a kill cut short is left out."""
    lines = []
    for text in path.read_text().splitlines() if path.exists() else []:
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            break
    return lines
