"""What `bench.growth` measures: pieces of training as functions of one size, and the laws that they should follow.

A law counts what grows, up to a factor: products for the time, numbers held for the memory. Its exponent over the sizes
that are measured is what the measured exponent is compared with.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F

from bench import joint, readout
from bench.memory import growth
from gear import build
from gear import config as cfg
from gear.config import FAMILIES, SIZES
from gear.generator import Generator
from gear.step import Batch
from gear.tiles import ENTRIES
from gear.tokenizer.tokenizer import Tokenizer

Work = Callable[[], object]

CPU = torch.device("cpu")
CLASSES = 1000


@dataclass(frozen=True)
class Law:
    """text: the formula. of: the value at a size, up to a factor, of what grows. fixed: what does not, in the cost's
    unit, where it is counted."""

    text: str
    of: Callable[[float], float] = lambda size: size
    fixed: float = 0.0

    def along(self, sizes: Sequence[float], first: tuple[float, float]) -> list[tuple[float, float]]:
        """(size, cost) by the law, if `first` is one of its points: fixed + (cost - fixed) of(size) / of(first)."""
        at, cost = first
        return [(size, self.fixed + (cost - self.fixed) * self.of(size) / self.of(at)) for size in sizes]


@dataclass(frozen=True)
class Cost:
    """
    path: what is measured. size: what grows, its values increasing. rest: what does not grow.
    make: the work at the index of a size, ready to run. time, memory: the laws of its seconds and of the memory that
        the work adds to its inputs, weights and their gradients; None: not measured.
    """

    path: str
    size: str
    rest: str
    sizes: Sequence[float]
    make: Callable[[int], Work]
    time: Law | None = None
    memory: Law | None = None


def read_out(side: str, d: int, D: int, N: int, K: int) -> Work:
    """As `bench.readout`, forward and backward, at other sizes. side: "ours" or "dense"."""
    torch.manual_seed(0)
    z, c = (F.normalize(torch.randn(n, d), dim=-1).requires_grad_() for n in (N, K))
    (z[:64] @ c[:64].T).sum().backward()  # the libraries' own first allocations are nobody's
    return partial(readout.seconds, side, readout.Inputs(z, c, torch.randn(K, D) * 0.02, torch.randn(N, D) / N))


def tokenizer(settings: cfg.Tokenizer, size: int) -> Work:
    """Forward and backward of an image of `size` px, with the L1 loss and the quantizer's own terms."""
    torch.manual_seed(0)
    net, x = Tokenizer(settings.quantizer, settings.backbone), torch.rand(1, 3, size, size) * 2 - 1
    _with_gradients(net)

    def work() -> None:
        net.zero_grad(set_to_none=False)
        t = net(x)
        ((t.x_hat - x).abs().mean() + t.codebook + t.commitment).backward()

    return work


def generator(architecture: cfg.Generator, K: int, batch: int, side: int, held: bool = True) -> Work:
    """Forward and backward of the next-token loss on side x side tokens, without dropout. held: the weights and their
    gradients are there before, and no part of the work's memory; else the work makes them."""
    torch.manual_seed(0)
    kept: list[Generator] = []

    def work() -> None:
        net = kept[0] if kept else _generator(architecture, K, side)
        kept[:] = [net]
        net.zero_grad(set_to_none=False)
        q, c = torch.randint(K, (batch, side * side)), torch.randint(CLASSES, (batch,))
        states = net(q[:, :-1], c)
        assert states.logits is not None
        F.cross_entropy(states.logits.flatten(0, 1), q.flatten()).backward()

    if held:
        kept[:] = [_generator(architecture, K, side)]
        _with_gradients(kept[0])
    return work


def _generator(architecture: cfg.Generator, K: int, side: int) -> Generator:
    return Generator(replace(architecture, dropout=0.0), codebook_size=K, classes=CLASSES, grid=(side, side))


def _with_gradients(net: torch.nn.Module) -> None:
    for p in net.parameters():
        p.grad = torch.zeros_like(p)


