"""A comparison of three runs as the demo makes it, with numbers and pictures made up."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from gear.figures.report import Arm, Report

CLASSES = ("animals", "faces", "food", "flags & signs")
K = 512
EQ2 = {"reconstruction": 0.06, "perceptual": 0.12, "adversarial": 0.3, "entropy": -4.1, "quantizer": 4e-4}


def pictures(rng: np.random.Generator, *shape: int, blur: int, side: int = 64) -> np.ndarray:
    """Discs on white with `blur` x `blur` px blocks, `shape` of them."""
    y, x = np.mgrid[:side, :side] // blur * blur / side
    centre, radius = rng.uniform(0.3, 0.7, (*shape, 2, 1, 1)), rng.uniform(0.15, 0.3, (*shape, 1, 1))
    inside = (x - centre[..., 0, :, :]) ** 2 + (y - centre[..., 1, :, :]) ** 2 < radius**2
    colour = rng.integers(0, 256, (*shape, 1, 1, 3))
    return np.where(inside[..., None], colour, 255).astype(np.uint8)


def log(rng: np.random.Generator, steps: int, eq2: bool, soft: bool, entropy: float) -> list[dict[str, Any]]:
    lines = []
    for step in range(20, steps + 1, 20):
        part, noise = step / 800, rng.normal(0, 1, 20) * 0.02
        H = 6.02 + (entropy - 6.02) * (1 - math.exp(-4 * part)) + noise[0]
        line = {"step": step, "seconds": step * 0.3, "images_per_s": 105.0 + noise[1]}
        line |= {
            "ntp": 4.2 + 2 * math.exp(-6 * part) + noise[2],
            "align_hard": -0.5 * (1 - math.exp(-5 * part)) + noise[3] / 4,
        }
        line |= {"codebook_entropy": H, "effective_size": math.exp(H), "dead_codes": 0.03}
        if eq2:
            terms = {name: value * (0.8 + 0.3 * math.exp(-5 * part)) for name, value in EQ2.items()}
            terms = {name: value * (1 + noise[4 + i]) for i, (name, value) in enumerate(terms.items())}
            line |= terms | {"commitment": terms["quantizer"], "critic": 0.9, "L_VQ": 0.06 - 0.05 * 4 + noise[12] / 4}
        if soft:
            line |= {"align_soft": -0.42 * (1 - math.exp(-4 * part)) + noise[13] / 4}
        lines.append(line)
    return lines


@pytest.fixture
def report() -> Report:
    return make()


def make(cols: int = 4, inputs: int = 3) -> Report:
    rng = np.random.default_rng(0)
    held_out = pictures(rng, inputs, blur=1)

    def rebuilt(noise: float) -> np.ndarray:
        return np.clip(held_out + rng.normal(0, noise, held_out.shape), 0, 255).astype(np.uint8)

    gear = Arm(
        key="gear",
        name="GEAR",
        what="Tokenizer and generator trained together; the alignment guides the tokenizer.",
        commands=("gear train demo --out runs/demo/gear", "gear sample runs/demo/gear --n 1000 --cfg-scale 2.0"),
        log=log(rng, 800, eq2=True, soft=True, entropy=6.0),
        metrics={
            "psnr": 22.417, "rfid": 187.62, "gfid": 612.34, "held_out_ntp": 4.3219,
            "codebook_entropy": 6.0031, "effective_size": 404.71,
        },
        steps=800,
        seconds=251.3,
        images_per_s=101.9,
        samples=pictures(rng, len(CLASSES), cols, blur=2),
        reconstructions=rebuilt(19),
    )  # fmt: skip
    repa = replace(
        gear,
        key="llamagen-repa",
        name="LlamaGen-REPA",
        what="The same generator and alignment on the frozen warm-up tokenizer.",
        commands=("gear train demo-repa --out runs/demo/llamagen-repa",),
        log=log(rng, 800, eq2=False, soft=False, entropy=6.02),
        metrics={
            "psnr": 21.934, "rfid": 203.18, "gfid": 688.05, "held_out_ntp": 4.4127,
            "codebook_entropy": 6.0212, "effective_size": 412.07,
        },
        seconds=118.7,
        images_per_s=215.7,
        samples=pictures(rng, len(CLASSES), cols, blur=4),
        reconstructions=rebuilt(20),
    )  # fmt: skip
    naive = replace(
        gear,
        key="naive",
        name="Naive straight-through",
        what="Every loss of the generator sent into the tokenizer.",
        commands=("gear train demo-naive --out runs/demo/naive",),
        log=log(rng, 300, eq2=True, soft=False, entropy=1.0),
        metrics={
            "psnr": 18.206, "rfid": 951.4, "gfid": None, "held_out_ntp": None,
            "codebook_entropy": 2.1305, "effective_size": 8.4192,
        },
        steps=300,
        seconds=88.2,
        images_per_s=108.8,
        samples=None,
        reconstructions=rebuilt(40),
    )  # fmt: skip
    return Report(
        title="GEAR, ten minutes on your own machine",
        summary="An image tokenizer and a generator, trained on 2,878 emoji of 64 px, three ways.",
        arms=(gear, repa, naive),
        classes=CLASSES,
        inputs=held_out,
        feature_network="EfficientNet-Lite1, pooled, 1,280 channels",
        n_generated=1000,
        n_reconstructed=152,
        codebook_size=K,
        seed=17,
        hardware="Some CPU, 2 threads",
        versions="gear 0.1.0, torch 2.13.0, Python 3.11.2",
        date="2026-11-21",
        total_seconds=582.4,
        settings={"batch": "32", "sampling": "CFG scale 2.0, temperature 1.0"},
        notes=("Samples are drawn with averaged weights.",),
        reproduce=("make demo",),
    )
