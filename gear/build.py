"""From a configuration to objects: the one place that names classes. A new variant is one class and one case here."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import assert_never

import torch
from jaxtyping import UInt8
from torch import Tensor, nn

from gear import config as cfg
from gear import fetch, weights
from gear import step as steps
from gear.assignment import Assignment
from gear.config import Config, ConfigError, grid
from gear.config_json import differences
from gear.generator import Generator
from gear.step import Batch, Learner, Step
from gear.targets import DINOv2, EfficientNetLite0, Target, fit_standardisation
from gear.tokenizer.backbone import Decoder, Encoder
from gear.tokenizer.critic import Critic
from gear.tokenizer.perceptual import Perceptual
from gear.tokenizer.quantizers import IBQ, LFQ, VQ
from gear.tokenizer.tokenizer import Tokenizer
from gear.train import state
from gear.update import Trained

BUILTIN = Path(__file__).parent / "pretrained" / "demo_tokenizer.safetensors"


@dataclass(frozen=True)
class Training:
    """What the loop runs: the groups that move, and the step of the chosen stage."""

    groups: tuple[Trained, ...]
    step: Callable[[Batch], Step]


def device(config: Config) -> torch.device:
    name = ("cuda" if torch.cuda.is_available() else "cpu") if config.device == "auto" else config.device
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f'device must be "auto", "cpu" or a device that torch can use; {name!r} failed: {error}'
        ) from None


def target(config: Config, pixels: UInt8[Tensor, "M 3 H W"], on: torch.device) -> Target:
    """f(x) of eq. 5. `pixels` are some training images, for a target whose channels are standardised over the data."""
    name = config.target.name
    file = Path(config.target.weights) if config.target.weights else weights.path(name)
    match name:
        case "efficientnet_lite0":
            side = (grid(config), grid(config))
            return fit_standardisation(EfficientNetLite0(file).to(on), pixels.to(on), side)
        case "dinov2":  # as the release has it: its last LayerNorm has standardised it already
            return DINOv2(file).to(on)
        case other:
            assert_never(other)


def require(config: Config) -> None:
    """Looks for every pretrained file that the stage needs, before the long work; a target that a model hub has is
    fetched. Raises `MissingWeight`, which says how to bring it, or `CheckpointError`."""
    loss = config.tokenizer.loss
    if _aligned(config) and not config.target.weights:
        try:
            weights.path(config.target.name)
        except weights.MissingWeight as missing:
            if not isinstance(weights.find(config.target.name).source, weights.Hub):
                raise
            try:
                fetch.fetch(config.target.name)
            except OSError:
                raise missing from None
    if not isinstance(config.stage, cfg.Frozen) and loss.perceptual > 0:
        weights.path(f"lpips-{loss.perceptual_trunk}")
    if config.tokenizer.init is not None:
        fits_tokenizer(_initial(config), config)


def _aligned(config: Config) -> bool:
    """Not without a generator, and not at lam = 0 (LlamaGen)."""
    return not isinstance(config.stage, cfg.Warmup) and config.stage.lam > 0


def _initial(config: Config) -> state.Checkpoint:
    assert config.tokenizer.init is not None
    return state.load(BUILTIN if config.tokenizer.init == "builtin" else Path(config.tokenizer.init))


def targets(config: Config, pixels: UInt8[Tensor, "M 3 H W"], on: torch.device) -> tuple[Target, ...]:
    """The encoders this stage aligns to."""
    return (target(config, pixels, on),) if _aligned(config) else ()


def quantizer(config: Config) -> VQ | LFQ | IBQ:
    match config.tokenizer.quantizer:
        case cfg.VQ(codebook_size, dim):
            return VQ(codebook_size, dim)
        case cfg.LFQ(bits):
            return LFQ(bits)
        case cfg.IBQ(codebook_size, dim):
            return IBQ(codebook_size, dim)
        case other:
            assert_never(other)


def tokenizer(config: Config) -> Tokenizer:
    b, d = config.tokenizer.backbone, config.tokenizer.quantizer.dim
    bits = isinstance(config.tokenizer.quantizer, cfg.LFQ)  # LFQ reads the backbone's channels as they are
    latent = d if bits else b.latent
    return Tokenizer(
        Encoder(b.channels, b.multipliers, b.encoder_blocks, latent, b.attention, b.groups, b.patch),
        Decoder(b.channels, b.multipliers, b.decoder_blocks, latent, b.attention, b.groups, b.patch),
        quantizer(config),
        quant_conv=nn.Identity() if bits else nn.Conv2d(latent, d, 1),
        post_quant_conv=nn.Identity() if bits else nn.Conv2d(d, latent, 1),
        grid=(grid(config), grid(config)),
    ).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def generator(config: Config, classes: int, target_dims: dict[str, int]) -> Generator:
    g = config.generator
    return Generator(
        codebook_size=config.tokenizer.quantizer.codebook_size,
        classes=classes,
        layers=g.layers,
        heads=g.heads,
        width=g.width,
        tap=g.tap,
        grid=(grid(config), grid(config)),
        class_drop=g.class_drop,
        dropout=g.dropout,
        target_dims=target_dims,
        projector=g.projector,
    )


def training(config: Config, classes: int, target_dims: dict[str, int], on: torch.device) -> Training:
    """Every module of the stage, initialised by the run's seed and `tokenizer.init`, with its optimiser and average."""
    torch.manual_seed(config.seed)
    match config.stage:
        case cfg.Warmup() as stage:
            learner = _learner(config, on)
            return Training(_moving(learner), lambda batch: steps.warmup_step(learner, batch, stage))
        case cfg.Gear() as stage:
            read_out = {"soft": Assignment.soft, "straight_through": Assignment.straight_through}[stage.readout]
            learner, ar = _learner(config, on), _generator(config, classes, target_dims, on)
            return Training((*_moving(learner), ar), lambda batch: steps.gear_step(learner, ar, batch, stage, read_out))
        case cfg.Frozen() as stage:
            learner, ar = _learner(config, on), _generator(config, classes, target_dims, on)
            learner.net.module.eval().requires_grad_(False)
            return Training((learner.net, ar), lambda batch: steps.frozen_step(learner, ar, batch, stage))
        case cfg.Naive() as stage:
            learner, ar = _learner(config, on), _generator(config, classes, target_dims, on)
            return Training((*_moving(learner), ar), lambda batch: steps.naive_step(learner, ar, batch, stage))
        case other:
            assert_never(other)