def multiplied(architecture: cfg.Generator, K: int) -> float:
    """Millions of weights that each token is multiplied by: all but the tables of tokens and classes."""
    with torch.device("meta"):
        named = _generator(architecture, K, 4).named_parameters()
        return sum(p.numel() for name, p in named if "embedding" not in name) / 1e6


@dataclass(frozen=True)
class JointStep:
    """Works as often as it is called; every process of a group must call it."""

    training: build.Training
    batch: Batch

    def __call__(self) -> None:
        self.training.step(self.batch)


def joint_step(recipe: str, resolution: int, batch: int) -> JointStep:
    """GEAR's whole step in float32, with all losses of eq. 2 and the updates; target features are ready made. batch: of
    this process."""
    config, training = _training(recipe, resolution, batch)
    f = {joint.TARGET: torch.randn(batch, cfg.grid(config) ** 2, joint.WIDTH)}
    x, c = torch.rand(batch, 3, resolution, resolution) * 2 - 1, torch.randint(CLASSES, (batch,))
    one = Batch(x[:2], c[:2], {name: values[:2] for name, values in f.items()})
    training.step(one)  # the optimisers have their moments
    return JointStep(training, Batch(x, c, f))


def _training(recipe: str, resolution: int, batch: int) -> tuple[cfg.Config, build.Training]:
    config = joint.config_of(joint.Case(recipe, resolution, batch, "float32", "cpu"))
    return config, build.training(config, CLASSES, {joint.TARGET: joint.WIDTH}, CPU, loaded=False)


def state(recipe: str, resolution: int) -> float:
    """MiB of weights, gradients, two moments and averages, as the step of `joint_step` holds them, counted."""
    _, training = _training(recipe, resolution, 2)
    modules = [*training.fixed, *(group.module for group in training.groups)]
    modules += [group.ema.module for group in training.groups if group.ema is not None]
    kept = [t for module in modules for t in (*module.parameters(), *module.buffers())]
    moved = [p for group in training.groups for p in group.module.parameters() if p.requires_grad]
    return (sum(t.nbytes for t in kept) + 3 * sum(p.nbytes for p in moved)) / 2**20


def of_world(fixed: float) -> tuple[Law, Law]:
    """Of time and memory against the processes that share a batch; fixed: the MiB of `state`, which each holds."""
    return Law("1 / W", lambda W: 1 / W), Law("state + activations batch / W", lambda W: 1 / W, fixed)


def read_outs(N: Sequence[int], K: Sequence[int], held: Sequence[int], d: int, D: int) -> list[Cost]:
    """Of ours and of the dense way: time against N at the first K, and against K at the first N; memory likewise, at
    the N of `held`, where it is seen beside the two tiles of A that ours holds."""
    n, k, h, rest = N[0], K[0], held[0], f"d {d}, D {D}"
    tiles = 2 * 4 * ENTRIES / 2**20
    by_N = Law("tiles + N (d + D) + K d", lambda N: N * (d + D) + k * d, tiles)
    by_K = Law("tiles + N (d + D) + K d", lambda K: h * (d + D) + K * d, tiles)
    product, matrix = Law("N K (d + D)"), Law("N K")
    found = list[Cost]()
    for name, side, of_N, of_K in (("read-outs", "ours", by_N, by_K), ("read-outs, dense", "dense", matrix, matrix)):
        work = partial(read_out, side, d, D)
        found += [
            Cost(name, "N", f"K {k}, {rest}", N, lambda i, work=work: work(N[i], k), product),
            Cost(name, "K", f"N {n}, {rest}", K, lambda i, work=work: work(n, K[i]), product),
            Cost(name, "N", f"K {k}, {rest}", held, lambda i, work=work: work(held[i], k), None, of_N),
            Cost(name, "K", f"N {h}, {rest}", K, lambda i, work=work: work(h, K[i]), None, of_K),
        ]
    return found


def of_tokenizer(name: str, settings: cfg.Tokenizer, sides: Sequence[int]) -> Cost:
    pixels = [side**2 for side in sides]
    make = lambda i: tokenizer(settings, sides[i])  # noqa: E731
    return Cost(
        f"tokenizer {name}", "H W", f"{sides[0]} to {sides[-1]} px, batch 1", pixels, make, Law("H W"), Law("H W")
    )


