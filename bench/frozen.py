"""Training on a frozen tokenizer: from stored codes and features, against the same steps that encode at each visit.

    python -m bench.frozen                              # LlamaGen-REPA-B on VQ-16 at 256 px with DINOv2-B
    python -m bench.frozen --precision bfloat16         # the row of `make bench`

Both sides are what `gear train` runs, from the data to the moved weights and averages; all weights are random. Ours
reads the shards that `gear encode --features` wrote. Plain decodes JPEG files of `PHOTO` pixels ahead, in `WORKERS`
processes, runs the tokenizer's encoder and the target, then makes the same step. The sides must have the same losses in
every step. A pass of the target has as many rows as the batch: with the 16 of `gear.train.batches`, of which a batch of
256 wastes none, most would be filling here.

What bounds it: arithmetic, of which stored codes leave that of the generator; and the update, which moves 40 bytes for
each weight whatever the batch. The tokenizer's encoder is float32 in either precision (PAPER.md, M11), so there is more
to save in bfloat16, where the rest is faster.
"""

import argparse
import math
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from timm.models.vision_transformer import vit_base_patch14_dinov2

from bench.ceilings import ceilings
from bench.table import Row, alternating, machine, show
from bench.work import update
from gear import build
from gear.config import Config, Data, Target
from gear.counting import Flops, counter
from gear.encode import encode
from gear.recipes import RECIPES
from gear.run import Supply, supply
from gear.store.saving import save_safetensors
from gear.targets.dinov2 import PATCH, TABLE
from gear.train import batches, loop
from gear.train.batches import Streamed

CONFIG = replace(RECIPES["llamagen-repa-b"](), device="cpu")
BATCH, PHOTO, WORKERS, ROUNDS = 6, (500, 375), 1, 2
TARGET = 1 / 3  # three times as many images a second; not to be had in float32, by the ratio of the floors
CPU = torch.device("cpu")

Precision = Literal["bfloat16", "float32"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


@dataclass
class Side:
    """A run's data and training, one step at each call. terms: of all steps so far."""

    config: Config
    fed: Supply = field(init=False)
    training: build.Training = field(init=False)
    terms: list[dict[str, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.fed = supply(self.config, None, CPU)
        self.training = build.training(self.config, len(self.fed.classes), self.fed.dims, CPU)

    def __call__(self) -> float:
        """Seconds of the next step, with its data."""
        start, number = time.perf_counter(), len(self.terms)
        loop.seed(self.config.seed, number)
        batch = self.fed.batches(number)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.config.precision == "bfloat16"):
            made = self.training.step(batch).terms
        self.terms.append({name: value.item() for name, value in made.items()})
        return time.perf_counter() - start

    def close(self) -> None:
        if isinstance(self.fed.batches, Streamed):
            self.fed.batches.stream.close()


def photographs(folder: Path) -> None:
    """As many smooth pictures as a batch has, of two classes."""
    random = np.random.default_rng(0)
    for i in range(BATCH):
        file = folder / "ab"[i % 2] / f"{i}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        coarse = random.integers(0, 256, (24, 32, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize(PHOTO, Image.Resampling.BICUBIC).save(file, quality=90)


def random_targets(folder: Path) -> tuple[Target, ...]:
    """DINOv2-B with random weights, in a file as the hub has it."""
    net, file = vit_base_patch14_dinov2(img_size=TABLE * PATCH, num_classes=0), folder / "dinov2-b.safetensors"
    save_safetensors(file, net.state_dict())
    return (Target("dinov2-b", weights=str(file)),)


def prepared(folder: Path) -> Config:
    """`CONFIG` on images, a tokenizer and a target that are written to `folder`."""
    torch.manual_seed(0)
    photographs(folder / "images")
    build.tokenizer(CONFIG).save_pretrained(folder / "tokenizer")
    images, size = str(folder / "images"), CONFIG.data.resolution
    return replace(
        CONFIG,
        tokenizer=replace(CONFIG.tokenizer, init=str(folder / "tokenizer")),
        targets=random_targets(folder),
        data=Data(images, size, prepare=False, flip=False, holdout=0.0, workers=WORKERS),
        batch=BATCH,
    )


def compared(config: Config, folder: Path) -> Row:
    codes = folder / f"codes-{config.precision}"
    here = replace(config, data=replace(config.data, workers=0))  # to start a process takes longer than to decode these
    encode(here, codes, features=True, console=Console(quiet=True))
    sides = {"ours": Side(replace(config, data=replace(config.data, codes=str(codes)))), "plain": Side(config)}
    try:
        counts = {name: counted(side) for name, side in sides.items()}
        same(sides)  # a fast wrong answer is worth nothing
        t, spread = alternating(sides, ROUNDS)
        same(sides)
    finally:
        for side in sides.values():
            side.close()
    return row(config.precision, t, spread, counts, sides["ours"].training)


def counted(side: Side) -> Flops:
    """Of the first step, which is made here, and not timed."""
    with counter() as operations:
        side()
    return operations.counted()


def same(sides: Mapping[str, Side]) -> None:
    """All losses, and the norms of the gradients, in which the codes are seen where the head still is zero."""
    for a, b in zip(*(side.terms for side in sides.values()), strict=True):
        for name in a:
            assert math.isclose(a[name], b[name], rel_tol=1e-4, abs_tol=1e-6), f"{name}: {a[name]} and {b[name]}"


def row(
    precision: Precision, t: Mapping[str, float], spread: float, counts: Mapping[str, Flops], training: build.Training
) -> Row:
    """ms an image. The floor is that of ours: its products, and after them its update."""
    weights = sum(p.numel() for group in training.groups for p in group.module.parameters() if p.requires_grad)
    at, ours, plain = ceilings("cpu"), counts["ours"], counts["plain"]
    of_update = update(weights).seconds("cpu")
    floor, least = (at.floor(side.float32, side.bfloat16) + of_update for side in (ours, plain))
    image = {name: seconds * 1e3 / BATCH for name, seconds in t.items()}
    bound = f"arithmetic; ratio of both floors {floor / least:.2f}"
    floor *= 1e3 / BATCH
    return Row(f"frozen, {precision}", "ms/image", image["ours"], image["plain"], TARGET, spread, bound, floor)


@contextmanager
def passes(rows: int) -> Iterator[None]:
    """So many images in a pass of a target, for this module alone: runs all have the same, so it is no setting."""
    before, batches.ROWS = batches.ROWS, rows
    try:
        yield
    finally:
        batches.ROWS = before


def run(precisions: Sequence[Precision] = ("bfloat16",)) -> list[Row]:
    """bfloat16, the paper's, for `make bench`."""
    with tempfile.TemporaryDirectory() as folder, passes(BATCH):
        config = prepared(Path(folder))
        return [compared(replace(config, precision=precision), Path(folder)) for precision in precisions]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.frozen", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--precision", choices=PRECISIONS, help="of the generator and the target; both unless given")
    a = parser.parse_args()
    show(run((a.precision,) if a.precision else PRECISIONS), f"{machine('cpu')}, batches of {BATCH}")


if __name__ == "__main__":
    main()
