"""Every field of the schema against who fixes its default: the paper, its code, or we. Typed here once more.

Where the paper and its code differ, PAPER.md says which of them is the default (M1 to M16).
"""

import dataclasses
from typing import Any

import pytest
import torch

from gear import config as schema
from gear.config import FAMILIES, SIZES, Config, Gear, grid
from gear.generator import Generator
from gear.tokenizer.tokenizer import Tokenizer

PAPER: dict[str, object] = {  # what the paper's equations, tables and appendices fix
    # Table 18, columns Codebook and Dim; Table 16, codebook size
    "VQ.codebook_size": 16384,
    "VQ.dim": 8,
    "LFQ.bits": 14,
    "IBQ.codebook_size": 16384,
    "IBQ.dim": 256,
    # eq. 2, Table 16
    "TokenizerLoss.reconstruction": 1.0,
    "TokenizerLoss.perceptual": 0.1,
    "TokenizerLoss.adversarial": 0.1,
    "TokenizerLoss.entropy": 0.05,
    "TokenizerLoss.commitment": 0.25,
    # appendix A (24 blocks are L, a third of them 8), Table 16, section 4.1 (a fresh generator)
    "Generator.layers": 24,
    "Generator.tap": None,
    "Generator.projector": 2048,
    "Generator.class_drop": 0.1,
    "Generator.init": None,
    # Tables 10 and 15, appendix A
    "Target.name": "dinov2-b",
    "Target.spatial_norm": None,
    # section 4.1, appendix C
    "Data.resolution": 256,
    "Data.interpolation": "bicubic",
    # Tables 1, 13 and 14; Table 16
    "Sampling.cfg_scale": 1.5,
    "Sampling.temperature": 1.0,
    "Sampling.top_k": 0,
    "Sampling.top_p": 1.0,
    # Table 16; one eta in eqs. 11 and 12
    "Optimizer.tokenizer_lr": 1e-4,
    "Optimizer.critic_lr": 1e-4,
    "Optimizer.generator_lr": 1e-4,
    "Optimizer.beta1": 0.9,
    "Optimizer.beta2": 0.999,
    "Optimizer.weight_decay": 0.0,
    "Optimizer.clip": 1.0,
    "Optimizer.ema": 0.9999,
    # Tables 5, 6, 7 and 15; "a single alignment coefficient"
    "Gear.tau": 0.1,
    "Gear.lam": 0.5,
    "Gear.readout": "soft",
    "Gear.lam_soft": None,
    "Frozen.lam": 0.5,
    "Naive.tau": 0.1,
    "Naive.lam": 0.5,
    # Table 17; appendix B
    "Text.encoder": "qwen3-1.7b",
    "Text.tokens": 300,
    "Text.drop": 0.1,
    "Text.dual": None,
    # Tables 15 and 16
    "Config.steps": 400_000,
    "Config.batch": 256,
    "Config.precision": "bfloat16",
}
RELEASE: dict[str, object] = {  # what the paper leaves to the networks that it names, and to its code
    "VQGAN.channels": 128,
    "VQGAN.multipliers": (1, 1, 2, 2, 4),
    "VQGAN.encoder_blocks": 2,
    "VQGAN.decoder_blocks": 3,
    "VQGAN.latent": 256,
    "VQGAN.attention": True,
    "VQGAN.groups": 32,
    "MAGVIT2.channels": 128,
    "MAGVIT2.multipliers": (1, 1, 2, 2, 4),
    "MAGVIT2.blocks": 4,
    "MAGVIT2.groups": 32,
    "Critic.channels": 64,
    "Critic.layers": 3,
    "TokenizerLoss.entropy_temperature": 0.01,
    "TokenizerLoss.quantizer": 1.0,  # PAPER.md, M2
    "TokenizerLoss.perceptual_trunk": "vgg",
    "Generator.heads": 16,
    "Generator.width": 1024,
    "Generator.align": "next",  # PAPER.md, M6
    "Generator.dropout": 0.1,
    "Target.layer": None,
    "Config.seed": 0,
}
OURS: dict[str, object] = {  # what a run here needs besides, and where we differ from the release
    "VQGAN.patch": 1,  # the public networks have no such layer
    "Tokenizer.init": None,
    "Generator.classes": None,
    "Generator.class_rotary": "identity",  # PAPER.md, M12
    "Generator.text": None,
    "Text.rotary": "identity",  # PAPER.md, M12
    "Text.padding": "left",  # the release pads behind, and predicts the first token from padding
    "Part.path": "builtin",
    "Part.weight": 1.0,
    "Target.weights": None,
    "Data.path": "builtin",
    "Data.crop": "center",
    "Data.prepare": True,
    "Data.views": None,
    "Data.mixture": (),
    "Data.flip": None,  # the release's 0.5 for classes; none for captions, where it has 0.5 too
    "Data.classes": "folders",
    "Data.holdout": 0.05,
    "Data.workers": 4,
    "Data.codes": None,
    "Engine.accumulate": 1,
    "Engine.shard": False,
    "Engine.recompute": False,
    "Engine.compile": False,
    "Engine.tf32": True,  # as the release
    "Guards.skip_limit": 20,
    "Guards.collapse_warn": 0.7,
    "Guards.collapse_stop": 0.0,
    "Watch.sample_every": 5000,
    "Watch.samples": 32,
    "Watch.evaluate_every": 25_000,
    "Watch.generated": 5000,
    "Watch.trackers": ("tensorboard",),
    "Config.log_every": 50,
    "Config.save_every": 5000,
    "Config.keep_last": 2,
    "Config.keep_every": None,
    "Config.device": "auto",
}


