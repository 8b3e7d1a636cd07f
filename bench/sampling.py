"""Drawing tokens with `gear.generator.sampling.generate` against plain loops with the same weights and noise.

LlamaGen-B, a codebook of 16384, a grid of 16 x 16, of which the first `TOKENS` are drawn; seconds of all of them.

Batch 1: the plain loop is float32 without a cache, the whole sequence for each token, as one writes it first. Its cost
a token grows with the token, so that 32 of 256 tokens flatter it: the ratio of all is far lower. Batch 16: the plain
loop has a cache that grows by `torch.cat`, draws by softmax and `torch.multinomial`, and guides by two passes; its
first tokens are its cheapest too. Then bfloat16 and int8 against our own float32. Both sides are given the same noise
first, and must draw the same.

What bounds it: at batch 1 the bytes of the weights and of the cache, which each token reads once; at 16 also 2
operations a weight and row.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.ceilings import ceilings
from bench.table import Row, alternating
from gear.config import SIZES
from gear.generator import Generator, generate
from gear.generator.layers import rotate
from gear.generator.lighter import Precision, lighter
from gear.generator.sampling import draw, uniforms

CONFIG, K, CLASSES, SIDE, BATCH, SCALE = SIZES["B"], 16384, 1000, 16, 16, 1.5
TOKENS, FEW, ROUNDS = 32, 6, 2  # drawn; compared first; timed
SAME = 0.9  # of the tokens: a float32 loop that rounds otherwise leaves the other's path at a token near an edge
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
    x = generator.cls_embedding(torch.arange(b))[:, 0]
    null = generator.cls_embedding(torch.full((b,), generator.null_label))[:, 0]
    conditional, unconditional, found = Cached(generator), Cached(generator), []
    for n in range(tokens):
        logits = conditional(x)
        if scale != 1:
            u = unconditional(null if n == 0 else x)
            logits = u + scale * (logits - u)
        found.append(choose(logits, n))
        x = generator.tok_embeddings(found[-1])
    return torch.stack(found, dim=1)


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def floor(generator: Generator, rows: int, steps: int, weight: float, number: int) -> float:
    """Seconds of `steps` tokens of `rows` rows. weight, number: bytes of a matrix's number and of another."""
    read = sum(p.numel() for name, p in generator.named_parameters() if p.ndim == 2 and "embed" not in name)
    cache = 2 * CONFIG.layers * CONFIG.width * rows * (steps + 1) / 2 * number
    operations = 2.0 * read * rows * steps
    kind = {"float32": operations} if number == 4 else {"bfloat16": operations}
    return ceilings("cpu").floor(**kind, moved=steps * (read * weight + cache))


def first_tokens(generator: Generator) -> Generator:
    """The same, of an image of `TOKENS` tokens: the first rows of the grid."""
    settings = generator.settings() | {"grid": [TOKENS // SIDE, SIDE]}
    few = Generator.from_settings(settings)
    few.load_state_dict(generator.state_dict())
    return few.eval()


def same(a: Tensor, b: Tensor) -> None:
    share = (a == b).double().mean().item()
    assert share >= SAME, f"the two loops do not draw the same: {share:.0%} of the tokens are equal"


def run() -> list[Row]:
    g, rows = first_tokens(model()), []
    same(ours(g, 1)[:, :FEW], uncached(g, by_noise(1), FEW))
    rows.append(
        compared(
            "sample 1",
            partial(ours, g, 1),
            partial(uncached, g, multinomial, TOKENS),
            0.34,
            floor(g, 1, TOKENS, 4, 4),
            "bytes of weights",
        )
    )
    for scale, path in ((1.0, "sample 16"), (SCALE, "sample 16, guided")):
        same(ours(g, BATCH, scale)[:, :FEW], cached(g, BATCH, scale, by_noise(BATCH), FEW))
        plain = partial(cached, g, BATCH, scale, multinomial, TOKENS)
        least = floor(g, BATCH * (1 + (scale != 1)), TOKENS, 4, 4)
        rows.append(compared(path, partial(ours, g, BATCH, scale), plain, 0.5, least, "products of few rows"))
    kinds: tuple[tuple[Precision, float, float], ...] = (("bfloat16", 2, 0.7), ("int8", 1, 0.6))
    for precision, size, target in kinds:
        light = lighter(g, precision)
        rows.append(
            compared(
                f"sample 1, {precision}",
                partial(ours, light, 1),
                partial(ours, g, 1),
                target,
                floor(g, 1, TOKENS, size, 2),
                "bytes of weights",
            )
        )
    return rows


def compared(
    path: str, ours: Callable[[], object], plain: Callable[[], object], target: float, least: float, bound: str
) -> Row:
    t, spread = alternating({"ours": partial(seconds, ours), "plain": partial(seconds, plain)}, ROUNDS)
    return Row(path, "s", t["ours"], t["plain"], target, spread, bound, least)


if __name__ == "__main__":
    from bench.table import show

    show(run(), f"{TOKENS} tokens")
