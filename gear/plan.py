"""`gear plan`: what a run costs, counted on the very step it would run, without data, weights or memory for them.

The step runs on tensors that have a shape but no contents (torch's FakeTensorMode), with torch's own counter of
floating-point operations and a count of the bytes that are alive. So there is no formula that could differ from the
code. Matrix products, convolutions and attention are counted; of a step on a GPU they are nearly all. A text encoder
alone is not run: it is 2 operations for each token and each number of its matrices, its attention left out, and counted
for every caption, though few captions are encoded once and kept.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from gear import build, ranks
from gear.codes import features_stored
from gear.config import Config, ConfigError, Frozen, Gear, Warmup, grid
from gear.config_check import check
from gear.counting import Alive, Flops, counter, shapes_only
from gear.data.shards import INDEX, Shards
from gear.prompts import Prompts
from gear.step import Batch, Encoded
from gear.targets import Target
from gear.text.sizes import Size, size
from gear.train.loop import part_of
from gear.update import Trained

KNOWN = {"builtin": 9, "emoji": 9, "cifar10": 10}  # classes of the data sets known by name
CLASSES = 1000  # ImageNet's; of a folder, which is not looked into


@dataclass(frozen=True)
class Held:
    """Bytes that a GPU holds from step to step. moving, fixed: weights with and without gradients, each with its
    buffers. averages: of the weights. optimizer: AdamW's moments. batch: images, labels, features."""

    moving: int
    fixed: int
    averages: int
    optimizer: int
    batch: int

    @property
    def total(self) -> int:
        return self.moving + self.fixed + self.averages + self.optimizer + self.batch


@dataclass(frozen=True)
class Rates:
    """10^12 operations a second that a GPU can do; float32: without TF32."""

    bfloat16: float
    tf32: float
    float32: float


@dataclass(frozen=True)
class Plan:
    """
    rows: images a step on each GPU. tokens: hard indices a step, over all GPUs. steps: of the whole run.
    parameters: of each part; the projectors, which no sample needs, apart from the generator.
    flops: of a step over all GPUs, by part.
    held: on each GPU, all the time.
    peak: the most bytes alive in a step, `held` included, the rest being gradients and what the backward pass needs of
        the forward pass; the allocator and the libraries take some more.
    """

    world: int
    rows: int
    tokens: int
    steps: int
    parameters: dict[str, int]
    flops: dict[str, Flops]
    held: Held
    peak: int

    @property
    def step(self) -> Flops:
        """All parts together."""
        return sum(self.flops.values(), Flops(0, 0))

    def hours(self, rates: Rates, mfu: float) -> float:
        """Of the whole run, on GPUs that reach the share `mfu` of each rate."""
        step = self.step
        by_rate = step.bfloat16 / rates.bfloat16 + step.tf32 / rates.tf32 + (step.float32 - step.tf32) / rates.float32
        seconds = by_rate / 1e12
        return self.steps * seconds / (mfu * self.world) / 3600


