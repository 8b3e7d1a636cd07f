"""Results whose numbers are made up: of single arms by hand, of all arms from their names and seeds."""

import dataclasses
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from gear.config import Frozen
from gear.evidence import results
from gear.evidence.arms import ARMS, arms
from gear.evidence.results import Result
from gear.evidence.scales import CPU, Scale
from gear.probe.measure import Levels, Probed, Similarity, Smoothness, Spread, blocks
from gear.usage import usage

Made = Callable[..., Result]
Points = Sequence[tuple[int, float]]


def made(
    arm: str, seed: int, scale: Scale = CPU, *, curve: Points = (), used: Points = (), **measured: Mapping[str, Any]
) -> Result:
    """curve: of the cheap gFID; used: of the effective size."""
    announced = arms()[arm]
    counts = {"n": scale.counts.curve, "n_reconstructed": 1000, "network": "efficientnet_lite1"}
    return Result(
        scale=scale.name,
        arm=arm,
        seed=seed,
        start=announced.start,
        config=results.portable(dataclasses.replace(announced.make(scale), seed=seed)),
        measured=dict(measured),
        curve=[{"step": step, "gfid": y, "rfid": y / 2, "psnr": 20.0} | counts for step, y in curve],
        log=[{"step": step, "effective_size": y, "align_hard": -0.5} for step, y in used],
        seconds={"train": 1800.0, "measure": 900.0},
        about={"hardware": "a machine", "versions": "gear 0.1.0", "date": f"2026-01-0{1 + seed}"},
        protocol=results.protocol(scale, announced),
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
    config, claims = arms()[arm].make(scale), arms()[arm].claims
    near = 1 + 0.2 * float(rng.random())
    joint = not isinstance(config.stage, Frozen)
    points = range(scale.curve, config.steps + 1, scale.curve) if 1 in claims else [config.steps]
    fell = [(step, near * (60 + 200 * 0.5 ** (step / 150))) for step in points]
    used = [(step, near * (300 + step / 20 - (step / 90) ** 2)) for step in range(20, config.steps + 1, 20)]
    if config.generator.text is not None:
        names = ("gfid", "rank_1", "mean_rank", "same_group", "held_out_ntp", "train_ntp", "psnr")
        return made(arm, seed, scale, used=used, texts={name: near * (i + 2) for i, name in enumerate(names)})
    found: dict[str, Any] = {"probe": probe(config.generator.layers, near / 2)}
    n = scale.counts.generated if {0, 1, 2} & {*claims} else scale.counts.rest
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
    """Of all arms and seeds."""
    return {(arm.name, seed): complete(arm.name, seed) for arm in ARMS for seed in CPU.seeds}


@pytest.fixture(scope="session")
def pace() -> dict[str, Any]:
    """As pace.json has it: a step that takes 0.1 s on stored tokens takes 0.2 with the tokenizer, and 0.4 jointly."""
    names = {"repa, tokens stored": 0.1, "llamagen, tokens stored": 0.1, "repa": 0.2, "llamagen": 0.2, "warmup-vq": 0.3}
    names |= dict.fromkeys(("gear", "control", "ste", "naive"), 0.4)
    rows = {name: {"median": each, "least": each - 0.01, "largest": 2 * each} for name, each in names.items()}
    return {"hardware": "a machine", "rounds": 15, "batch": 32, "seconds": rows}
