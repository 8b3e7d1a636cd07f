"""Results whose numbers are made up: of single arms by hand, of all arms from their names and seeds. And a scale
at which arms really run, with stand-ins for what has to be fetched."""

import dataclasses
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from torch import Tensor, nn

from gear.config import VQ, Frozen
from gear.data import cifar10
from gear.evaluate import inception, reference
from gear.evidence import results
from gear.evidence.arms import arms, asked, generated
from gear.evidence.queue import jobs
from gear.evidence.results import Result
from gear.evidence.scales import CPU, Counts, Scale
from gear.probe.measure import Levels, Probed, Similarity, Smoothness, Spread, blocks
from gear.usage import usage

Made = Callable[..., Result]
Points = Sequence[tuple[int, float]]


def made(
    arm: str, seed: int, scale: Scale = CPU, *, curve: Points = (), used: Points = (), **measured: Mapping[str, Any]
) -> Result:
    """curve: of the cheap gFID; used: of the effective size."""
    named = arms()[arm]
    counts = {"n": scale.counts.curve, "n_reconstructed": 1000, "network": "efficientnet_lite1"}
    return Result(
        scale=scale.name,
        arm=arm,
        seed=seed,
        start=named.start,
        config=results.portable(dataclasses.replace(named.make(scale), seed=seed)),
        measured=dict(measured),
        curve=[{"step": step, "gfid": y, "rfid": y / 2, "psnr": 20.0} | counts for step, y in curve],
        log=[{"step": step, "effective_size": y, "align_hard": -0.5} for step, y in used],
        seconds={"train": 1800.0, "measure": 900.0},
        about={"hardware": "a machine", "versions": "gear 0.1.0", "date": f"2026-01-0{1 + seed}"}
        | {"commit": "abc", "measured": "def"},
        protocol=results.protocol(scale, named, seed),
    )


def probe(layers: int, a: float) -> dict[str, Any]:
    """With the keys that `gear probe` has."""
    alike = Levels(Similarity(a / 2, a / 3, a / 4), Similarity(a / 5, a / 6, a / 7))
    smooth = Smoothness(Spread(a / 2, 0.1), Spread(a / 3, 0.1))
    use = usage(torch.linspace(0, a, 512))
    many, smooths = (alike,) * (layers + 1), (smooth,) * (layers + 1)
    return blocks(
        Probed(alike, alike, many, smooth, smooth, smooth, smooths, use, use, {}), "mobilenet_v2", 10, 0.1, 512
    )


def complete(arm: str, seed: int, scale: Scale = CPU) -> Result:
    """With everything that an arm of its kind is measured by."""
    rng = np.random.default_rng([zlib.crc32(arm.encode()), seed])
    config, claims = arms()[arm].make(scale), asked(scale, arms()[arm], seed)
    near = 1 + 0.2 * float(rng.random())
    joint = not isinstance(config.stage, Frozen)
    points = range(scale.curve, config.steps + 1, scale.curve) if 1 in claims else [config.steps]
    fell = [(step, near * (60 + 200 * 0.5 ** (step / 150))) for step in points]
    used = [(step, near * (300 + step / 20 - (step / 90) ** 2)) for step in range(20, config.steps + 1, 20)]
    if config.generator.text is not None:
        names = ("gfid", "rank_1", "mean_rank", "same_group", "held_out_ntp", "train_ntp", "psnr")
        return made(arm, seed, scale, used=used, texts={name: near * (i + 2) for i, name in enumerate(names)})
    found: dict[str, Any] = {"probe": probe(config.generator.layers, near / 2)}
    n = generated(scale, arms()[arm], seed)
    if arms()[arm].start is not None or (joint and arm == "gear-scratch"):
        found["prediction"] = {"n": 2000, "ntp": 4 * near, "bits": 400 * near, "rate": 576.0}
        found["prediction"] |= {"ntp_last": 4.1 * near, "ntp_last_row": 4 * near}
        if n:
            values = {"gfid": 90.0, "sfid": 95.0, "kid": 0.08, "precision": 0.4, "recall": 0.2}
            found["samples"] = {"n": n} | {name: near * value for name, value in values.items()}
    if joint:
        found["reconstruction"] = {"n": 2000, "psnr": 22 * near, "ssim": 0.8, "l1": 0.04, "lpips": 0.05}
        found["reconstruction"] |= {"rfid": 40 * near} if n or 0 in claims else {}
    return made(arm, seed, scale, curve=fell, used=used, **found)