def plan(config: Config, world: int = 1) -> Plan:
    """Counts a step of `config` in data-parallel training on `world` GPUs, each of which holds all weights.

    Of `data.codes` only the index is read, for whether the targets' features are stored and no target runs; codes that
    are not there yet are taken to have them. Raises `ConfigError` for an impossible configuration, or if `world` is
    below 1 or does not divide the batch, `DataError` for codes that are not whole, what `build.require` raises for
    targets, and `TextError` for a text encoder whose configuration is not to be had.
    """
    check(config)
    if world < 1:
        raise ConfigError(f"gpus must be at least 1; it is {world}.")
    if config.batch % (world * config.engine.accumulate):
        needed = f"{world} GPUs times engine.accumulate = {config.engine.accumulate}"
        raise ConfigError(f"batch = {config.batch} must be a multiple of {needed}.")
    rows, side = config.batch // world, (grid(config), grid(config))
    made, codes = build.unloaded_targets(config), _codes(config)
    dims = {target.name: target.channels for target in made}
    classes = KNOWN.get(config.data.path, CLASSES) if codes is None else len(codes.about["classes"])
    text = _text(config)
    if config.data.codes is not None and (codes is None or features_stored(config, codes)):
        made, text = (), None
    with shapes_only(), _products(config):
        targets = [_contentless(target) for target in made]
        whole = _step(config, dims, rows, classes)
        if isinstance(config.stage, Warmup):
            flops = {"tokenizer": whole.flops}
        elif config.data.codes is not None:
            flops = {"generator": whole.flops}
        else:
            tokenizer = _tokenizer_flops(config, rows)
            flops = {"tokenizer": tokenizer, "generator": whole.flops - tokenizer}
        with counter() as looking, _autocast(config):
            for target in targets:
                target.features(torch.empty(rows, 3, *_size(config), dtype=torch.uint8), side)
        if targets:
            flops["targets"] = looking.counted()
        if config.engine.shard and "generator" in whole.parameters:
            whole = _sharded(whole, world, config)
        parameters = whole.parameters | {target.name: _count(target) for target in targets}
        looking_on = sum(map(_bytes, targets))
    if text is not None:
        read = 2 * text.size.matrices * rows * text.tokens
        flops["text"] = Flops(read, 0) if config.precision == "bfloat16" else Flops(0, read, read * config.engine.tf32)
        parameters[text.encoder] = text.size.parameters
        looking_on += (2 if config.precision == "bfloat16" else 4) * text.size.parameters
    return Plan(
        world=world,
        rows=rows,
        tokens=config.batch * side[0] * side[1],
        steps=config.steps,
        parameters=parameters,
        flops={part: value * world for part, value in flops.items()},
        held=replace(whole.held, fixed=whole.held.fixed + looking_on),
        peak=whole.peak + looking_on,
    )


@dataclass(frozen=True)
class _Counted:
    flops: Flops
    held: Held
    peak: int
    parameters: dict[str, int]


def _sharded(one: _Counted, world: int, config: Config) -> _Counted:
    """With the generator, its average, moments and gradients spread over the GPUs. What GEAR's soft branch gathers, up
    to the tap, is together on each meanwhile; the block that is gathered for its turn is not counted."""
    whole = 4 * (one.parameters["generator"] + one.parameters.get("projectors", 0))
    saved, held = whole - whole // world, one.held
    gathered = (
        whole * config.generator.aligned_block // config.generator.layers if isinstance(config.stage, Gear) else 0
    )
    kept = replace(
        held, moving=held.moving - saved, averages=held.averages - saved, optimizer=held.optimizer - 2 * saved
    )
    return replace(one, held=kept, peak=one.peak - 5 * saved + gathered)


def _codes(config: Config) -> Shards | None:
    """Those of `data.codes`, if they are there."""
    folder = config.data.codes
    return Shards(Path(folder)) if folder is not None and (Path(folder) / INDEX).exists() else None


def _step(config: Config, dims: dict[str, int], rows: int, classes: int = CLASSES) -> _Counted:
    """dims: channels of each target."""
    text = _text(config)
    classes = config.generator.classes or (classes if text is None else 0)
    null = None if text is None else torch.empty(1, text.size.width)
    training = build.training(config, classes, dims, torch.device("cpu"), null=null, loaded=False)
    batch, parts, flops = _batch(config, rows, dims), config.engine.accumulate, Flops(0, 0)
    for group in training.groups:
        _make_moments(group)
    alive = Alive(_kept(training, batch))
    with alive:
        for i in sorted({0, parts - 1}):  # the others are as the first; it is the last that meets kept gradients
            with counter() as operations, _autocast(config), ranks.in_part(i, parts):
                training.step(part_of(batch, i, parts))
            flops += operations.counted() * (1 if i else max(1, parts - 1))
    parameters = {group.name: _count(group.module) for group in training.groups}
    if dims and "generator" in parameters:
        (net,) = (group.module for group in training.groups if group.name == "generator")
        parameters["projectors"] = _count(net.projectors)
        parameters["generator"] -= parameters["projectors"]
    return _Counted(flops, _held(training, batch), alive.peak, parameters)


