"""The whole schema of a run: frozen dataclasses, no torch. Each default cites the table or equation it comes from.

A recipe (`gear.recipes`) is a function that returns a whole `Config`; the run folder keeps it as JSON
(`gear.config_json`), and a run can be trained again from that file. `check` refuses an impossible configuration in one
sentence before anything is loaded.

Small closed choices are types: `Quantizer = VQ | LFQ | IBQ`, `Stage = Warmup | Gear | Frozen | Naive`. They are matched
once, in `gear.build`, and end with `assert_never`, so the type checker is the registry.
"""

import dataclasses
from dataclasses import dataclass, field
from typing import Literal


class ConfigError(ValueError):
    """A configuration that cannot work: which field, what is needed, what came."""


# ---------------------------------------------------------------------------------------------------- tokenizer


@dataclass(frozen=True)
class VQ:
    """Nearest codeword on the unit sphere (LlamaGen): A_ik = 2 <z_i, c_k> - |c_k|^2, both l2-normalised."""

    codebook_size: int = 16384  # K, the number of codewords; Table 16
    dim: int = 8  # d, channels of a codeword; Table 18


@dataclass(frozen=True)
class LFQ:
    """Look-up free: the sign of each channel is one bit, A_ik = 2 <z_i, c_k> with c_k in {-1, +1}^bits."""

    bits: int = 14  # channels of z; K = 2^bits codewords; Table 18

    @property
    def codebook_size(self) -> int:
        return 2**self.bits

    @property
    def dim(self) -> int:
        return self.bits


@dataclass(frozen=True)
class IBQ:
    """Index back-propagation: A_ik = <z_i, c_k>, nothing normalised, gradients to every codeword."""

    codebook_size: int = 16384  # K, the number of codewords; Table 18
    dim: int = 256  # d, channels of a codeword; Table 18


Quantizer = VQ | LFQ | IBQ


@dataclass(frozen=True)
class Backbone:
    """The convolutional encoder and decoder of the tokenizer. The defaults are LlamaGen's VQ-16 (71.9M, Table 18).

    The image is down-sampled `patch * 2 ** (len(multipliers) - 1)` times.
    """

    channels: int = 128  # width of the first level
    multipliers: tuple[int, ...] = (1, 1, 2, 2, 4)  # width of each level over `channels`
    encoder_blocks: int = 2  # residual blocks a level
    decoder_blocks: int = 3  # likewise in the decoder
    latent: int = 256  # channels between the backbone and the quantizer's own 1x1 convolutions
    attention: bool = True  # at the lowest level and in the middle
    groups: int = 32  # of GroupNorm
    patch: int = 1  # pixels folded into channels before the first convolution; 1 is the paper's

    @property
    def downsample(self) -> int:
        return self.patch * 2 ** (len(self.multipliers) - 1)


@dataclass(frozen=True)
class Critic:
    """PatchGAN (Isola et al.) with a hinge loss, as in VQGAN; trained by its own optimiser."""

    channels: int = 64  # width of the first layer
    layers: int = 3  # that halve the resolution


@dataclass(frozen=True)
class TokenizerLoss:
    """Weights of eq. 2. A weight of 0 removes the term, and what only that term needs is not built."""

    reconstruction: float = 1.0  # of the mean absolute error; Table 16
    perceptual: float = 0.1  # of LPIPS; eq. 2, Table 16 (the released code has 1.0: PAPER.md, M1)
    adversarial: float = 0.1  # of the critic's verdict; eq. 2, Table 16; 0 builds no critic
    entropy: float = 0.05  # of the codebook entropy; eq. 2, Table 16
    entropy_temperature: float = 0.01  # of the softmax it is taken of; released code
    quantizer: float = 1.0  # of the codebook term, which eq. 2 omits and the released code has (PAPER.md, M2)
    commitment: float = 0.25  # of the commitment loss; eq. 2, Table 16
    perceptual_trunk: Literal["alex", "vgg"] = "vgg"  # network under LPIPS; released code


@dataclass(frozen=True)
class Tokenizer:
    quantizer: Quantizer = field(default_factory=VQ)
    backbone: Backbone = field(default_factory=Backbone)
    critic: Critic = field(default_factory=Critic)
    loss: TokenizerLoss = field(default_factory=TokenizerLoss)
    init: str | None = None  # a run folder, a .safetensors file, or "builtin"; None: from scratch (Table 12)


# ---------------------------------------------------------------------------------------------------- generator


