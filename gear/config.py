"""The whole schema of a run: frozen dataclasses, no torch. Each default cites the table or equation it comes from.

A recipe (`gear.recipes`) is a function that returns a whole `Config`; the run folder keeps it as JSON
(`gear.config_json`), and a run can be trained again from that file. `gear.config_check` refuses an impossible
configuration in one sentence before anything is loaded.

Small closed choices are types: `Quantizer = VQ | LFQ | IBQ`, `Stage = Warmup | Gear | Frozen | Naive`. They are matched
once, in `gear.build`, and end with `assert_never`, so the type checker is the registry.
"""

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
class VQGAN:
    """The encoder and decoder of VQGAN, which LlamaGen and IBQ share. The defaults are VQ-16's (71.9M, Table 18).

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
class MAGVIT2:
    """The encoder and decoder of Open-MAGVIT2. The defaults are LFQ-16's (115.1M, Table 18).

    No attention; the decoder's normalisation is steered by the codewords. The latents have the quantizer's dimension.
    """

    channels: int = 128  # width of the first level
    multipliers: tuple[int, ...] = (1, 1, 2, 2, 4)  # width of each level over `channels`
    blocks: int = 4  # residual blocks a level, and in the middle, of the encoder and of the decoder
    groups: int = 32  # of GroupNorm

    @property
    def downsample(self) -> int:
        return 2 ** (len(self.multipliers) - 1)


Backbone = VQGAN | MAGVIT2


@dataclass(frozen=True)
class Critic:
    """PatchGAN (Isola et al.) with a hinge loss, as in VQGAN; trained by its own optimiser."""

    channels: int = 64  # width of the first layer
    layers: int = 3  # that halve the resolution


@dataclass(frozen=True)
class TokenizerLoss:
    """Weights of eq. 2. At 0 a term has no part in training; LPIPS and the critic are then not even built, the others
    stay in the log."""

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
    backbone: Backbone = field(default_factory=VQGAN)
    critic: Critic = field(default_factory=Critic)
    loss: TokenizerLoss = field(default_factory=TokenizerLoss)
    init: str | None = None  # a run, a released file, a name of `gear fetch`, or "builtin"; None: from scratch


FAMILIES = {  # the public tokenizers, by the names the release gives them; sizes in Table 18
    "VQ-16": Tokenizer(VQ(), VQGAN()),  # LlamaGen, 71,883,403 parameters
    "VQ-8": Tokenizer(VQ(), VQGAN(multipliers=(1, 2, 2, 4))),  # LlamaGen, 70,109,835; four times as many tokens
    "LFQ-16": Tokenizer(LFQ(), MAGVIT2()),  # Open-MAGVIT2, 115,094,033
    "IBQ-16": Tokenizer(IBQ(), VQGAN(encoder_blocks=4, decoder_blocks=5)),  # SEED-Voken, 110,982,019
}


def family(tokenizer: Tokenizer) -> str | None:
    """Which of `FAMILIES` has these networks, if any; losses and weights do not count."""
    same = (n for n, f in FAMILIES.items() if (f.quantizer, f.backbone) == (tokenizer.quantizer, tokenizer.backbone))
    return next(same, None)


# ---------------------------------------------------------------------------------------------------- generator


@dataclass(frozen=True)
class Text:
    """A caption instead of a class before the image tokens (appendix B), as states of a frozen text encoder."""

    encoder: str = "qwen3-1.7b"  # "qwen3-1.7b", "minilm", a model's id on the hub, or a folder; Table 17
    tokens: int = 300  # T, rows of text; a longer caption is cut; Table 17
    drop: float = 0.1  # share of captions replaced by the unconditional input; Table 17
    dual: int | None = None  # first blocks that have attention weights of their own for text; None: a third; appendix B
    rotary: Literal["identity", "zero"] = "identity"  # of text rows; zero: released weights; PAPER.md, M12
    padding: Literal["left", "right"] = "left"  # of short captions; right: released weights, where it predicts token 0


@dataclass(frozen=True)
class Generator:
    """Llama-style causal transformer over the K indices. The defaults are LlamaGen-L (343M)."""

    layers: int = 24  # transformer blocks
    heads: int = 16  # of attention
    width: int = 1024  # D, channels of a token
    tap: int | None = None  # l, the block whose output is aligned, from 1; None: a third of the depth; Table 15
    align: Literal["next", "same"] = "next"  # patch i with the state that predicts token i, or saw it; PAPER.md, M6
    projector: int = 2048  # hidden width of g_phi; Table 16
    classes: int | None = None  # None: as many as the data has
    class_drop: float = 0.1  # share of labels replaced by the null class; Table 16
    class_rotary: Literal["identity", "zero"] = "identity"  # of the class token; zero: released weights; PAPER.md, M12
    text: Text | None = None  # what is drawn is said by a caption; None: by a class
    dropout: float = 0.1  # token embedding, attention output and feed-forward; released code
    init: str | None = None  # a run or released file to start from; None: from scratch; PAPER.md, M4

    @property
    def aligned_block(self) -> int:
        """`tap`, or a third of the depth: 4, 8, 12 for B, L, XL (appendix A)."""
        return self.tap if self.tap is not None else max(1, self.layers // 3)

    @property
    def dual_blocks(self) -> int:
        """`text.dual`, or the first third of the depth (appendix B); 0 without text."""
        if self.text is None:
            return 0
        return self.text.dual if self.text.dual is not None else max(1, round(self.layers / 3))


SIZES = {  # of LlamaGen; parameters with K = 16,384 and 1,000 classes
    "S": Generator(layers=12, heads=12, width=384),  # 34,210,560
    "B": Generator(layers=12, heads=12, width=768),  # 110,888,448
    "L": Generator(layers=24, heads=16, width=1024),  # 342,910,976
    "XL": Generator(layers=36, heads=20, width=1280),  # 774,699,520
    "1B": Generator(layers=36, heads=20, width=1440),  # with text of Qwen3-1.7B in place of classes 1,047,659,040
    "XXL": Generator(layers=48, heads=24, width=1536),  # 1,410,972,672
    "XXXL": Generator(layers=48, heads=40, width=2560),  # 3,893,027,840
}


# ---------------------------------------------------------------------------------------------------- the rest


TargetName = Literal[
    "dinov2-s", "dinov2-b", "dinov2-l", "dinov2-g",
    "dinov2-s-reg", "dinov2-b-reg", "dinov2-l-reg", "dinov2-g-reg",
    "dinov3-s", "dinov3-b", "dinov3-l",
    "siglip2-b", "siglip2-l", "siglip2-so400m", "siglip2-b-512", "siglip2-l-512", "siglip2-so400m-512",
    "vjepa2.1-b", "vjepa2.1-l", "clip-l",
    "efficientnet_lite0", "mobilenet_v2", "resnet50",
]  # fmt: skip


@dataclass(frozen=True)
class Target:
    """f(x) of eq. 5: a frozen vision encoder whose patch features the generator is aligned to."""

    name: TargetName = "dinov2-b"  # which encoder; Table 15
    weights: str | None = None  # a local file instead of the package or hub the encoder comes from
    layer: int | None = None  # output of which block (from 1); None: the last, with its final norm
    spatial_norm: float | None = None  # alpha of iREPA's z-score over positions, 0.6 in appendix A; None: none


NAMED = ("builtin", "cifar10", "emoji")  # data sets known by name
LABELS = ("folders", "imagenet")  # `Data.classes` that are no file


@dataclass(frozen=True)
class Part:
    """Another set of images that is drawn from beside `Data.path`."""

    path: str = "builtin"  # as `Data.path`
    weight: float = 1.0  # images drawn from it for each one of `Data.path`


@dataclass(frozen=True)
class Data:
    path: str = "builtin"  # "builtin" (emoji), "cifar10", "emoji"; folder of classes, images, tars; .csv, .jsonl, .json
    resolution: int = 256  # pixels along a side
    mixture: tuple[Part, ...] = ()  # sets with captions drawn from beside path: --mix FOLDER=WEIGHT each, 1 unless said
    crop: Literal["center", "random"] = "center"  # of the square; random: decoded at each visit (ImageNet)
    prepare: bool = True  # decode center crops once and keep them; off for what is larger than the disk (GPIC)
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"  # of the short-side resize; appendix C
    views: int | None = None  # fixed random crops of an image, as LlamaGen's ten; None: a fresh one at each visit
    flip: bool | None = None  # horizontal flip half of the time; None: unless there are captions ("left" would lie)
    classes: str = "folders"  # labels: sorted folder names; "imagenet" (its 1,000 wnids); or a file, a name a line
    holdout: float = 0.05  # share of images never trained on, for rFID, PSNR and held-out losses
    workers: int = 4  # processes that decode; 0: none but this one
    codes: str | None = None  # a folder of `gear encode`: its tokens are read, no tokenizer runs


@dataclass(frozen=True)
class Sampling:
    """How a run is sampled; has no influence on its training."""

    cfg_scale: float = 1.5  # of classifier-free guidance, 1 is none; Tables 1, 13, 14
    temperature: float = 1.0  # of the softmax; Table 16
    top_k: int = 0  # keep the k most likely tokens, 0 keeps all; Table 16
    top_p: float = 1.0  # keep the most likely tokens that hold this mass; Table 16


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
class Engine:
    """How a step is computed, on however many devices. Its numbers are the same up to rounding, but for `accumulate`
    where the tokenizer trains: its entropy and its critic's batch normalisation are then of a part."""

    accumulate: int = 1  # parts of a device's share of the batch, one after the other; batch statistics are of a part
    shard: bool = False  # generator, its average and optimiser spread over the devices (FSDP2), for XL and above
    recompute: bool = False  # keep only the input of each block, compute the rest again in the backward pass
    compile: bool = False  # torch.compile the blocks of all networks
    tf32: bool = True  # on a GPU: float32 products on tensor cores, as in the release; never those of the assignment


