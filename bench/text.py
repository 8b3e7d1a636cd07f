"""Text-to-image: what the condition's rows cost in training and in sampling, against the plain way.

    python -m bench.text                                      # the rows of `make bench`
    python -m bench.text --size 1B --tokens 300 --images 64   # seconds and images/s of sampling, a JSON line

A generator of LlamaGen-S's size with T = 77 rows of text, half of which are padding, and 64 image tokens; float32.

- Training: a forward and backward pass with padding turned behind the image tokens, in plain causal attention, against
  the same with a dense boolean mask of each image, B x 1 x S x S, as the release has it.
- One prompt, many images: reading the prompt once, against once for each image.
- Sampling: cached decoding against the forward pass of everything for each token; three blocks, 16 tokens.

What bounds them: the generator's matrix products; in cached decoding on a GPU the launches.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch

from bench.asked import add_device, count
from bench.memory import growth
from bench.table import Row, alternating
from bench.work import floor
from gear.config import SIZES, Text
from gear.generator import Generator, generate
from gear.generator.beginning import Reading
from gear.generator.layers import Sight
from gear.prompts import Prompts

SIZE, TOKENS, WIDTH, SIDE, K = "S", 77, 384, 8, 1024
FEW, SHORT = 3, 4  # blocks, and tokens along a side, where every token is computed from the whole sequence
BATCH, IMAGES, ROUNDS = 4, 16, 2


def model(size: str, tokens: int, side: int, device: str, layers: int | None = None) -> Generator:
    torch.manual_seed(0)
    of_size = SIZES[size]
    architecture = replace(of_size, layers=layers or of_size.layers, text=Text("minilm", tokens=tokens))
    net = Generator(architecture, codebook_size=K, classes=0, grid=(side, side), text_width=WIDTH).to(device).eval()
    torch.nn.init.normal_(net.output.weight, std=0.02)  # zero at the start, and so would every gradient be
    return net


def captions(n: int, tokens: int, device: str) -> Prompts:
    """Half of each is padding."""
    valid = torch.arange(tokens, device=device).expand(n, -1) >= tokens // 2
    return Prompts(torch.randn(n, tokens, WIDTH, device=device) * valid[..., None], valid)


def dense(c: torch.Tensor | Prompts, rows: int) -> Sight:
    """The release's mask: causal, without padding, the diagonal always on."""
    assert isinstance(c, Prompts)
    place, text = torch.arange(rows, device=c.valid.device), c.valid.shape[1]
    holds = torch.nn.functional.pad(c.valid, (0, rows - text), value=True)
    causal = place[:, None] >= place
    return Sight(text, mask=(causal & holds[:, None, None, :]) | (place[:, None] == place))


def training(net: Generator, c: Prompts, q: torch.Tensor, masked: bool) -> None:
    net.zero_grad()
    if masked:
        net.sight = dense
    try:
        net(q[:, :-1], c, targets=q).ntp.backward()
    finally:
        net.__dict__.pop("sight", None)


def cached(net: Generator, c: Prompts) -> None:
    generate(net, torch.zeros(IMAGES, dtype=torch.long), prompts=c[:1], seed=0)


@torch.no_grad()
def uncached(net: Generator, c: Prompts) -> None:
    """As many images and tokens, each from the whole sequence."""
    q, c = torch.zeros(IMAGES, 0, dtype=torch.long), c[torch.zeros(IMAGES, dtype=torch.long)]
    for _ in range(SHORT * SHORT):
        logits = net(q, c).logits
        assert logits is not None
        q = torch.cat([q, torch.multinomial(logits[:, -1].softmax(-1), 1)], 1)


def reading(net: Generator, c: Prompts, prompts: int) -> None:
    nothing = net.cls_embedding.unconditional(1, TOKENS)
    labels = torch.arange(IMAGES) % prompts
    Reading(net, c, nothing).begin(labels, False)


def seconds(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def run() -> list[Row]:
    net, c, q = model(SIZE, TOKENS, SIDE, "cpu"), captions(BATCH, TOKENS, "cpu"), torch.randint(K, (BATCH, SIDE * SIDE))
    with torch.no_grad():  # a fast wrong answer is worth nothing
        ours = net(q[:, :-1], c).logits
        net.sight = dense
        torch.testing.assert_close(ours, net(q[:, :-1], c).logits, rtol=1e-4, atol=1e-4)
        del net.sight
    many, small = captions(IMAGES, TOKENS, "cpu"), model(SIZE, TOKENS, SHORT, "cpu", FEW)
    cases = (
        ("text, grad", 1.05, ROUNDS, partial(training, net, c, q, False), partial(training, net, c, q, True)),
        ("one prompt, read once", 0.2, ROUNDS, partial(reading, net, many, 1), partial(reading, net, many, IMAGES)),
        ("text, sampling", 0.2, ROUNDS, partial(cached, small, c), partial(uncached, small, c)),
    )
    rows = []
    for path, target, times, mine, theirs in cases:
        least = floor(mine)  # not timed
        t, spread = alternating({"ours": partial(seconds, mine), "plain": partial(seconds, theirs)}, times)
        rows.append(Row(path, "s", t["ours"], t["plain"], target, spread, "arithmetic", least))
    m = {masked: peak(masked) for masked in (True, False)}
    return [*rows, Row("text, grad", "MiB", m[False], m[True], 1.1, None, "layers B S D")]


def peak(masked: bool) -> float:
    """MiB above weights and gradients, in a process of its own."""
    command = [sys.executable, "-m", "bench.text", "--peak", "mask" if masked else "order"]
    alone = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}  # else glibc keeps freed memory, up to 10 % by chance
    return float(subprocess.run(command, check=True, capture_output=True, text=True, env=alone).stdout)


def measure_peak(masked: bool) -> float:
    net, c, q = model(SIZE, TOKENS, SIDE, "cpu"), captions(BATCH, TOKENS, "cpu"), torch.randint(K, (BATCH, SIDE * SIDE))
    for weight in net.parameters():
        weight.grad = torch.zeros_like(weight)
    few = Prompts(c.states[:1, -1:], c.valid[:1, -1:])
    training(net, few, q[:1, :2], masked)  # the libraries' own first allocations are nobody's
    return growth(partial(training, net, c, q, masked), "cpu")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.text", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", default=SIZE, choices=sorted(SIZES))
    parser.add_argument("--tokens", type=count, default=TOKENS)
    parser.add_argument("--side", type=count, default=16)
    parser.add_argument("--images", type=count, default=1)
    parser.add_argument("--cfg-scale", type=float, default=1.75)
    add_device(parser)
    parser.add_argument("--peak", choices=("mask", "order"), help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.peak:
        print(measure_peak(a.peak == "mask"))
        return
    net, c = model(a.size, a.tokens, a.side, a.device), captions(1, a.tokens, a.device)
    labels = torch.zeros(a.images, dtype=torch.long)

    def work() -> None:
        with torch.autocast(a.device, torch.bfloat16, enabled=a.device == "cuda"):
            generate(net, labels, prompts=c, seed=0, cfg_scale=a.cfg_scale, batch=a.images)

    work()
    taken = min(seconds(work) for _ in range(3))
    peak = torch.cuda.max_memory_allocated() / 2**30 if a.device == "cuda" else None
    about = {"parameters": sum(p.numel() for p in net.parameters()), "torch": torch.__version__}
    asked = {name: value for name, value in vars(a).items() if name != "peak"}
    print(json.dumps(asked | about | {"seconds": taken, "images_per_s": a.images / taken, "peak_GiB": peak}))


if __name__ == "__main__":
    main()
