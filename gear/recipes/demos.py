"""What runs on a laptop in minutes: `gear demo`'s arms on the built-in emoji."""

from dataclasses import replace

from gear.config import (
    IBQ,
    LFQ,
    VQ,
    VQGAN,
    Config,
    Critic,
    Data,
    Frozen,
    Gear,
    Generator,
    Naive,
    Optimizer,
    Sampling,
    Target,
    Tokenizer,
    TokenizerLoss,
    Warmup,
    Watch,
)
from gear.recipes.registry import recipe


@recipe("start")
def demo() -> Config:
    """GEAR on the built-in emoji.

    Both are trained together, from the shipped warm-up tokenizer. With your own pictures: --data.path FOLDER.
    """
    warm = demo_warmup()
    tokenizer, optimizer = replace(warm.tokenizer, init="builtin"), replace(warm.optimizer, ema=0.98)
    return replace(warm, stage=Gear(), tokenizer=tokenizer, optimizer=optimizer, steps=550)


@recipe("start")
def demo_repa() -> Config:
    """LlamaGen-REPA beside demo.

    The same warm-up tokenizer, seed and steps, but it stays frozen.
    """
    return replace(demo(), stage=Frozen())


@recipe("start")
def demo_llamagen() -> Config:
    """LlamaGen beside demo.

    Frozen tokenizer, no alignment.
    """
    return replace(demo(), stage=Frozen(lam=0.0))


@recipe("start")
def demo_naive() -> Config:
    """The naive way beside demo (Figure 2b).

    Every generator loss goes straight through into the tokenizer, for as many steps as show the codebook collapse.
    """
    return replace(demo(), stage=Naive(), steps=250)


@recipe("start")
def demo_warmup() -> Config:
    """Warm-up of the demo's tokenizer.

    From scratch, on the built-in emoji; it made the demo_tokenizer.safetensors that is shipped.
    """
    return Config(
        stage=Warmup(),
        tokenizer=Tokenizer(
            quantizer=VQ(codebook_size=512, dim=8),
            backbone=VQGAN(
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
        targets=(Target("efficientnet_lite0"),),
        data=Data("builtin", resolution=64, flip=False, holdout=0.1),
        optimizer=Optimizer(tokenizer_lr=5e-4, critic_lr=2e-4, generator_lr=2e-3, ema=0.998),
        watch=Watch(sample_every=200, evaluate_every=0),
        sampling=Sampling(cfg_scale=2.0, temperature=0.8),
        steps=3000,
        batch=32,
        precision="float32",
        log_every=20,
        save_every=200,
    )


@recipe("start")
def demo_lfq() -> Config:
    """GEAR with look-up free quantization.

    9 bits; the tokenizer from scratch, as no warm-up of it is shipped.
    """
    return replace(demo(), tokenizer=replace(demo_warmup().tokenizer, quantizer=LFQ(bits=9)), steps=2000)


@recipe("start")
def demo_ibq() -> Config:
    """GEAR with index back-propagation.

    The tokenizer from scratch, as no warm-up of it is shipped.
    """
    return replace(demo(), tokenizer=replace(demo_warmup().tokenizer, quantizer=IBQ(512, dim=32)), steps=2000)
