"""From a configuration to objects: the one place that names classes. A new variant is one class and one case here."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, assert_never

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from gear import config as cfg
from gear import initial, ranks, sources, text, weights
from gear import step as steps
from gear.assignment import Assignment
from gear.config import Config, ConfigError, grid
from gear.generator import Generator
from gear.recompute import recompute
from gear.step import Learner, Step
from gear.store.packages import sha256
from gear.targets import ENCODERS, SpatiallyNormalised, Target, check_grid, check_layer, fit_standardisation
from gear.targets.files import without_weights
from gear.tokenizer.critic import Critic
from gear.tokenizer.perceptual import Perceptual
from gear.tokenizer.tokenizer import Tokenizer
from gear.train.reader import Reader
from gear.update import Trained, averaged, shard


@dataclass(frozen=True)
class Training:
    """What the loop runs: the groups that move, and the step of the chosen stage."""

    groups: tuple[Trained, ...]
    step: Callable[[Any], Step]  # of a `Batch`, or of `Encoded` where `data.codes` is set
    fixed: tuple[nn.Module, ...] = ()  # what it runs besides, and never moves


def device(config: Config) -> torch.device:
    name = ("cuda" if torch.cuda.is_available() else "cpu") if config.device == "auto" else config.device
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f'device must be "auto", "cpu" or a device that torch can use; {name!r} failed: {error}'
        ) from None


def target(
    net: Target,
    chosen: cfg.Target,
    config: Config,
    pixels: Callable[[], UInt8[Tensor, "M 3 H W"]],
    on: torch.device,
) -> Target:
    """f(x) of eq. 5 from its loaded encoder. `pixels` gives some training images, for targets whose channels are
    standardised over them."""
    if ENCODERS[chosen.name].standardised:
        net = fit_standardisation(net, pixels().to(on), (grid(config), grid(config)))
    return net if chosen.spatial_norm is None else SpatiallyNormalised(net, chosen.spatial_norm)


def require(config: Config) -> None:
    """Looks for every pretrained file that the stage needs, before the long work; what a model hub has is fetched.
    Raises `MissingWeight`, which says how to bring it, or `CheckpointError`."""
    loss = config.tokenizer.loss
    for chosen in possible_targets(config):
        if not chosen.weights:
            sources.find(chosen.name)
    if not isinstance(config.stage, cfg.Frozen) and loss.perceptual > 0:
        weights.path(f"lpips-{loss.perceptual_trunk}")
    if captioned(config) and config.generator.text is not None:
        text.require(config.generator.text)
    if config.tokenizer.init is not None:
        initial.fits_tokenizer(sources.read(config.tokenizer.init, ("tokenizer", "tokenizer_ema")), config)
    if config.generator.init is not None and not isinstance(config.stage, cfg.Warmup):
        initial.fits_generator(sources.read(config.generator.init, ("generator", "generator_ema")), config)


def weights_used(config: Config) -> dict[str, str]:
    """The sha256 of every file of weights that the run starts from or is aligned to, by what asks for it."""
    used = {c.name: _encoder_file(c) for c in chosen_targets(config)}
    for name, source in (("tokenizer.init", config.tokenizer.init), ("generator.init", config.generator.init)):
        if source is not None:
            used[name] = sources.file_of(source)
    if not isinstance(config.stage, cfg.Frozen) and config.tokenizer.loss.perceptual > 0:
        trunk = f"lpips-{config.tokenizer.loss.perceptual_trunk}"
        used[trunk] = weights.path(trunk)
    return {name: sha256(path) for name, path in used.items()}


def aligned(config: Config) -> bool:
    """Not without a generator, and not at lam = 0 (LlamaGen), unless the tokenizer alone is guided."""
    stage = config.stage
    if isinstance(stage, cfg.Warmup):
        return False
    return stage.lam > 0 or (isinstance(stage, cfg.Gear) and stage.guidance > 0)


def chosen_targets(config: Config) -> tuple[cfg.Target, ...]:
    """What this stage aligns to, or nothing."""
    return config.targets if aligned(config) else ()


def _encoder_file(chosen: cfg.Target) -> Path:
    return Path(chosen.weights) if chosen.weights else weights.path(chosen.name)


def possible_targets(config: Config) -> tuple[cfg.Target, ...]:
    """`chosen_targets`. Raises ValueError for a grid or a layer that an encoder does not have."""
    chosen = chosen_targets(config)
    for one in chosen:
        check_grid(one.name, config.data.resolution, grid(config))
        check_layer(one.name, one.layer)
    return chosen


def targets(config: Config, pixels: Callable[[], UInt8[Tensor, "M 3 H W"]], on: torch.device) -> tuple[Target, ...]:
    """The encoders this stage aligns to; `pixels` as for `target`, called when all files are read and found right."""
    chosen = chosen_targets(config)
    files = [_encoder_file(c) for c in chosen]
    nets = [ENCODERS[c.name].load(file, c.layer).to(on) for c, file in zip(chosen, files, strict=True)]
    return tuple(target(net, c, config, pixels, on) for net, c in zip(nets, chosen, strict=True))


def unloaded_targets(config: Config) -> tuple[Target, ...]:
    """The same without their weights, for `gear plan`; normalisations, which cost nothing, are left out.
    Raises ValueError as `require` does."""
    chosen = possible_targets(config)
    with without_weights():
        return tuple(ENCODERS[c.name].load(Path(), c.layer) for c in chosen)


def tokenizer(config: Config) -> Tokenizer:
    return Tokenizer(config.tokenizer.quantizer, config.tokenizer.backbone)


def trained_tokenizer(config: Config) -> Tokenizer:
    """`tokenizer.init`, held fixed."""
    net = tokenizer(config)
    initial.fill_tokenizer(net, None, config)
    return net.eval().requires_grad_(False)


def generator(
    config: Config,
    classes: int,
    target_dims: dict[str, int],
    null: Float[Tensor, "1 C"] | None = None,
    hw: tuple[int, int] | None = None,
) -> Generator:
    """null: what the text encoder says of no text, where captions take the place of classes. hw: its grid, by default
    the configuration's."""
    net = Generator(
        config.generator,
        codebook_size=config.tokenizer.quantizer.codebook_size,
        classes=classes,
        grid=hw or (grid(config), grid(config)),
        target_dims=target_dims,
        text_width=None if null is None else null.shape[1],
    )
    if null is not None:
        net.cls_embedding.null.copy_(null)
    return net