def of_generator(name: str, architecture: cfg.Generator, K: int, batch: int, sides: Sequence[int]) -> Cost:
    """Against the tokens of an image: products with the weights and, growing faster, attention's."""
    tokens, layers, width = [side**2 for side in sides], architecture.layers, architecture.width
    weights = multiplied(architecture, K) * 1e6
    time = Law("N (P + layers N D)", lambda N: N * (weights + layers * N * width))
    make = lambda i: generator(architecture, K, batch, sides[i])  # noqa: E731
    return Cost(f"generator {name}", "N", f"K {K}, batch {batch}", tokens, make, time, Law("N"))


def of_sizes(architectures: Sequence[cfg.Generator], K: int, batch: int, side: int) -> Cost:
    """Against the weights; memory is of these and of their gradients, with the activations."""
    weights = [multiplied(architecture, K) for architecture in architectures]
    make = lambda i: generator(architectures[i], K, batch, side, held=False)  # noqa: E731
    rest = f"{batch * side**2} tokens, K {K}"
    table = {w: K * a.width / 1e6 for w, a in zip(weights, architectures, strict=True)}
    held = Law("P + K D", lambda P: P + table[P])
    return Cost("generator", "P, millions", rest, weights, make, Law("P"), held)


def of_forward(architectures: Sequence[cfg.Generator], K: int, batch: int, side: int) -> Cost:
    """Of the pass without gradients, against the weights."""
    weights = [multiplied(architecture, K) for architecture in architectures]

    def make(index: int) -> Work:
        torch.manual_seed(0)
        net = _generator(architectures[index], K, side)
        q, c = torch.randint(K, (batch, side * side)), torch.randint(CLASSES, (batch,))
        return torch.no_grad()(lambda: net(q[:, :-1], c))

    rest = f"{batch * side**2} tokens, K {K}"
    return Cost("generator, forward", "P, millions", rest, weights, make, Law("P"))


def of_batch(recipe: str, resolution: int, batches: Sequence[int]) -> Cost:
    make = lambda i: joint_step(recipe, resolution, batches[i])  # noqa: E731
    return Cost(f"GEAR step, {recipe}", "batch", f"{resolution} px", batches, make, Law("batch"), Law("batch"))


def usual() -> list[Cost]:
    N, K, held = (512, 1024, 2048, 4096), (2048, 4096, 8192, 16384), (4096, 8192, 16384, 32768)
    sizes = [SIZES[name] for name in ("S", "B", "L", "XL")]
    return [
        *read_outs(N, K, held, d=8, D=256),
        of_tokenizer("VQ-16", FAMILIES["VQ-16"], (64, 128, 192, 256)),
        of_generator("S", SIZES["S"], 16384, 2, (4, 8, 12, 16)),
        of_sizes(sizes[:-1], 16384, 2, 8),
        of_forward(sizes, 16384, 2, 8),
        of_batch("demo", 64, (8, 16, 32, 64)),
    ]


def quick() -> list[Cost]:
    """A few seconds, for a test."""
    small = cfg.Tokenizer(cfg.VQ(64, 8), cfg.VQGAN(channels=32, multipliers=(1, 2), latent=32))
    sizes = [cfg.Generator(layers=2, heads=2, width=width) for width in (32, 64)]
    time, _, memory, *_ = read_outs((512, 1024), (512, 1024), (16384, 32768), d=8, D=64)
    only_time = [of_tokenizer("small", small, (16, 32)), of_sizes(sizes, 64, 2, 4), of_forward(sizes, 64, 2, 4)]
    return [time, memory, *(replace(cost, memory=None) for cost in only_time)]


TABLES: dict[str, Callable[[], list[Cost]]] = {"usual": usual, "quick": quick}


def memory(name: str, at: int, index: int) -> float:
    """MiB that a cost of the table `name` adds to this process, which should be a fresh one."""
    return growth(TABLES[name]()[at].make(index), "cpu")