@dataclass(frozen=True)
class Generator:
    """Llama-style causal transformer over the K indices. The defaults are LlamaGen-L (343M)."""

    layers: int = 24  # transformer blocks
    heads: int = 16  # of attention
    width: int = 1024  # D, channels of a token
    tap: int = 8  # l, the block whose output is aligned, counted from 1: a third of the depth; Table 15
    projector: int = 2048  # hidden width of g_phi; Table 16
    classes: int | None = None  # None: as many as the data has
    class_drop: float = 0.1  # share of labels replaced by the null class; Table 16
    dropout: float = 0.1  # token embedding, attention output and feed-forward; released code


# ---------------------------------------------------------------------------------------------------- the rest


@dataclass(frozen=True)
class Target:
    """f(x) of eq. 5: a frozen vision encoder whose patch features the generator is aligned to."""

    name: Literal["efficientnet_lite0", "dinov2"] = "dinov2"  # which encoder; Table 15
    weights: str | None = None  # a local file instead of the package or hub the target comes from


@dataclass(frozen=True)
class Data:
    path: str = "builtin"  # "builtin" (Fluent emoji), "cifar10", or a folder of class folders (or of images: one class)
    resolution: int = 256  # pixels along a side
    flip: bool = True  # horizontal flip half of the time; off where captions or writing matter
    holdout: float = 0.05  # share of images never trained on, for rFID, PSNR and held-out losses


@dataclass(frozen=True)
class Optimizer:
    """AdamW with a constant learning rate, one per group: tokenizer, critic, generator (Table 16)."""

    tokenizer_lr: float = 1e-4  # learning rate of the tokenizer
    critic_lr: float = 1e-4  # learning rate of the critic
    generator_lr: float = 1e-4  # learning rate of the generator
    beta1: float = 0.9  # of AdamW
    beta2: float = 0.999  # of AdamW
    weight_decay: float = 0.0  # of AdamW
    clip: float = 1.0  # largest norm of each group's gradient
    ema: float = 0.9999  # decay of the averaged weights a step; Table 16


@dataclass(frozen=True)
class Warmup:
    """The tokenizer alone, eq. 2: recovers a critic and a codebook before joint training (section 4.1)."""


@dataclass(frozen=True)
class Gear:
    """Algorithm 1: both trained together, the soft read-out guiding the tokenizer."""

    tau: float = 0.1  # guidance temperature; Table 5
    lam: float = 0.5  # alignment coefficient on both terms; Table 6
    readout: Literal["soft", "straight_through"] = "soft"  # straight_through: the alignment-only STE of the release


@dataclass(frozen=True)
class Frozen:
    """The generator alone on a frozen tokenizer: LlamaGen-REPA; with lam = 0, LlamaGen."""

    lam: float = 0.5  # alignment coefficient; 0 is LlamaGen


@dataclass(frozen=True)
class Naive:
    """Fig. 2b: every generator loss, next-token prediction included, straight through into the tokenizer. Collapses."""

    tau: float = 0.1  # temperature of the gradient through the assignment
    lam: float = 0.5  # alignment coefficient


Stage = Warmup | Gear | Frozen | Naive


@dataclass(frozen=True)
class Config:
    """One run. `gear train RECIPE --field value` starts from a recipe's and changes fields."""

    stage: Stage = field(default_factory=Gear)
    tokenizer: Tokenizer = field(default_factory=Tokenizer)
    generator: Generator = field(default_factory=Generator)
    target: Target = field(default_factory=Target)
    data: Data = field(default_factory=Data)
    optimizer: Optimizer = field(default_factory=Optimizer)
    steps: int = 400_000  # updates in all; Table 15
    batch: int = 256  # images a step; Table 16
    seed: int = 0  # of everything random: initial weights, order of images, dropout
    precision: Literal["float32", "bfloat16"] = "bfloat16"  # of the networks; the assignment is float32 always
    log_every: int = 50  # steps between lines of log.jsonl
    save_every: int = 5000  # steps between checkpoints
    device: str = "auto"  # "auto": a CUDA GPU if torch sees one, else the CPU


def grid(config: Config) -> int:
    """Tokens along one side of an image: h = w = resolution / downsample."""
    return config.data.resolution // config.tokenizer.backbone.downsample