def reader(config: Config, on: torch.device, captions: int | None) -> Reader | None:
    """Of the captions that the generator is to draw, `captions` different ones at most; None where it draws classes, or
    there is no generator. Raises `gear.text.TextError`."""
    if not captioned(config):
        return None
    assert config.generator.text is not None
    return Reader(text.load(config.generator.text, on, config.precision), captions)


def captioned(config: Config) -> bool:
    """Whether captions are read: not in a warm-up."""
    return config.generator.text is not None and not isinstance(config.stage, cfg.Warmup)


def training(
    config: Config,
    classes: int,
    target_dims: dict[str, int],
    on: torch.device,
    *,
    null: Float[Tensor, "1 C"] | None = None,
    loaded: bool = True,
) -> Training:
    """Every module of the stage, initialised by the run's seed and the `init` fields, with its optimiser and average.

    null: as of `generator`. Not `loaded`, nothing is read from any file: what `gear plan` counts on.
    """
    torch.manual_seed(config.seed)
    learner = _learner(config, on, loaded)
    fixed = () if learner.perceptual is None else (learner.perceptual,)
    ar = None if isinstance(config.stage, cfg.Warmup) else _generator(config, classes, target_dims, null, on, loaded)
    groups = (*_moving(learner), *(() if ar is None else (ar,)))
    return Training(groups, _step(config, learner, ar), fixed)