def _moving(learner: Learner) -> tuple[Trained, ...]:
    return (learner.net,) if learner.critic is None else (learner.net, learner.critic)


def _learner(config: Config, on: torch.device) -> Learner:
    t, o = config.tokenizer, config.optimizer
    moves = not isinstance(config.stage, cfg.Frozen)
    net = tokenizer(config)
    critic = Critic(t.critic.channels, t.critic.layers) if moves and t.loss.adversarial > 0 else None
    if t.init is not None:
        _initialise(net, critic, config)
    perceptual = None
    if moves and t.loss.perceptual > 0:
        trunk = t.loss.perceptual_trunk
        perceptual = Perceptual(trunk, weights.path(f"lpips-{trunk}")).to(on)
    return Learner(
        net=_trained("tokenizer", net.to(on), o.tokenizer_lr, o, o.ema if moves else None),
        critic=None if critic is None else _trained("critic", critic.to(on), o.critic_lr, o, None),
        perceptual=perceptual,
        weights=t.loss,
        codebook_size=t.quantizer.codebook_size,
    )


def _generator(config: Config, classes: int, target_dims: dict[str, int], on: torch.device) -> Trained:
    o = config.optimizer
    return _trained("generator", generator(config, classes, target_dims).to(on), o.generator_lr, o, o.ema)


def _trained(name: str, module: nn.Module, lr: float, o: cfg.Optimizer, ema: float | None) -> Trained:
    adamw = torch.optim.AdamW(module.parameters(), lr, (o.beta1, o.beta2), weight_decay=o.weight_decay)
    return Trained(name, module, adamw, o.clip, ema)


def _initialise(net: Tokenizer, critic: nn.Module | None, config: Config) -> None:
    """The averaged tokenizer of another run, and its critic if it kept one of the same size."""
    checkpoint = _initial(config)
    fits_tokenizer(checkpoint, config)
    state.load_strictly(net, checkpoint.averaged("tokenizer"), f"the tokenizer of {checkpoint.path}")
    kept = checkpoint.part("critic")
    if critic is not None and kept and checkpoint.config.tokenizer.critic == config.tokenizer.critic:
        state.load_strictly(critic, kept, f"the critic of {checkpoint.path}")


def fits_tokenizer(checkpoint: state.Checkpoint, config: Config) -> None:
    """A checkpoint of another quantizer or backbone is refused with the fields that differ."""

    def shape(c: Config) -> Config:
        only = cfg.Tokenizer(quantizer=c.tokenizer.quantizer, backbone=c.tokenizer.backbone)
        return dataclasses.replace(Config(), tokenizer=only)

    if different := differences(shape(checkpoint.config), shape(config)):
        raise state.CheckpointError(
            f"{checkpoint.path} holds another tokenizer than this configuration asks for ({'; '.join(different)}): "
            "change those fields, or tokenizer.init."
        )
