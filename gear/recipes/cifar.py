"""CIFAR-10 (Krizhevsky 2009): 60,000 photographs of 32 px, 8 x 8 tokens an image. First: `gear fetch cifar10`."""

from dataclasses import replace

from gear.config import VQGAN, Config, Critic, Data, Frozen, Gear, Generator, Naive, Optimizer, Watch
from gear.recipes.demos import demo_warmup
from gear.recipes.registry import recipe

WARMUP = "runs/cifar10-small-warmup"  # where the small recipes look for their tokenizer


@recipe("start")
def cifar10() -> Config:
    """GEAR on CIFAR-10 from scratch.

    Tokenizer and generator together (Table 12, "w/o init."), 64 tokens an image. First: `gear fetch cifar10`.
    """
    base = demo_warmup()
    assert isinstance(base.tokenizer.backbone, VQGAN)
    backbone = replace(base.tokenizer.backbone, patch=2)
    tokenizer = replace(base.tokenizer, backbone=backbone, critic=Critic(channels=16, layers=1))
    return replace(base, stage=Gear(), tokenizer=tokenizer, data=Data("cifar10", resolution=32), steps=20_000)


@recipe("start")
def cifar10_small_warmup() -> Config:
    """Warm-up of a small tokenizer on CIFAR-10.

    What the four small runs below start from, minutes each on a laptop: enough to try every measure on.
    """
    base = demo_warmup()
    assert isinstance(base.tokenizer.backbone, VQGAN)
    backbone = replace(base.tokenizer.backbone, channels=32, decoder_blocks=1, latent=64, patch=2)
    return replace(
        base,
        tokenizer=replace(base.tokenizer, backbone=backbone, critic=Critic(channels=16, layers=1)),
        generator=Generator(layers=4, heads=4, width=128, tap=2, projector=256, dropout=0.0),
        data=Data("cifar10", resolution=32, flip=False, holdout=0.02),
        optimizer=Optimizer(tokenizer_lr=5e-4, critic_lr=2e-4, generator_lr=2e-3, ema=0.99),
        watch=Watch(sample_every=500, evaluate_every=0),
        steps=1500,
        save_every=250,
    )


@recipe("start")
def cifar10_small() -> Config:
    """GEAR on CIFAR-10, small.

    Both together, from the warm-up of cifar10-small-warmup.
    """
    warm = cifar10_small_warmup()
    watch = Watch(sample_every=500, evaluate_every=250, generated=500)
    return replace(
        warm, stage=Gear(), tokenizer=replace(warm.tokenizer, init=WARMUP), steps=1000, save_every=250, watch=watch
    )


@recipe("start")
def cifar10_small_repa() -> Config:
    """LlamaGen-REPA beside cifar10-small.

    The same tokenizer, seed and steps, but it stays frozen.
    """
    return replace(cifar10_small(), stage=Frozen())


@recipe("start")
def cifar10_small_ste() -> Config:
    """Alignment straight through, beside cifar10-small (Table 7).

    The guidance goes through a one-hot with the gradient of the softmax, instead of the softmax itself.
    """
    return replace(cifar10_small(), stage=Gear(readout="straight_through"))


@recipe("start")
def cifar10_small_naive() -> Config:
    """The naive way beside cifar10-small (Figure 2b).

    Every generator loss goes straight through into the tokenizer.
    """
    return replace(cifar10_small(), stage=Naive())
