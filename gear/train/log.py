"""The log of a run: one JSON line every few steps, each number the mean since the line before.

Losses stay on the device between lines, so that logging costs one host sync a line; likewise each rank sums what it
sees, and the ranks' sums come together once a line. A number that is not finite is left out of its mean, which is null
where none was; how often updates were left out for that is counted (skipped_generator, ...).
"""

import resource
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from gear import ranks
from gear.step import Step
from gear.train.distributed import told
from gear.train.lines import NAME as NAME
from gear.train.lines import append, cut
from gear.train.lines import read as read
from gear.usage import usage

CODEBOOK = {  # what a line calls the fields of `Usage`
    "codebook_entropy": "entropy",
    "effective_size": "effective_size",
    "dead_codes": "dead",
    "codebook_top1": "top1",
    "codebook_top10": "top10",
    "codebook_top100": "top100",
}


class Log:
    """Collects steps; `line` closes an interval. Rank 0 writes.

    step, pending: where the run goes on, and what `pending` gave there, on rank 0. Lines after `step` are dropped, so
    that a resumed run writes the same lines, each once.
    """

    def __init__(self, path: Path, step: int, pending: Mapping[str, Tensor] | None = None):
        self.path = path
        self.kept: list[dict[str, Any]] = told(cut(path, step) if ranks.rank() == 0 else None)
        self.seconds = self.kept[-1]["seconds"] if self.kept else 0.0
        self._clear()
        if pending:
            self.names = tuple(name.removeprefix("sum.") for name in pending if name.startswith("sum."))
            # What all ranks had is rank 0's now, of however many there are.
            self.sums = torch.stack([pending[f"sum.{name}"].double() for name in self.names]) * ranks.size()
            finite = [pending.get(f"finite.{name}", pending["steps"]).double() for name in self.names]
            self.finite, self.counts = torch.stack(finite) * ranks.size(), pending["counts"]
            self.steps, self.images = int(pending["steps"]), int(pending["images"])
            self.start -= float(pending["seconds"])

    @torch.no_grad()
    def add(self, step: Step, images: int) -> None:
        """One step, and how many images of it this rank had."""
        on = step.counts.device
        names = tuple(step.terms)
        if self.sums is not None and self.finite is not None and names != self.names:  # as a checkpoint orders them
            order = [self.names.index(name) for name in names]
            self.sums, self.finite = self.sums[order], self.finite[order]
        self.steps, self.images, self.names = self.steps + 1, self.images + images, names
        # In float64, so that the order of summation, which the number of ranks and a restart change, hardly shows.
        # The alignment without a target is a zero on the CPU, of which a GPU must not wait to be told.
        terms = [v.double() if v.device == on else torch.full((), v.item(), device=on) for v in step.terms.values()]
        values = torch.cat([torch.zeros(0, dtype=torch.float64, device=on), *(v.double().view(1) for v in terms)])
        finite = values.isfinite()
        values = torch.where(finite, values, 0.0)
        self.sums = values if self.sums is None else self.sums.to(on) + values
        self.finite = finite.double() if self.finite is None else self.finite.to(on) + finite
        self.counts = step.counts if self.counts is None else self.counts.to(on) + step.counts

    def pending(self) -> dict[str, Tensor]:
        """The open interval of all ranks together, which all of them ask for, for a checkpoint between two lines; empty
        right after a line."""
        if self.counts is None:
            return {}
        sums, finite, counts, images = self._of_all_ranks()
        passed = time.perf_counter() - self.start
        about = {"steps": self.steps, "images": images, "seconds": passed}
        kept = {f"sum.{name}": value for name, value in zip(self.names, sums, strict=True)}
        kept |= {f"finite.{name}": value for name, value in zip(self.names, finite, strict=True)}
        return kept | {"counts": counts} | {name: torch.as_tensor(value) for name, value in about.items()}

    def line(self, step: int, broken: int = 0) -> dict[str, Any]:
        """Writes and returns the means of the interval that ends with `step` updates made; the same on every rank.
        broken: images found broken, and replaced, so far."""
        sums, finite, counts, images = self._of_all_ranks()
        used = usage(counts)
        of_codebook = torch.stack([getattr(used, name) for name in CODEBOOK.values()])
        means = torch.cat([sums / finite, of_codebook, images[None]])
        numbers = torch.cat([means.float(), sums.float()]).tolist()  # the only host sync
        seconds = time.perf_counter() - self.start
        self.seconds += seconds
        names = [*self.names, *CODEBOOK]
        line = {
            "step": step,
            "seconds": round(self.seconds, 3),
            "images_per_s": round(numbers[len(names)] / seconds, 2),
        }
        line |= {name: value if value == value else None for name, value in zip(names, numbers, strict=False)}
        totals = dict(zip(self.names, numbers[len(names) + 1 :], strict=True))
        line |= {name: round(value) for name, value in totals.items() if name.startswith("skipped_")}
        line |= {"broken_images": broken}
        line |= {"memory_gib": round(memory(counts.device) / 2**30, 3), "ranks": ranks.size()}
        if ranks.rank() == 0:
            append(self.path, line)
        self._clear()
        return line

    def _of_all_ranks(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Sums over the steps of the means over ranks, how many were finite; counts of codewords, and of images."""
        assert self.counts is not None, "line() before any step"
        assert self.sums is not None
        assert self.finite is not None
        packed = torch.cat(
            [self.sums, self.finite, self.counts.double(), self.counts.new_tensor([self.images]).double()]
        )
        if ranks.size() > 1:
            dist.all_reduce(packed)
        sums, finite, counts, images = packed.split([len(self.sums), len(self.finite), len(self.counts), 1])
        return sums / ranks.size(), finite / ranks.size(), counts, images[0]

    def _clear(self) -> None:
        self.names: tuple[str, ...] = ()
        self.sums: Tensor | None = None
        self.finite: Tensor | None = None
        self.counts: Tensor | None = None
        self.steps = self.images = 0
        self.start = time.perf_counter()


def memory(on: torch.device) -> int:
    """The most that this process has held so far: bytes of the GPU, or of the machine where there is none."""
    if on.type == "cuda":
        return torch.cuda.max_memory_allocated(on)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