def check(config: Config) -> Config:
    """Returns `config` unchanged, or raises `ConfigError` naming the field, what is needed and what came."""
    t, g, d, o, stage = config.tokenizer, config.generator, config.data, config.optimizer, config.stage

    def need(ok: bool, name: str, needed: str, came: object) -> None:
        if not ok:
            raise ConfigError(f"{name} must be {needed}; it is {came}.")

    for owner, prefix, names in (
        (config, "", ("steps", "batch", "log_every", "save_every")),
        (g, "generator.", ("layers", "heads", "width", "projector")),
        (t.backbone, "tokenizer.backbone.", ("channels", "groups", "latent", "patch")),
        (t.backbone, "tokenizer.backbone.", ("encoder_blocks", "decoder_blocks")),
        (t.critic, "tokenizer.critic.", ("channels", "layers")),
    ):
        for name in names:
            need(getattr(owner, name) >= 1, prefix + name, "at least 1", getattr(owner, name))
    multipliers = t.backbone.multipliers
    need(min(multipliers, default=0) >= 1, "tokenizer.backbone.multipliers", "one or more, all at least 1", multipliers)
    need(0 <= config.seed < 2**63, "seed", "from 0 to 2^63 - 1", config.seed)
    down = t.backbone.downsample
    nearest = max(down, round(d.resolution / down) * down)
    need(
        d.resolution > 0 and d.resolution % down == 0,
        "data.resolution",
        f"a multiple of {down}, which is what tokenizer.backbone down-samples by (the nearest is {nearest})",
        d.resolution,
    )
    need(1 <= g.tap <= g.layers, "generator.tap", f"between 1 and generator.layers = {g.layers}", g.tap)
    need(g.width % g.heads == 0, "generator.width", f"a multiple of generator.heads = {g.heads}", g.width)
    need(
        g.width // g.heads % 4 == 0,
        "generator.width / generator.heads",
        "a multiple of 4, two channels for each axis of the 2-D rotary embedding",
        g.width // g.heads,
    )
    need(0.0 <= g.class_drop < 1.0, "generator.class_drop", "in [0, 1)", g.class_drop)
    need(0.0 <= g.dropout < 1.0, "generator.dropout", "in [0, 1)", g.dropout)
    need(t.quantizer.dim >= 1, "tokenizer.quantizer", "of at least one dimension", t.quantizer.dim)
    need(t.quantizer.codebook_size >= 2, "tokenizer.quantizer", "at least two codewords", t.quantizer.codebook_size)
    for level, multiplier in enumerate(multipliers):
        width = t.backbone.channels * multiplier
        need(
            width % t.backbone.groups == 0,
            f"tokenizer.backbone.channels * multipliers[{level}]",
            f"a multiple of tokenizer.backbone.groups = {t.backbone.groups}",
            width,
        )
    if isinstance(stage, Gear | Naive):
        need(stage.tau > 0, "stage.tau", "above 0 (the soft read-out is softmax(A / tau))", stage.tau)
    if not isinstance(stage, Warmup):
        need(stage.lam >= 0, "stage.lam", "0 or more", stage.lam)
    if isinstance(stage, Frozen):
        need(t.init is not None, "tokenizer.init", "a trained tokenizer (frozen training never changes it)", t.init)
    for f in dataclasses.fields(t.loss):
        value = getattr(t.loss, f.name)
        if isinstance(value, float):
            need(value >= 0, f"tokenizer.loss.{f.name}", "0 or more", value)
    need(t.loss.entropy_temperature > 0, "tokenizer.loss.entropy_temperature", "above 0", t.loss.entropy_temperature)
    for name in ("tokenizer_lr", "critic_lr", "generator_lr", "clip"):
        need(getattr(o, name) > 0, f"optimizer.{name}", "above 0", getattr(o, name))
    for name in ("beta1", "beta2", "ema"):
        need(0 <= getattr(o, name) < 1, f"optimizer.{name}", "in [0, 1)", getattr(o, name))
    need(o.weight_decay >= 0, "optimizer.weight_decay", "0 or more", o.weight_decay)
    need(d.path != "", "data.path", '"builtin", "cifar10" or a folder', "empty")
    if not isinstance(stage, Frozen):
        trunk, pixels = t.loss.perceptual_trunk, {"alex": 31, "vgg": 16}[t.loss.perceptual_trunk]
        if t.loss.perceptual > 0:
            need(d.resolution >= pixels, "data.resolution", f"at least {pixels} for LPIPS over {trunk}", d.resolution)
        pixels = 3 * 2**t.critic.layers
        if t.loss.adversarial > 0:
            needed = f"at least {pixels} for tokenizer.critic.layers = {t.critic.layers}"
            need(d.resolution >= pixels, "data.resolution", needed, d.resolution)
    need(0.0 <= d.holdout < 1.0, "data.holdout", "in [0, 1)", d.holdout)
    return config
