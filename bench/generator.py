"""The generator against a plain Llama stack with the same weights: what its structure costs.

LlamaGen-L, one image of 256 tokens, float32, evaluation mode: the forward pass alone, and with a backward pass of the
next-token loss. The plain side is a function of the same parameters, without modules.

Time: both sides in one process, alternating. Peak memory: as in `bench.readout`, of the pass with gradients, above the
weights and gradients. What bounds it: 2 multiply-adds a weight and token, thrice with the backward pass.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.memory import growth
from bench.table import Row, alternating
from bench.work import floor
from gear.config import SIZES
from gear.generator import Generator
from gear.generator.layers import rotary_angles

CONFIG, K, CLASSES, SIDE, BATCH = SIZES["L"], 16384, 1000, 16, 1
ROUNDS = 2


@dataclass(frozen=True)
class Inputs:
    generator: Generator
    weights: Mapping[str, Tensor]
    turns: Tensor  # complex, one for each row and channel pair; the class row's is 1
    q: Tensor
    c: Tensor


def inputs(device: str) -> Inputs:
    torch.manual_seed(0)
    generator = Generator(CONFIG, codebook_size=K, classes=CLASSES, grid=(SIDE, SIDE)).to(device).eval()
    torch.nn.init.normal_(generator.output.weight, std=0.02)  # zero at the start, and so would every gradient be
    angles = rotary_angles((SIDE, SIDE), CONFIG.width // CONFIG.heads)
    angles = torch.cat([torch.zeros_like(angles[:1]), angles[:-1]]).to(device)
    q, c = torch.randint(K, (BATCH, SIDE * SIDE), device=device), torch.randint(CLASSES, (BATCH,), device=device)
    return Inputs(generator, dict(generator.named_parameters()), torch.polar(torch.ones_like(angles), angles), q, c)


def ours(i: Inputs) -> Tensor:
    logits = i.generator(i.q[:, :-1], i.c).logits
    assert logits is not None
    return logits


def plain(i: Inputs) -> Tensor:
    """As a good engineer writes it first."""
    w, D, heads = i.weights, CONFIG.width, CONFIG.heads

    def norm(x: Tensor, name: str) -> Tensor:
        return F.rms_norm(x, (D,), w[f"{name}.weight"], 1e-5)

    def linear(x: Tensor, name: str) -> Tensor:
        return F.linear(x, w[f"{name}.weight"])

    def turn(x: Tensor) -> Tensor:
        turned = torch.view_as_complex(x.unflatten(-1, (-1, 2))) * i.turns[:, None]
        return torch.view_as_real(turned).flatten(-2).transpose(1, 2)

    c = F.embedding(i.c, w["cls_embedding.embedding_table.weight"])[:, None]
    x = torch.cat([c, F.embedding(i.q[:, :-1], w["tok_embeddings.weight"])], dim=1)
    for n in range(CONFIG.layers):
        b = f"layers.{n}"
        q, k, v = linear(norm(x, f"{b}.attention_norm"), f"{b}.attention.wqkv").unflatten(-1, (3, heads, -1)).unbind(2)
        mixed = F.scaled_dot_product_attention(turn(q), turn(k), v.transpose(1, 2), is_causal=True)
        x = x + linear(mixed.transpose(1, 2).flatten(2), f"{b}.attention.wo")
        h = norm(x, f"{b}.ffn_norm")
        h = F.silu(linear(h, f"{b}.feed_forward.w1")) * linear(h, f"{b}.feed_forward.w3")
        x = x + linear(h, f"{b}.feed_forward.w2")
    return linear(norm(x, "norm"), "output")


def our_loss(i: Inputs) -> Tensor:
    return i.generator(i.q[:, :-1], i.c, targets=i.q).ntp


def plain_loss(i: Inputs) -> Tensor:
    return F.cross_entropy(plain(i).flatten(0, 1), i.q.flatten())


SIDES: dict[str, Callable[[Inputs], Tensor]] = {"ours": ours, "plain": plain}
LOSSES: dict[str, Callable[[Inputs], Tensor]] = {"ours": our_loss, "plain": plain_loss}


def forward(side: str, i: Inputs) -> None:
    with torch.no_grad():
        SIDES[side](i)


def forward_backward(side: str, i: Inputs) -> None:
    LOSSES[side](i).backward()


def seconds(work: Callable[[str, Inputs], None], side: str, i: Inputs) -> float:
    i.generator.zero_grad()
    start = time.perf_counter()
    work(side, i)
    if i.q.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def peak(side: str, device: str) -> float:
    """MiB above weights and gradients, in a process of its own."""
    command = [sys.executable, "-m", "bench.generator", side, device]
    alone = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}  # else glibc keeps freed memory, up to 10 % by chance
    return float(subprocess.run(command, check=True, capture_output=True, text=True, env=alone).stdout)


def measure_peak(side: str, device: str) -> float:
    i = inputs(device)
    for weight in i.generator.parameters():
        weight.grad = torch.zeros_like(weight)
    few = Inputs(i.generator, i.weights, i.turns[:2], i.q[:, :2], i.c)
    forward_backward(side, few)  # the libraries' own first allocations are nobody's
    return growth(partial(forward_backward, side, i), device)


def run(device: str) -> list[Row]:
    i = inputs(device)
    with torch.no_grad():  # a fast wrong answer is worth nothing
        torch.testing.assert_close(ours(i), plain(i), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(our_loss(i), plain_loss(i), rtol=1e-4, atol=1e-4)
    rows = []
    for path, work in (("generator", forward), ("generator, grad", forward_backward)):
        least = floor(partial(work, "ours", i), device)  # each side once, not timed
        work("plain", i)
        t, spread = alternating({side: partial(seconds, work, side, i) for side in SIDES}, ROUNDS)
        rows.append(Row(path, "s", t["ours"], t["plain"], 1.05, spread, "arithmetic", least))
    m = {side: peak(side, device) for side in SIDES}
    return [*rows, Row("generator, grad", "MiB", m["ours"], m["plain"], 1.05, None, "layers N D")]


if __name__ == "__main__":
    print(measure_peak(sys.argv[1], sys.argv[2]))
