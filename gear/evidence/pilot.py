"""What is decided before the protocol, on a seed that is none of its own: the target's layer, and learning rates on the
baseline. What it finds is written down, and chosen by a person (`gear.evidence.scales`); it is no result."""

import dataclasses
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from gear import build, fetch, run
from gear.config import Config, Optimizer, Target, TargetName, grid
from gear.data import cifar10
from gear.evidence.arms import frozen, warmup
from gear.evidence.scales import Scale
from gear.probe.spatial import morans_i
from gear.store.whole import replacing
from gear.targets import ENCODERS
from gear.train import lines
from gear.train.batches import ROWS, in_passes
from gear.watching import NAME as CURVE

NAME = "pilot.json"
SEED = 100  # none of a scale's
READ = 2000  # training images of which half teach a classifier and half test it
CANDIDATES: tuple[tuple[TargetName, int], ...] = (
    *(("mobilenet_v2", stage) for stage in (3, 4, 5)),
    *(("efficientnet_lite0", stage) for stage in (3, 4, 5)),
    *(("resnet50", stage) for stage in (2, 3)),
)
FACTORS = (0.5, 1.0, 2.0)  # of the learning rates that the base has


def pilot(scale: Scale, out: Path, into: Path, device: str, console: Console) -> Path:
    """Writes SCALE/pilot.json in `into`. out: folder of the runs, which go on where they were."""
    path = into / scale.name / NAME
    found = {
        "seed": SEED,
        "targets": list(targets(scale, device)),
        "learning_rates": list(rates(scale, out, device, console)),
    }
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(found, indent=1) + "\n")
    return path


def targets(scale: Scale, device: str) -> Iterator[dict[str, Any]]:
    """Of each candidate how well a linear classifier reads CIFAR-10's classes from its features averaged over an image,
    and what the features cost. A target should know what is in an image, and fit into memory."""
    images, on = cifar10.images("train"), build.device(Config(device=device))
    rows = np.random.default_rng(SEED).permutation(len(images))[:READ]
    pixels, labels = torch.from_numpy(images.pixels[rows]).to(on), images.labels[rows]
    side = (grid(scale.base), grid(scale.base))
    for name, layer in CANDIDATES:
        net = ENCODERS[name].load(fetch.on_demand(name), layer).to(on)
        net = build.target(net, Target(name, layer=layer), scale.base, lambda: pixels[: run.SOME], on)
        in_passes(net, pixels[:ROWS], side, "float32")
        start = time.perf_counter()
        f = in_passes(net, pixels, side, "float32").float().cpu()
        seconds, half = time.perf_counter() - start, READ // 2
        pooled = StandardScaler().fit(f.mean(1)[:half]).transform(f.mean(1))
        reader = LogisticRegression(C=0.01, max_iter=1000).fit(pooled[:half], labels[:half])
        yield {
            "target": name,
            "layer": layer,
            "channels": f.shape[2],
            "accuracy": float((reader.predict(pooled[half:]) == labels[half:]).mean()),
            "moran": float(morans_i(f, side).nanmean()),
            "ms_per_image": round(1000 * seconds / READ, 2),
            "gigabytes": round(len(images) * f[0].numel() * 2 / 1e9, 2),
        }


def rates(scale: Scale, out: Path, device: str, console: Console) -> Iterator[dict[str, Any]]:
    """The tokenizer's on the warm-up, then the generator's on LlamaGen-REPA over the warm-up of the base's own rate."""
    first: Path | None = None
    for group, make in (("tokenizer", warmup()), ("generator", frozen())):
        base = make(scale)
        for factor in FACTORS:
            rate = factor * getattr(base.optimizer, f"{group}_lr")
            config = dataclasses.replace(base, optimizer=_with(base.optimizer, group, rate), seed=SEED, device=device)
            config = dataclasses.replace(config, watch=dataclasses.replace(config.watch, evaluate_every=config.steps))
            if first is not None:
                config = dataclasses.replace(config, tokenizer=dataclasses.replace(config.tokenizer, init=str(first)))
            folder = out / scale.name / f"pilot-{group}-{rate:g}"
            run.train(config, folder, console=console)
            last, log = lines.read(folder / CURVE)[-1], lines.read(folder / lines.NAME)
            told = {
                name: log[-1][name] for name in ("reconstruction", "perceptual", "ntp", "align_hard") if name in log[-1]
            }
            yield {"group": group, "rate": rate} | {k: last[k] for k in ("rfid", "psnr", "gfid")} | told
        first = out / scale.name / f"pilot-tokenizer-{base.optimizer.tokenizer_lr:g}"


def _with(optimizer: Optimizer, group: str, rate: float) -> Optimizer:
    return dataclasses.replace(optimizer, **{f"{group}_lr": rate})