def fields_of_the_schema() -> dict[str, object]:
    """The default of every field of every dataclass in `gear.config`, but of those that hold another dataclass."""
    kinds: list[Any] = [k for k in vars(schema).values() if isinstance(k, type) and dataclasses.is_dataclass(k)]
    fields = {f"{kind.__name__}.{f.name}": getattr(kind(), f.name) for kind in kinds for f in dataclasses.fields(kind)}
    held = (value[0] if isinstance(value, tuple) and value else value for value in fields.values())
    return {
        name: value for (name, value), inside in zip(fields.items(), held, strict=True)
        if not dataclasses.is_dataclass(inside)
    }  # fmt: skip


def test_every_field_of_the_schema_is_compared_with_who_fixes_it() -> None:
    """A new field gets its line in one of the three."""
    assert len(PAPER) + len(RELEASE) + len(OURS) == len(PAPER | RELEASE | OURS)  # each in one of them
    assert fields_of_the_schema() == PAPER | RELEASE | OURS


def test_the_defaults_together_are_the_papers_run() -> None:
    c = Config()
    assert isinstance(c.stage, Gear)
    assert (c.tokenizer, c.generator) == (FAMILIES["VQ-16"], SIZES["L"])
    assert [target.name for target in c.targets] == ["dinov2-b"]
    assert (c.generator.aligned_block, c.stage.guidance, grid(c) ** 2) == (8, 0.5, 256)  # section 3.1: N = 256
    assert schema.LFQ().codebook_size == 16384


@pytest.mark.parametrize(
    ("name", "millions", "layers", "tap"), [("B", 111, 12, 4), ("L", 343, 24, 8), ("XL", 775, 36, 12)]
)
def test_sizes_of_table_1_and_appendix_a(name: str, millions: int, layers: int, tap: int) -> None:
    with torch.device("meta"):
        generator = Generator(SIZES[name], codebook_size=16384, classes=1000, grid=(16, 16))
    assert round(sum(p.numel() for p in generator.parameters()) / 1e6) == millions
    assert (SIZES[name].layers, SIZES[name].aligned_block, SIZES[name].tap) == (layers, tap, None)


@pytest.mark.parametrize(
    ("name", "millions", "codebook", "dim"),
    [("VQ-16", 71.9, 16384, 8), ("LFQ-16", 115.1, 16384, 14), ("IBQ-16", 111.0, 16384, 256)],
)
def test_tokenizers_of_table_18(name: str, millions: float, codebook: int, dim: int) -> None:
    chosen = FAMILIES[name]
    with torch.device("meta"):
        tokenizer = Tokenizer(chosen.quantizer, chosen.backbone)
    assert round(sum(p.numel() for p in tokenizer.parameters()) / 1e6, 1) == millions
    assert (chosen.quantizer.codebook_size, chosen.quantizer.dim) == (codebook, dim)
    assert chosen.backbone.downsample == 16  # section 3.1