@pytest.fixture(scope="session")
def result() -> Made:
    return made


@pytest.fixture(scope="session")
def everything() -> dict[tuple[str, int], Result]:
    """Of all that is announced."""
    return {(job.arm.name, job.seed): complete(job.arm.name, job.seed) for job in jobs(CPU)}


@pytest.fixture(scope="session")
def pace() -> dict[str, Any]:
    """As pace.json has it: a step that takes 0.1 s on stored tokens takes 0.2 with the tokenizer, and 0.4 jointly."""
    names = {"repa, tokens stored": 0.1, "llamagen, tokens stored": 0.1, "repa": 0.2, "llamagen": 0.2, "warmup-vq": 0.3}
    names |= dict.fromkeys(("gear", "control", "ste", "naive"), 0.4)
    rows = {name: {"median": each, "least": each - 0.01, "largest": 2 * each} for name, each in names.items()}
    return {"hardware": "a machine", "rounds": 15, "batch": 32, "seconds": rows}


class Small(nn.Module):
    """Means over the image and its quarters in place of Inception's features."""

    name = "small"

    def __init__(self):
        super().__init__()
        self.channels, self.file = {"pool": 6, "spatial": 12}, Path("small.pth")
        self.weight = nn.Parameter(torch.ones(1), requires_grad=False)
        self.net = nn.Identity()

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        x = pixels.float() / 255
        quarters = nn.functional.adaptive_avg_pool2d(x, 2).flatten(1)
        return {"pool": torch.cat([x.mean((2, 3)), x.std((2, 3))], 1), "spatial": quarters}

    def about(self) -> dict[str, Any]:
        return {"name": self.name, "sha256": "00"}


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """For CIFAR-10 and the Inception network."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEAR_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(inception, "opened", Small)
        patch.setattr(reference, "SIZES", {"pool": 6, "spatial": 12})
        rng, arrays, checks = np.random.default_rng(0), {}, {}
        for part in ("train", "test"):
            labels = np.arange(40) % 10
            pixels = rng.integers(0, 256, (40, 3, 1, 1), np.uint8).repeat(32, 2).repeat(32, 3)
            pixels = np.clip(pixels + rng.integers(0, 40, (40, 3, 32, 32)), 0, 255).astype(np.uint8)
            arrays |= {f"{part}_images": pixels, f"{part}_labels": labels}
            checks[part] = f"{zlib.crc32(labels.data, zlib.crc32(pixels.data)):08x}"
        cifar10.path().parent.mkdir(parents=True)
        save_file(arrays, cifar10.path(), metadata=checks)
        yield


@pytest.fixture(scope="module")
def small_scale() -> Scale:
    """Real runs of the smallest kind."""
    b = CPU.base
    backbone = replace(b.tokenizer.backbone, channels=16, latent=16, groups=8)
    base = replace(
        b,
        tokenizer=replace(b.tokenizer, quantizer=VQ(16, 4), backbone=backbone),
        generator=replace(b.generator, layers=2, heads=2, width=32, tap=1, projector=16),
        targets=(replace(b.targets[0], name="efficientnet_lite0"),),
        data=replace(b.data, holdout=0.2),
        watch=replace(b.watch, generated=4),
        steps=3,
        batch=4,
        log_every=2,
    )
    counts = Counts(generated=16, rest=0, reference=30, rebuilt=12, probed=12, curve=4)
    return replace(CPU, base=base, steps=4, curve=2, seeds=(0,), claims_of={}, counts=counts)
