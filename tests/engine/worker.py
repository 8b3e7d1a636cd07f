"""One rank of `test_equality`: every case for three steps in float64; rank 0 writes what came out to the given file.

torchrun --nproc-per-node 2 tests/engine/worker.py OUT [CASE ...]
"""

import sys
from dataclasses import replace
from functools import partialmethod
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from gear import build, ranks
from gear.config import (
    IBQ,
    LFQ,
    VQ,
    VQGAN,
    Config,
    Critic,
    Data,
    Engine,
    Frozen,
    Gear,
    Generator,
    Naive,
    Quantizer,
    Stage,
    Target,
    Text,
    Tokenizer,
    TokenizerLoss,
    Warmup,
)
from gear.prompts import Prompts
from gear.step import Batch
from gear.train import distributed, loop
from gear.update import whole, whole_average

CPU, B, STEPS, CLASSES, TARGET = torch.device("cpu"), 8, 3, 3, "efficientnet_lite0"
ROWS, WIDTH = 5, 6  # of text, and channels of its encoder
ALL = TokenizerLoss(perceptual=0.0)  # LPIPS is float32 always
EACH_IMAGE = replace(ALL, entropy=0.0, adversarial=0.0)  # no statistics of a batch, which parts of it change


def config(quantizer: Quantizer | None = None, stage: Stage | None = None, loss: TokenizerLoss = ALL) -> Config:
    """By default GEAR with VQ, whatever is random switched on."""
    return Config(
        stage=stage or Gear(),
        tokenizer=Tokenizer(
            quantizer or VQ(codebook_size=16, dim=4),
            VQGAN(8, (1, 2), encoder_blocks=1, decoder_blocks=1, latent=8, attention=True, groups=4, patch=2),
            Critic(4, 1),
            loss,
        ),
        generator=Generator(layers=3, heads=2, width=16, tap=2, class_drop=0.3, dropout=0.2, projector=12),
        targets=(Target(TARGET),),
        data=Data(resolution=16),
        batch=B,
    )


def talking(config: Config) -> Config:
    """With captions in place of classes, half of which are dropped."""
    return replace(config, generator=replace(config.generator, text=Text(tokens=ROWS, drop=0.5, dual=1)))


CASES: dict[str, Config] = {
    "gear VQ": config(),
    "gear LFQ": config(LFQ(bits=4)),
    "gear IBQ": config(IBQ(codebook_size=16, dim=4)),
    "warm-up": config(stage=Warmup()),
    "frozen": config(stage=Frozen()),
    "naive": config(stage=Naive()),
    "each image": config(loss=EACH_IMAGE),
    "frozen, each image": config(stage=Frozen(), loss=EACH_IMAGE),
    "gear text": talking(config()),
    "frozen text": talking(config(stage=Frozen())),
}
ENGINES = {
    "": Engine(),
    "recompute": Engine(recompute=True),
    "shard": Engine(shard=True),
    "shard, recompute": Engine(shard=True, recompute=True),
    "accumulate": Engine(accumulate=2),
    "shard, accumulate, recompute": Engine(shard=True, accumulate=2, recompute=True),
    "compile": Engine(compile=True),
    "compile, accumulate": Engine(compile=True, accumulate=2),
    "shard, compile": Engine(shard=True, compile=True),
}


def whole_batch(config: Config, step: int) -> Batch:
    draw = torch.Generator().manual_seed(step)
    x = torch.rand(B, 3, 16, 16, generator=draw, dtype=torch.float64) * 2 - 1
    f = torch.randn(B, 16, 5, generator=draw, dtype=torch.float64)
    c = torch.randint(CLASSES, (B,), generator=draw)
    if config.generator.text is not None:
        valid = torch.arange(ROWS) >= torch.randint(ROWS, (B, 1), generator=draw)
        c = Prompts(torch.randn(B, ROWS, WIDTH, generator=draw, dtype=torch.float64) * valid[..., None], valid)
    return Batch(x, c, {TARGET: f})


def trained(config: Config) -> dict[str, torch.Tensor]:
    """Every term of every step, the mean over the ranks, and at the end weights, averages and moments, whole."""
    null = None if config.generator.text is None else torch.linspace(-1, 1, WIDTH)[None]
    training, found = build.training(config, CLASSES, {TARGET: 5}, CPU, null=null), {}
    for step in range(STEPS):
        loop.seed(config.seed, step)
        mine = loop.part_of(whole_batch(config, step), ranks.rank(), ranks.size())
        taken = loop.in_parts(training.step, mine, config.engine.accumulate)
        for name, value in taken.terms.items():
            found[f"{step}.{name}"] = ranks.mean(value.double())
        found[f"{step}.counts"] = ranks.gathered(taken.counts).sum(0)
    for group in training.groups:
        found |= {f"{group.name}.{name}": whole(t) for name, t in group.module.state_dict().items()}
        if group.name != "critic":
            found |= {f"{group.name}_ema.{name}": t for name, t in whole_average(group).state_dict().items()}
        for index, moments in group.optimizer.state_dict()["state"].items():
            found |= {f"{group.name}_optimizer.{index}.{name}": whole(t) for name, t in moments.items()}
    for group in training.groups:
        group.alone()
    return {name: t.detach().clone().contiguous() for name, t in found.items()}


def main(out: str, *chosen: str) -> None:
    """chosen: CASE/ENGINE."""
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    # Capture, guards and parameters of compiled blocks are what is tested; generating code takes minutes on a CPU.
    nn.Module.compile = partialmethod(nn.Module.compile, backend="aot_eager")  # type: ignore[assignment]
    with distributed.joined(CPU):
        found: dict[str, Any] = {}
        for name in chosen:
            case, engine = name.split("/")
            results = trained(replace(CASES[case], engine=ENGINES[engine]))
            found |= {f"{name}/{key}": t for key, t in results.items()}
        if ranks.rank() == 0:
            save_file(found, Path(out))


if __name__ == "__main__":
    main(*sys.argv[1:])
