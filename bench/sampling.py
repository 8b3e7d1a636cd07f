"""Drawing tokens with `gear.generator.sampling.generate` against plain loops with the same weights and noise.

    python -m bench.sampling [--tokens 256 --rounds 1]

LlamaGen-B, a codebook of 16384, a grid of 16 x 16, of which the first `TOKENS` are drawn; seconds of all of them.

Batch 1: the plain loop is float32 without a cache, the whole sequence for each token, as one writes it first. Its cost
a token grows with the token, so that 32 of 256 tokens flatter it: the ratio of all is far lower. Batch 16: the plain
loop has a cache that grows by `torch.cat`, draws by softmax and `torch.multinomial`, and guides by a pass of twice the
rows; its first tokens are its cheapest too. Both sides are given the same noise first, and must draw the same.

Then bfloat16 and int8 against our own float32, which must first have the same logits of the same tokens, each with its
cache, up to what the roundings of that precision make of them (`ROUNDING`).

What bounds it: at batch 1 the bytes of the weights and of the cache, which each token reads once; at 16 also 2
operations a weight and row.
"""

import argparse
import math
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.table import Row, alternating, machine, show
from bench.work import token
from gear.config import SIZES
from gear.generator import Generator, generate
from gear.generator.beginning import begin_classes
from gear.generator.layers import rotate
from gear.generator.lighter import Precision, lighter, packed
from gear.generator.sampling import draw, uniforms

CONFIG, K, CLASSES, SIDE, BATCH, SCALE = SIZES["B"], 16384, 1000, 16, 16, 1.5
TOKENS, FEW, ROUNDS = 32, 6, 2  # drawn; compared first; timed
SAME = 0.9  # of the tokens: a float32 loop that rounds otherwise leaves the other's path at a token near an edge
# What a product rounds off, of its size: input and output in bfloat16, each to 2^-9; at int8 the weights, evenly by up
# to half a step, of which 127 are the largest weight of an output, some 3.5 standard deviations: 3.5 / 127 / sqrt(12).
ROUNDING: dict[Precision, float] = {"bfloat16": math.sqrt(2) * 2**-9, "int8": 0.008}
Choose = Callable[[Tensor, int], Tensor]  # logits (b, K) and the number of the token: tokens (b,)


def model() -> Generator:
    torch.manual_seed(0)
    generator = Generator(CONFIG, codebook_size=K, classes=CLASSES, grid=(SIDE, SIDE)).eval()
    torch.nn.init.normal_(generator.output.weight, std=0.02)
    return generator


def ours(generator: Generator, b: int, scale: float = 1.0) -> Tensor:
    return generate(generator, torch.arange(b), seed=0, cfg_scale=scale, batch=b)


def by_noise(b: int) -> Choose:
    """As ours, to be compared with it."""
    noise = torch.stack([uniforms(0, i, SIDE * SIDE) for i in range(b)])
    return lambda logits, n: draw(logits.double().softmax(-1), noise[:, n])


def multinomial(logits: Tensor, n: int) -> Tensor:
    return torch.multinomial(logits.softmax(-1), 1)[:, 0]


@torch.no_grad()
def uncached(generator: Generator, choose: Choose, tokens: int) -> Tensor:
    q, c = torch.empty(1, 0, dtype=torch.int64), torch.tensor([0])
    for n in range(tokens):
        logits = generator(q, c).logits
        assert logits is not None
        q = torch.cat([q, choose(logits[:, -1], n)[:, None]], dim=1)
    return q


