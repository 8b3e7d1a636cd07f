"""One function per run, each returning its whole configuration; its docstring gives the command, the cost and what to
expect. `gear train RECIPE` takes these names with dashes; any field can be changed on the command line.
"""

from collections.abc import Callable
from dataclasses import replace

from gear.config import (
    IBQ,
    LFQ,
    VQ,
    Backbone,
    Config,
    Critic,
    Data,
    Frozen,
    Gear,
    Generator,
    Naive,
    Optimizer,
    Target,
    Tokenizer,
    TokenizerLoss,
    Warmup,
)


def demo_warmup() -> Config:
    """Warm-up of the demo's tokenizer on the built-in emoji, from scratch; made the shipped demo_tokenizer.safetensors.

    `gear train demo-warmup`
    """
    return Config(
        stage=Warmup(),
        tokenizer=Tokenizer(
            quantizer=VQ(codebook_size=512, dim=8),
            backbone=Backbone(
                channels=48,
                multipliers=(1, 2),
                encoder_blocks=1,
                decoder_blocks=2,
                latent=96,
                attention=False,
                groups=16,
                patch=4,
            ),
            critic=Critic(channels=16, layers=2),
            loss=TokenizerLoss(perceptual_trunk="alex"),
        ),
        generator=Generator(layers=4, heads=4, width=192, tap=2, projector=256, dropout=0.0),
        target=Target("efficientnet_lite0"),
        data=Data("builtin", resolution=64, flip=False, holdout=0.1),
        optimizer=Optimizer(tokenizer_lr=5e-4, critic_lr=2e-4, generator_lr=2e-3, ema=0.998),
        steps=3000,
        batch=32,
        precision="float32",
        log_every=20,
        save_every=200,
    )


def demo() -> Config:
    """GEAR on the built-in emoji from the shipped warm-up tokenizer: both trained together (Algorithm 1).

    `gear train demo`; with your own pictures: `gear train demo --data.path FOLDER`
    """
    warm = demo_warmup()
    tokenizer, optimizer = replace(warm.tokenizer, init="builtin"), replace(warm.optimizer, ema=0.98)
    return replace(warm, stage=Gear(), tokenizer=tokenizer, optimizer=optimizer, steps=550)


def demo_repa() -> Config:
    """LlamaGen-REPA beside `demo`: the same warm-up tokenizer, seed and steps, but it stays frozen.

    `gear train demo-repa`
    """
    return replace(demo(), stage=Frozen())


def demo_llamagen() -> Config:
    """LlamaGen beside `demo`: frozen tokenizer, no alignment.

    `gear train demo-llamagen`
    """
    return replace(demo(), stage=Frozen(lam=0.0))


def demo_naive() -> Config:
    """The naive end-to-end way (Figure 2b) beside `demo`, for as many steps as show the codebook collapse.

    `gear train demo-naive`
    """
    return replace(demo(), stage=Naive(), steps=250)


def demo_lfq() -> Config:
    """GEAR with look-up free quantization, 9 bits, tokenizer from scratch (no warm-up of it is shipped).

    `gear train demo-lfq`
    """
    return replace(demo(), tokenizer=replace(demo_warmup().tokenizer, quantizer=LFQ(bits=9)), steps=2000)


def demo_ibq() -> Config:
    """GEAR with index back-propagation quantization, tokenizer from scratch (no warm-up of it is shipped).

    `gear train demo-ibq`
    """
    return replace(demo(), tokenizer=replace(demo_warmup().tokenizer, quantizer=IBQ(512, dim=32)), steps=2000)


def cifar10() -> Config:
    """GEAR on CIFAR-10 from scratch, tokenizer and generator together (Table 12, "w/o init."), 64 tokens an image.

    `gear fetch cifar10`, then `gear train cifar10`
    """
    base = demo_warmup()
    backbone = replace(base.tokenizer.backbone, patch=2)
    tokenizer = replace(base.tokenizer, backbone=backbone, critic=Critic(channels=16, layers=1))
    return replace(base, stage=Gear(), tokenizer=tokenizer, data=Data("cifar10", resolution=32), steps=20_000)


def imagenet() -> Config:
    """GEAR-L with VQ-16 at 256 px, the paper's default (Tables 15 and 16): 400k steps of 256 images.

    `gear train imagenet --data.path FOLDER --tokenizer.init WARMUP_RUN`
    """
    return Config()


RECIPES: dict[str, Callable[[], Config]] = {
    f.__name__.replace("_", "-"): f
    for f in (demo, demo_repa, demo_llamagen, demo_naive, demo_warmup, demo_lfq, demo_ibq, cifar10, imagenet)
}