def _tokenizer_flops(config: Config, rows: int) -> Flops:
    """Of the step without its generator: a warm-up's, or, if the tokenizer is frozen, of encoding."""
    if not isinstance(config.stage, Frozen):
        return _step(replace(config, stage=Warmup()), {}, rows).flops
    net, x = build.tokenizer(config), torch.empty(rows, 3, *_size(config))
    with counter() as operations:
        net.encode(x)
    return operations.counted()


def _autocast(config: Config) -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16, enabled=config.precision == "bfloat16")


@contextmanager
def _products(config: Config) -> Iterator[None]:
    """As `build.set_tf32` has them on a GPU."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if config.engine.tf32 else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _contentless(target: Target) -> Target:
    """The encoder, made on the meta device, with tensors of the mode that is on. timm's constructors want real ones."""
    assert isinstance(target, nn.Module)
    for module in target.modules():
        for name, p in module._parameters.items():
            if p is not None:
                module._parameters[name] = nn.Parameter(torch.empty(p.shape, dtype=p.dtype), requires_grad=False)
        for name, b in module._buffers.items():
            if b is not None:
                module._buffers[name] = torch.empty(b.shape, dtype=b.dtype)
    return target


@dataclass(frozen=True)
class _Text:
    encoder: str
    tokens: int
    size: Size


def _text(config: Config) -> _Text | None:
    """What reads captions, where they are the condition."""
    text = config.generator.text
    if text is None or not build.captioned(config):
        return None
    return _Text(text.encoder, text.tokens, size(text.encoder))


def _batch(config: Config, rows: int, dims: dict[str, int]) -> Batch | Encoded:
    c, tokens = torch.zeros(rows, dtype=torch.long), grid(config) ** 2
    if (text := _text(config)) is not None:
        states = torch.empty(rows, text.tokens, text.size.width, dtype=torch.float16)
        c = Prompts(states, torch.ones(rows, text.tokens, dtype=torch.bool))
    f = {name: torch.empty(rows, tokens, width) for name, width in dims.items()}
    if config.data.codes is not None:
        return Encoded(torch.zeros(rows, tokens, dtype=torch.long), c, f)
    return Batch(torch.empty(rows, 3, *_size(config)), c, f)


def _size(config: Config) -> tuple[int, int]:
    return config.data.resolution, config.data.resolution


def _make_moments(group: Trained) -> None:
    """AdamW's, which it would make in its first step. The step itself, some ten operations on every parameter, is left
    out: it takes longest to trace, needs no memory where it is fused, and its FLOPs are nothing beside the rest."""
    setattr(group.optimizer, "step", lambda *_: None)  # noqa: B010  (a method, which types do not let be replaced)
    for p in group.module.parameters():
        if p.requires_grad:
            group.optimizer.state[p] = {"exp_avg": torch.empty_like(p), "exp_avg_sq": torch.empty_like(p)}


def _held(training: build.Training, batch: Any) -> Held:
    """As `Held` has it; a group without a gradient is a frozen tokenizer."""
    moves = {group: any(p.requires_grad for p in group.module.parameters()) for group in training.groups}
    modules = {group.module: moving for group, moving in moves.items()} | dict.fromkeys(training.fixed, False)
    return Held(
        moving=sum(_bytes(module) for module, moving in modules.items() if moving),
        fixed=sum(_bytes(module) for module, moving in modules.items() if not moving),
        averages=sum(_bytes(group.ema) for group in training.groups if group.ema is not None),
        optimizer=sum(_bytes(group.optimizer) for group in training.groups),
        batch=_bytes(batch),
    )


def _kept(training: build.Training, batch: Any) -> list[Tensor]:
    """All that is there between two steps."""
    holders = (*training.groups, *(group.optimizer for group in training.groups), *training.fixed, batch)
    return [tensor for holder in holders for tensor in _tensors(holder)]


def _tensors(of: Any) -> list[Tensor]:
    """Everything that a module, an optimiser's state, or a batch holds on to."""
    if isinstance(of, nn.Module):
        return [*of.parameters(), *of.buffers()]
    tree = [*of.state.values()] if isinstance(of, torch.optim.Optimizer) else [vars(of)]
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _bytes(of: Any) -> int:
    return sum(t.nbytes for t in _tensors(of))


def _count(module: Any) -> int:
    return sum(p.numel() for p in module.parameters())