def _step(config: Config, learner: Learner, ar: Trained | None) -> Callable[[Any], Step]:
    if ar is None:
        return lambda batch: steps.warmup_step(learner, batch)
    match config.stage:
        case cfg.Gear() as stage:

            def read_out(A: Assignment, E: Tensor, tau: float) -> Tensor:
                return getattr(A, stage.readout)(E, tau)  # by name, so that a kind of assignment may have its own

            return lambda batch: steps.gear_step(learner, ar, batch, stage, read_out)
        case cfg.Frozen() as stage:
            if config.data.codes is not None:
                return lambda batch: steps.encoded_step(ar, batch, stage)
            return lambda batch: steps.frozen_step(learner, ar, batch, stage)
        case cfg.Naive() as stage:
            return lambda batch: steps.naive_step(learner, ar, batch, stage)
        case cfg.Warmup():
            raise AssertionError("a warm-up has no generator")
        case other:
            assert_never(other)


def _moving(learner: Learner) -> tuple[Trained, ...]:
    return (learner.net,) if learner.critic is None else (learner.net, learner.critic)


def _learner(config: Config, on: torch.device, loaded: bool) -> Learner:
    t, o = config.tokenizer, config.optimizer
    moves = not isinstance(config.stage, cfg.Frozen)
    net = tokenizer(config)
    critic = Critic(t.critic.channels, t.critic.layers) if moves and t.loss.adversarial > 0 else None
    if t.init is not None and loaded:
        initial.fill_tokenizer(net, critic, config)
    perceptual = None
    if moves and t.loss.perceptual > 0:
        trunk = t.loss.perceptual_trunk
        perceptual = Perceptual(trunk, weights.path(f"lpips-{trunk}") if loaded else None).to(on)
        if config.engine.compile:
            perceptual.compile()
    if not moves:
        net.eval().requires_grad_(False)
    return Learner(
        net=_trained("tokenizer", net.to(on), o.tokenizer_lr, config, o.ema if moves else None),
        critic=None if critic is None else _trained("critic", critic.to(on), o.critic_lr, config, None),
        perceptual=perceptual,
        weights=t.loss,
        codebook_size=t.quantizer.codebook_size,
    )


def _generator(
    config: Config,
    classes: int,
    target_dims: dict[str, int],
    null: Float[Tensor, "1 C"] | None,
    on: torch.device,
    loaded: bool,
) -> Trained:
    o, net = config.optimizer, generator(config, classes, target_dims, null)
    if config.generator.init is not None and loaded:
        initial.fill_generator(net, config)
    return _trained("generator", net.to(on), o.generator_lr, config, o.ema)


def _trained(name: str, module: nn.Module, lr: float, config: Config, ema: float | None) -> Trained:
    """One group with its average and optimiser, on all ranks: sharded, replicated, or alone."""
    o, engine = config.optimizer, config.engine
    average = None if ema is None else averaged(module, ema)
    recompute(module, engine.recompute)
    if engine.compile:
        for part in _hot(module):
            part.compile()
    sharded = engine.shard and isinstance(module, Generator) and ranks.size() > 1
    if sharded:
        shard(module, "layers", average)
    adamw = torch.optim.AdamW(module.parameters(), lr, (o.beta1, o.beta2), weight_decay=o.weight_decay, fused=True)
    group = Trained(name, module, adamw, o.clip, average)
    if ranks.size() > 1 and not sharded and any(p.requires_grad for p in module.parameters()):
        group.replicate()
    return group


def _hot(module: nn.Module) -> Sequence[nn.Module]:
    """What is worth compiling: a transformer's blocks, which share one compilation, and a tokenizer's two networks. The
    critic talks to the other ranks inside its layers, and is small."""
    match module:
        case Generator():
            return tuple(module.layers)
        case Tokenizer():
            return module.encoder, module.decoder
        case _:
            return ()


def set_tf32(allowed: bool, on: torch.device) -> None:
    """Lets a GPU use TF32 for float32 products and convolutions, or not; the assignment never does. For the process."""
    if on.type == "cuda":
        torch.set_float32_matmul_precision("high" if allowed else "highest")
        torch.backends.cudnn.allow_tf32 = allowed
