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
from jaxtyping import Float, Int
from rich.console import Console
from torch import Tensor

from gear import build, fetch, run
from gear.config import Config, Target, TargetName, grid
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
RIDGE = 0.1  # of the classifier, beside features of unit variance
RATES = {"tokenizer": (2.5e-4, 5e-4, 1e-3), "generator": (1e-3, 2e-3, 4e-3)}  # the generator's on the tokenizer of the
MIDDLE = 1  # middle rate


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
        yield {
            "target": name,
            "layer": layer,
            "channels": f.shape[2],
            "accuracy": accuracy(f.mean(1), torch.from_numpy(labels), half),
            "moran": float(morans_i(f, side).nanmean()),
            "ms_per_image": round(1000 * seconds / READ, 2),
            "gigabytes": round(len(images) * f[0].numel() * 2 / 1e9, 2),
        }


def accuracy(x: Float[Tensor, "n C"], labels: Int[Tensor, "n"], half: int) -> float:
    """Of a linear classifier by ridge regression on the first `half`, on the others."""
    x = (x - x[:half].mean(0)) / x[:half].std(0).clamp(min=1e-6)
    x = torch.cat([x, torch.ones(len(x), 1)], dim=1).double()
    y = torch.nn.functional.one_hot(labels).double()
    gram = x[:half].T @ x[:half] + RIDGE * half * torch.eye(x.shape[1], dtype=torch.float64)
    weights = torch.linalg.solve(gram, x[:half].T @ y[:half])
    return float(((x[half:] @ weights).argmax(1) == labels[half:]).double().mean())


def rates(scale: Scale, out: Path, device: str, console: Console) -> Iterator[dict[str, Any]]:
    """The tokenizer's on the warm-up, then the generator's on LlamaGen-REPA."""
    for group, make in (("tokenizer", warmup()), ("generator", frozen())):
        for rate in RATES[group]:
            config = at_rate(make(scale), group, rate, device)
            if group == "generator":
                init = out / scale.name / f"pilot-tokenizer-{RATES['tokenizer'][MIDDLE]:g}"
                config = dataclasses.replace(config, tokenizer=dataclasses.replace(config.tokenizer, init=str(init)))
            folder = out / scale.name / f"pilot-{group}-{rate:g}"
            run.train(config, folder, console=console)
            last, log = lines.read(folder / CURVE)[-1], lines.read(folder / lines.NAME)[-1]
            told = {name: log[name] for name in ("reconstruction", "perceptual", "ntp", "align_hard") if name in log}
            yield {"group": group, "rate": rate} | {k: last[k] for k in ("rfid", "psnr", "gfid")} | told


def at_rate(config: Config, group: str, rate: float, device: str) -> Config:
    """With that rate of one group, and the middle one of the others, measured at the end alone."""
    chosen = {f"{name}_lr": each[MIDDLE] for name, each in RATES.items()} | {f"{group}_lr": rate}
    return dataclasses.replace(
        config,
        optimizer=dataclasses.replace(config.optimizer, **chosen),
        watch=dataclasses.replace(config.watch, evaluate_every=config.steps),
        seed=SEED,
        device=device,
    )
