"""`gear plan`: what a run costs, counted on the very step it would run, without data, weights or memory for them.

The step runs on tensors that have a shape but no contents (torch's FakeTensorMode), with torch's own counter of
floating-point operations and a count of the bytes that are alive. So there is no formula that could differ from the
code. Matrix products, convolutions and attention are counted; of a step on a GPU they are nearly all.
"""

import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from gear import assignment, build
from gear.codes import features_stored
from gear.config import Config, ConfigError, Frozen, Warmup, grid
from gear.config_check import check
from gear.data.shards import INDEX, Shards
from gear.step import Batch, Encoded
from gear.targets import Target
from gear.update import Trained

KNOWN = {"builtin": 9, "cifar10": 10}  # classes of the data sets known by name
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
class Flops:
    """Floating-point operations, a multiplication and an addition counted as two, by the precision of their operands:
    what autocast makes bfloat16, and what is float32 without it or for all that (A, LPIPS, a frozen tokenizer)."""

    bfloat16: int
    float32: int

    @property
    def total(self) -> int:
        return self.bfloat16 + self.float32

    def __add__(self, other: "Flops") -> "Flops":
        return Flops(self.bfloat16 + other.bfloat16, self.float32 + other.float32)

    def __sub__(self, other: "Flops") -> "Flops":
        return Flops(self.bfloat16 - other.bfloat16, self.float32 - other.float32)

    def __mul__(self, times: int) -> "Flops":
        return Flops(self.bfloat16 * times, self.float32 * times)


@dataclass(frozen=True)
class Plan:
    """
    rows: images a step on each GPU. tokens: hard indices a step, over all GPUs. steps: of the whole run.
    parameters: of each part.
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

    def hours(self, tflops: float, tflops32: float, mfu: float) -> float:
        """Of the whole run, on GPUs that can do `tflops` 10^12 operations a second in bfloat16 and `tflops32` in
        float32, and reach the share `mfu` of either."""
        seconds = (self.step.bfloat16 / tflops + self.step.float32 / tflops32) / 1e12
        return self.steps * seconds / (mfu * self.world) / 3600


def plan(config: Config, world: int = 1) -> Plan:
    """Counts a step of `config` in data-parallel training on `world` GPUs, each of which holds all weights.

    Of `data.codes` only the index is read, for whether the targets' features are stored and no target runs; codes that
    are not there yet are taken to have them. Raises `ConfigError` for an impossible configuration, or if `world` does
    not divide the batch, `DataError` for codes that are not whole, and what `build.require` raises for targets.
    """
    check(config)
    if world < 1 or config.batch % world:
        raise ConfigError(f"batch = {config.batch} must be a multiple of the number of GPUs, which is {world}.")
    rows, side = config.batch // world, (grid(config), grid(config))
    made, codes = build.unloaded_targets(config), _codes(config)
    dims = {target.name: target.channels for target in made}
    classes = KNOWN.get(config.data.path, CLASSES) if codes is None else len(codes.about["classes"])
    if config.data.codes is not None and (codes is None or features_stored(config, codes)):
        made = ()
    with _shapes_only():
        targets = [_contentless(target) for target in made]
        whole = _step(config, dims, rows, classes)
        if isinstance(config.stage, Warmup):
            flops = {"tokenizer": whole.flops}
        elif config.data.codes is not None:
            flops = {"generator": whole.flops}
        else:
            tokenizer = _tokenizer_flops(config, rows)
            flops = {"tokenizer": tokenizer, "generator": whole.flops - tokenizer}
        with _counter() as looking, _autocast(config):
            for target in targets:
                target.features(torch.empty(rows, 3, *_size(config), dtype=torch.uint8), side)
        if targets:
            flops["targets"] = looking.counted()
        parameters = whole.parameters | {target.name: _count(target) for target in targets}
        looking_on = sum(map(_bytes, targets))
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


def _codes(config: Config) -> Shards | None:
    """Those of `data.codes`, if they are there."""
    folder = config.data.codes
    return Shards(Path(folder)) if folder is not None and (Path(folder) / INDEX).exists() else None


def _step(config: Config, dims: dict[str, int], rows: int, classes: int = CLASSES) -> _Counted:
    """dims: channels of each target."""
    training = build.training(config, config.generator.classes or classes, dims, torch.device("cpu"), loaded=False)
    batch = _batch(config, rows, dims)
    for group in training.groups:
        _make_moments(group)
    alive = _Alive(_kept(training, batch))
    with _counter() as counter, alive, _autocast(config):
        training.step(batch)
    parameters = {group.name: _count(group.module) for group in training.groups}
    return _Counted(counter.counted(), _held(training, batch), alive.peak, parameters)


def _tokenizer_flops(config: Config, rows: int) -> Flops:
    """Of the step without its generator: a warm-up's, or, if the tokenizer is frozen, of encoding."""
    if not isinstance(config.stage, Frozen):
        return _step(replace(config, stage=Warmup()), {}, rows).flops
    net, x = build.tokenizer(config), torch.empty(rows, 3, *_size(config))
    with _counter() as counter:
        net.encode(x)
    return counter.counted()


