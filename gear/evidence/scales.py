"""How large the evidence is: networks, steps, seeds and counts of images, once for a laptop and once for a GPU."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from gear.config import (
    IBQ,
    LFQ,
    VQ,
    VQGAN,
    Config,
    Critic,
    Data,
    Frozen,
    Generator,
    Optimizer,
    Quantizer,
    Sampling,
    Target,
    Text,
    Tokenizer,
    TokenizerLoss,
    Warmup,
    Watch,
)


@dataclass(frozen=True)
class Counts:
    """Images behind the numbers.

    generated: behind the gFID of the arms of claims 1 and 2, of seeds that are for these. rest: of all others; 0: they
    have the cheap distances alone. reference: training images that they are compared with. rebuilt, probed: test
    images. curve: generated, for the cheap distance while a run trains and at its end.
    """

    generated: int
    rest: int
    reference: int
    rebuilt: int
    probed: int
    curve: int


@dataclass(frozen=True)
class Scale:
    """
    base: the warm-up of VQ. Every arm is this with something changed: networks, data, target and learning rates are
        the same for all.
    quantizers: by the names of the arms.
    sizes: generators beside the base's, by the names of the arms.
    steps: of every arm but warm-ups and transfer: a tokenizer with its generator, or a generator on a frozen tokenizer.
    curve: steps between the points of the curves of claim 1.
    transfer: text-to-image on another data set, without a tokenizer.
    seeds: a whole repetition each, its warm-up included.
    claims_of: by seed, the claims that it is for, and 0 where what others begin with has its distances in Inception,
        too; one that is not here is for all, and 0.
    """

    name: str
    base: Config
    quantizers: Mapping[str, Quantizer]
    sizes: Mapping[str, Generator]
    steps: int
    curve: int
    transfer: Config
    seeds: tuple[int, ...]
    counts: Counts
    claims_of: Mapping[int, tuple[int, ...]] = field(default_factory=dict)

    def asks(self, seed: int, claim: int) -> bool:
        return seed not in self.claims_of or claim in self.claims_of[seed]

    def seeds_of(self, claim: int) -> tuple[int, ...]:
        return tuple(seed for seed in self.seeds if self.asks(seed, claim))


def captioned(base: Config, text: Text, steps: int, batch: int) -> Config:
    """A generator that reads the names of the built-in emoji, at 64 px, on a tokenizer of `base`."""
    return replace(
        base,
        stage=Frozen(),
        generator=replace(base.generator, text=text),
        data=Data("builtin", resolution=64, holdout=0.1),
        watch=replace(base.watch, evaluate_every=0),
        steps=steps,
        batch=batch,
    )


# Written out, and not taken from a recipe: a protocol does not change when a recipe does.
_CPU = Config(
    stage=Warmup(),
    tokenizer=Tokenizer(
        quantizer=VQ(codebook_size=512, dim=8),
        backbone=VQGAN(
            channels=32,
            multipliers=(1, 2),
            encoder_blocks=1,
            decoder_blocks=1,
            latent=64,
            attention=False,
            groups=16,
            patch=2,
        ),
        critic=Critic(channels=16, layers=1),
        loss=TokenizerLoss(perceptual_trunk="alex"),
    ),
    generator=Generator(layers=4, heads=4, width=128, tap=2, projector=256, dropout=0.0),
    targets=(Target("mobilenet_v2"),),
    data=Data("cifar10", resolution=32, flip=False, holdout=0.02),
    optimizer=Optimizer(tokenizer_lr=1e-3, critic_lr=2e-4, generator_lr=2e-3, ema=0.99),
    watch=Watch(sample_every=0, generated=1000, trackers=()),
    sampling=Sampling(cfg_scale=1.0),
    steps=1000,
    batch=32,
    precision="float32",
    log_every=20,
    save_every=200,
    keep_last=1,
)

# The processor of the first three seeds was gone before all claims had run, and another makes other tokenizers of them.
_FIRST, _LAST = (0, 1, 2, 3, 5, 6, 10), (4, 7, 8, 9)
_CPU_SEEDS: dict[int, tuple[int, ...]] = {0: _FIRST, 1: _FIRST, 2: _FIRST, 3: _LAST, 4: _LAST, 5: _LAST}

CPU = Scale(
    name="cpu",
    base=_CPU,
    quantizers={"lfq": LFQ(bits=9), "ibq": IBQ(512, dim=32)},
    sizes={
        "small": replace(_CPU.generator, layers=2, heads=2, width=64, tap=1),
        "large": replace(_CPU.generator, layers=6, heads=8, width=256, tap=2),
    },
    steps=600,
    curve=100,
    transfer=captioned(_CPU, Text("minilm", tokens=32), steps=400, batch=16),
    seeds=tuple(_CPU_SEEDS),
    claims_of=_CPU_SEEDS,
    counts=Counts(generated=2500, rest=0, reference=5000, rebuilt=2500, probed=1000, curve=1000),
)

# Target, losses and the tokenizer's rates are scale cpu's. Sizes, batch, precision, steps, counts, the generator's rate
# and the decay of the averages are not.
_GPU = replace(
    CPU.base,
    tokenizer=replace(
        CPU.base.tokenizer,
        backbone=replace(CPU.base.tokenizer.backbone, channels=64, encoder_blocks=2, decoder_blocks=2, latent=128),
        quantizer=VQ(codebook_size=1024, dim=8),
        critic=Critic(channels=32, layers=1),
    ),
    generator=Generator(layers=8, heads=6, width=384, tap=2, projector=1024, dropout=0.0),
    optimizer=replace(CPU.base.optimizer, generator_lr=1e-3, ema=0.995),
    steps=1500,
    batch=128,
    precision="bfloat16",
    save_every=500,
)

# What one GPU does three times in about an hour; with other seeds (--seeds) the arms of all claims run.
_GPU_SEEDS: dict[int, tuple[int, ...]] = dict.fromkeys((0, 1, 2), (0, 1, 2, 5, 10))

GPU = Scale(
    name="gpu",
    base=_GPU,
    quantizers={"lfq": LFQ(bits=10), "ibq": IBQ(1024, dim=64)},
    sizes={
        "small": replace(_GPU.generator, layers=4, heads=4, width=192, tap=2),
        "large": replace(_GPU.generator, layers=12, heads=12, width=768, tap=4),
    },
    steps=1000,
    curve=200,
    transfer=captioned(_GPU, Text("minilm", tokens=32), steps=1000, batch=64),
    seeds=tuple(_GPU_SEEDS),
    claims_of=_GPU_SEEDS,
    counts=Counts(generated=10_000, rest=10_000, reference=50_000, rebuilt=5000, probed=1000, curve=1000),
)

SCALES = {scale.name: scale for scale in (CPU, GPU)}