class Cached:
    """Keys and values of each layer, which grow."""

    def __init__(self, generator: Generator):
        self.g, self.rows = generator, 0
        self.past: list[tuple[Tensor, Tensor] | None] = [None] * len(generator.layers)

    def __call__(self, x: Tensor) -> Tensor:
        """Logits after one further row, (b, D)."""
        g, x = self.g, x[:, None]
        turn = g.rotary(self.rows, 1)
        self.rows += 1
        for i, layer in enumerate(g.layers):
            block: Any = layer
            a, f = block.attention, block.feed_forward
            q, k, v = a.wqkv(block.attention_norm(x)).unflatten(-1, (3, g.heads, -1)).permute(2, 0, 3, 1, 4)
            q, k = rotate(q, turn), rotate(k, turn)
            if (past := self.past[i]) is not None:
                k, v = torch.cat([past[0], k], dim=2), torch.cat([past[1], v], dim=2)
            self.past[i] = (k, v)
            x = x + a.wo(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
            h = block.ffn_norm(x)
            x = x + f.w2(F.silu(f.w1(h)) * f.w3(h))
        return g.output(g.norm(x[:, 0]))


@torch.no_grad()
def cached(generator: Generator, b: int, scale: float, choose: Choose, tokens: int) -> Tensor:
    """Under guidance in one pass of 2 b rows, of which the last b are unconditional."""
    guided, c = scale != 1, torch.arange(b)
    if guided:
        c = torch.cat([c, torch.full((b,), generator.null_label)])
    x, further, found = generator.cls_embedding(c)[:, 0], Cached(generator), []
    for n in range(tokens):
        logits = further(x)
        if guided:
            cond, uncond = logits.chunk(2)
            logits = uncond + scale * (cond - uncond)
        found.append(choose(logits, n))
        x = generator.tok_embeddings(found[-1])
        if guided:
            x = torch.cat([x, x])
    return torch.stack(found, dim=1)


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def floor(generator: Generator, rows: int, steps: int, weight: int, number: int) -> float:
    """Seconds of `steps` tokens of `rows` rows. weight, number: bytes of a matrix's number and of another."""
    return steps * token(generator, rows, (steps + 1) / 2, weight, number).seconds("cpu")


def first_tokens(generator: Generator, tokens: int) -> Generator:
    """The same, of an image of so many tokens: the first rows of the grid."""
    settings = generator.settings() | {"grid": [tokens // SIDE, SIDE]}
    few = Generator.from_settings(settings)
    few.load_state_dict(generator.state_dict())
    return few.eval()


def same(a: Tensor, b: Tensor) -> None:
    share = (a == b).double().mean().item()
    assert share >= SAME, f"the two loops do not draw the same: {share:.0%} of the tokens are equal"


@torch.no_grad()
def logits_of(generator: Generator, q: Tensor) -> Tensor:
    """Of each token in q (1, n), which are given and not drawn: one at a time with the cache, as `generate` has it."""
    net = packed(generator)
    begun = begin_classes(net, torch.zeros(1, dtype=torch.int64), guided=False)
    further = (net.decode(net.tok_embeddings(q[:, n])[:, None], begun.past) for n in range(q.shape[1] - 1))
    return torch.stack([begun.logits, *further], dim=1)


def near(light: Tensor, full: Tensor, precision: Precision) -> None:
    """Raises AssertionError if the logits are further from those of float32 than rounding takes them.

    Of independent roundings the squares add up, over the products that follow each other: four in a block, and the
    head. Twice that, since norms, attention and SiLU round as well.
    """
    limit = 2 * ROUNDING[precision] * math.sqrt(4 * CONFIG.layers + 1)
    off = ((light.float() - full).norm() / full.norm()).item()
    assert off <= limit, f"the logits in {precision} are {off:.2%} off those in float32; rounding makes {limit:.2%}"


def run(tokens: int = 0, rounds: int = 0) -> list[Row]:
    """By default `TOKENS` and `ROUNDS`."""
    tokens, rounds = tokens or TOKENS, rounds or ROUNDS
    g, rows = first_tokens(model(), tokens), []
    compared = partial(_compared, rounds)
    drawn = ours(g, 1)[:, :FEW]
    same(drawn, uncached(g, by_noise(1), FEW))
    rows.append(
        compared(
            "sample 1",
            partial(ours, g, 1),
            partial(uncached, g, multinomial, tokens),
            1 / 3,
            floor(g, 1, tokens, 4, 4),
            "bytes of weights",
        )
    )
    for scale, path in ((1.0, "sample 16"), (SCALE, "sample 16, guided")):
        same(ours(g, BATCH, scale)[:, :FEW], cached(g, BATCH, scale, by_noise(BATCH), FEW))
        plain = partial(cached, g, BATCH, scale, multinomial, tokens)
        least = floor(g, BATCH * (1 + (scale != 1)), tokens, 4, 4)
        rows.append(compared(path, partial(ours, g, BATCH, scale), plain, 0.5, least, "products of few rows"))
    half = lighter(g, "bfloat16")
    near(logits_of(half, drawn), logits_of(g, drawn), "bfloat16")
    plain, least = partial(cached, g, BATCH, 1.0, multinomial, tokens), floor(g, BATCH, tokens, 2, 2)
    rows.append(
        compared("sample 16, bfloat16", partial(ours, half, BATCH), plain, 0.5, least, "few rows; plain is float32")
    )
    kinds: tuple[tuple[Precision, int, float], ...] = (("bfloat16", 2, 0.7), ("int8", 1, 0.6))
    for precision, size, target in kinds:
        light = lighter(g, precision)
        near(logits_of(light, drawn), logits_of(g, drawn), precision)
        rows.append(
            compared(
                f"sample 1, {precision} to our float32",
                partial(ours, light, 1),
                partial(ours, g, 1),
                target,
                floor(g, 1, tokens, size, 2),
                "bytes of weights",
            )
        )
    return rows


def _compared(
    rounds: int,
    path: str,
    ours: Callable[[], object],
    plain: Callable[[], object],
    target: float,
    least: float,
    bound: str,
) -> Row:
    t, spread = alternating({"ours": partial(seconds, ours), "plain": partial(seconds, plain)}, rounds)
    return Row(path, "s", t["ours"], t["plain"], target, spread, bound, least)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.sampling", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tokens", type=int, default=TOKENS, help=f"drawn of each image, a multiple of {SIDE}")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    a = parser.parse_args()
    if a.tokens % SIDE or not 0 < a.tokens <= SIDE**2 or a.rounds < 1:
        parser.error(f"--tokens must be a multiple of {SIDE} up to {SIDE**2}, and --rounds at least 1.")
    show(run(a.tokens, a.rounds), f"{machine('cpu')}, the first {a.tokens} tokens of LlamaGen-B")


if __name__ == "__main__":
    main()