def _autocast(config: Config) -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16, enabled=config.precision == "bfloat16")


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


def _batch(config: Config, rows: int, dims: dict[str, int]) -> Batch | Encoded:
    c, tokens = torch.zeros(rows, dtype=torch.long), grid(config) ** 2
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


class _Alive(TorchDispatchMode):
    """The bytes of all storages that exist while it is on: `at_first`, now, and at the `peak`."""

    def __init__(self, there: Iterable[Tensor]):
        super().__init__()
        self.now = self.peak = 0
        self.known: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()
        for tensor in there:
            self._see(tensor)
        self.at_first = self.now

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._see(leaf)
        return out

    def _see(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage not in self.known and tensor.device.type != "meta":  # `frozen` keeps structures without memory
            self.known.add(storage)
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._gone, storage.nbytes())

    def _gone(self, size: int) -> None:
        self.now -= size


class _Shapes(FakeTensorMode):
    """FakeTensorMode whose tensors can be in a module that is deep-copied, as the average of a model is."""

    def __deepcopy__(self, memo: dict[int, Any]) -> "_Shapes":
        return self


@contextmanager
def _shapes_only() -> Iterator[None]:
    """Tensors without contents. `Module.to`, which such tensors do not survive, does nothing: all is on one device.

    The read-outs go over more rows at once, for 60 MiB more, because every block of rows has to be traced.
    """
    stay: Callable[..., nn.Module] = lambda module, *_, **__: module  # noqa: E731
    larger = patch.object(assignment, "BLOCK", 16 * assignment.BLOCK)
    with _Shapes(), patch.object(nn.Module, "to", stay), larger, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of data_ptr(), which modules ask for when they are copied
        yield


class _Counter(FlopCounterMode):
    """torch's, which also counts apart what has operands of 32 bits or more."""

    float32 = 0

    def _count_flops(self, func_packet: Any, out: Any, args: Any, kwargs: Any) -> Any:
        before = self.get_total_flops()
        out = super()._count_flops(func_packet, out, args, kwargs)
        first = next((t for t in args if isinstance(t, Tensor) and t.is_floating_point()), None)
        if first is not None and first.dtype.itemsize >= 4:
            self.float32 += self.get_total_flops() - before
        return out

    def counted(self) -> Flops:
        return Flops(self.get_total_flops() - self.float32, self.float32)


def _counter() -> _Counter:
    """torch's, and attention on a CPU, which it leaves out."""
    aten = torch.ops.aten

    def forward(q: Any, k: Any, v: Any, *_: Any, **__: Any) -> int:
        return sdpa_flop_count(q, k, v)

    def backward(grad: Any, q: Any, k: Any, v: Any, *_: Any, **__: Any) -> int:
        return sdpa_backward_flop_count(grad, q, k, v)

    formulas = {
        aten._scaled_dot_product_flash_attention_for_cpu: forward,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: backward,
    }
    return _Counter(display=False, custom_mapping=formulas)