@dataclass(frozen=True)
class Guards:
    """What stops a run that is going wrong. Thresholds calibrated on the demo's naive and GEAR runs (LOG.md)."""

    skip_limit: int = 20  # updates in a row that may be left out because a gradient is not finite
    collapse_warn: float = 0.7  # warn below this share of the largest effective codebook seen; 0: never
    collapse_stop: float = 0.0  # stop below this share; 0: never


@dataclass(frozen=True)
class Watch:
    """What is drawn and measured of the averaged pair while it trains; has no influence on it."""

    sample_every: int = 5000  # steps between sheets of samples and reconstructions; 0: none
    samples: int = 32  # images on a sheet
    evaluate_every: int = 25_000  # steps between online rFID and gFID; 0: never
    generated: int = 5000  # images drawn for gFID, and at most as many held-out ones for rFID
    trackers: tuple[Literal["tensorboard", "wandb"], ...] = ("tensorboard",)  # beside the JSON lines


@dataclass(frozen=True)
class Warmup:
    """The tokenizer alone, eq. 2: recovers a critic and a codebook before joint training (section 4.1)."""


@dataclass(frozen=True)
class Gear:
    """Algorithm 1: both trained together, the soft read-out guiding the tokenizer."""

    tau: float = 0.1  # guidance temperature; Table 5
    lam: float = 0.5  # alignment coefficient on both terms; Table 6
    readout: Literal["soft", "straight_through"] = "soft"  # straight_through: the alignment-only STE of the release
    lam_soft: float | None = None  # another one on the tokenizer's term, as the release's script has; PAPER.md, M5

    @property
    def guidance(self) -> float:
        """The coefficient of the soft term, in eq. 11."""
        return self.lam if self.lam_soft is None else self.lam_soft


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
    targets: tuple[Target, ...] = (Target(),)  # one or more; their alignment losses are averaged
    data: Data = field(default_factory=Data)
    optimizer: Optimizer = field(default_factory=Optimizer)
    engine: Engine = field(default_factory=Engine)
    guards: Guards = field(default_factory=Guards)
    watch: Watch = field(default_factory=Watch)
    sampling: Sampling = field(default_factory=Sampling)
    steps: int = 400_000  # updates in all; Table 15
    batch: int = 256  # images a step; Table 16
    seed: int = 0  # of everything random: initial weights, order of images, dropout
    precision: Literal["float32", "bfloat16"] = "bfloat16"  # of the networks; the assignment is float32 always
    log_every: int = 50  # steps between lines of log.jsonl
    save_every: int = 5000  # steps between checkpoints
    keep_last: int = 2  # checkpoints, the newest included; the one before is there should that be damaged
    keep_every: int | None = None  # steps between checkpoints that are never removed; None: none are
    device: str = "auto"  # "auto": a CUDA GPU if torch sees one, else the CPU


def grid(config: Config) -> int:
    """Tokens along one side of an image: h = w = resolution / downsample."""
    return config.data.resolution // config.tokenizer.backbone.downsample


def flips(config: Config) -> bool:
    """`data.flip`; by default not where captions say what is left and what is right."""
    return config.data.flip if config.data.flip is not None else config.generator.text is None
