"""The log of a run: one JSON line every few steps, each number the mean since the line before.

Losses stay on the device between lines, so that logging costs one host sync a line.
"""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gear.assignment import usage
from gear.step import Step
from gear.store.whole import explained, replacing

NAME = "log.jsonl"


class Log:
    """Collects steps; `line` closes an interval.

    step, pending: where the run goes on, and what `pending` gave there. Lines after `step` are dropped, so that a
    resumed run writes the same lines, each once.
    """

    def __init__(self, path: Path, step: int, pending: Mapping[str, Tensor] | None = None):
        self.path = path
        kept = [line for line in read(path) if line["step"] <= step]
        self.seconds = kept[-1]["seconds"] if kept else 0.0
        with replacing(path) as temporary:
            temporary.write_text("".join(json.dumps(line) + "\n" for line in kept))
        self._clear()
        if pending:
            self.sums = {name.removeprefix("sum."): t for name, t in pending.items() if name.startswith("sum.")}
            self.counts, self.steps, self.images = pending["counts"], int(pending["steps"]), int(pending["images"])
            self.start -= float(pending["seconds"])

    def add(self, step: Step, images: int) -> None:
        self.steps, self.images = self.steps + 1, self.images + images
        on = step.counts.device
        with torch.no_grad():
            for name, value in step.terms.items():
                value = value.to(on)  # the alignment without a target is a zero on the CPU
                self.sums[name] = self.sums[name].to(on) + value if name in self.sums else value
            self.counts = step.counts if self.counts is None else self.counts.to(on) + step.counts

    def pending(self) -> dict[str, Tensor]:
        """The open interval, for a checkpoint between two lines; empty right after a line."""
        if self.counts is None:
            return {}
        passed = time.perf_counter() - self.start
        about = {"steps": self.steps, "images": self.images, "seconds": passed}
        sums = {f"sum.{name}": value for name, value in self.sums.items()}
        return sums | {"counts": self.counts} | {name: torch.tensor(value) for name, value in about.items()}

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
        with explained(self.path), open(self.path, "a") as f:
            f.write(json.dumps(line) + "\n")
        self._clear()
        return line

    def _clear(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.counts: Tensor | None = None
        self.steps = self.images = 0
        self.start = time.perf_counter()


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of a log; a last line that a kill cut short is left out."""
    lines = []
    for text in path.read_text().splitlines() if path.exists() else []:
        try:
            lines.append(dict(json.loads(text)))
        except (ValueError, TypeError):
            break
    return lines
