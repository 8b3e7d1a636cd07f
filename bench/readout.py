"""The assignment's read-outs and entropies against the plain way that holds the N x K matrix.

One soft read-out (tau 0.1), one entropy loss (temperature 0.01) and the arg max, forward and backward, as a step has
them. N = 8192 positions (32 images of 256 tokens), K = 16384, d = 8, D = 1024: VQ-16 under LlamaGen-L at 256 px.

Time: both sides in one process, alternating. Peak memory: the growth of the resident set of a fresh process per side,
on the CPU, or the allocator's peak on CUDA. What bounds it: 2 N K D multiply-adds each way, and N K exponentials.
"""

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.memory import growth
from bench.table import Row, alternating
from bench.work import Work
from gear.assignment import Assignment
from gear.counting import Flops
from gear.losses import entropy

N, K, d, D = 8192, 16384, 8, 1024
ROUNDS = 2


@dataclass(frozen=True)
class Inputs:
    z: Tensor
    c: Tensor
    E: Tensor
    grad: Tensor


def inputs(device: str) -> Inputs:
    torch.manual_seed(0)
    z, c = (F.normalize(torch.randn(n, d, device=device), dim=-1).requires_grad_() for n in (N, K))
    return Inputs(z, c, torch.randn(K, D, device=device) * 0.02, torch.randn(N, D, device=device) / N)


def ours(i: Inputs) -> tuple[Tensor, Tensor]:
    A = Assignment(i.z, i.c, 2.0, -i.c.square().sum(-1))
    return A.hard(), (A.soft(i.E, 0.1) * i.grad).sum() + entropy(A.posterior(0.01))


def dense(i: Inputs) -> tuple[Tensor, Tensor]:
    """As a good engineer writes it first."""
    A = 2 * i.z @ i.c.T - i.c.square().sum(-1)
    u = (A / 0.1).softmax(-1) @ i.E
    logp = (A / 0.01).log_softmax(-1)
    p = logp.exp()
    mean = p.mean(0)
    loss = -(p * logp).sum(-1).mean() + (mean * (mean + 1e-5).log()).sum()
    return A.argmax(-1), (u * i.grad).sum() + loss


SIDES: dict[str, Callable[[Inputs], tuple[Tensor, Tensor]]] = {"ours": ours, "dense": dense}


def seconds(side: str, i: Inputs) -> float:
    i.z.grad = i.c.grad = None
    start = time.perf_counter()
    _, loss = SIDES[side](i)
    loss.backward()
    if i.z.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def peak(side: str, device: str) -> float:
    """MiB above the inputs, in a process of its own."""
    command = [sys.executable, "-m", "bench.readout", side, device]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def measure_peak(side: str, device: str) -> float:
    i = inputs(device)
    (i.z[:64] @ i.c.T).sum().backward()  # the libraries' own first allocations are nobody's
    return growth(partial(seconds, side, i), device)


def same(i: Inputs) -> None:
    """Codewords, loss and gradients of both sides: a fast wrong answer is worth nothing.

    A, up to 3, is rounded to 3 * 2^-24 = 2e-7 on either side, so that codewords may differ where they are as near; over
    the temperature 0.01 that is 2e-5, and so is the error of an exponential.
    """
    scores, losses, gradients = {}, {}, {}
    for side, work in SIDES.items():
        i.z.grad = i.c.grad = None
        q, loss = work(i)
        loss.backward()
        assert i.z.grad is not None
        assert i.c.grad is not None
        nearest = i.c.detach()[q]
        scores[side] = (2 * i.z.detach() * nearest - nearest.square()).sum(-1)
        losses[side], gradients[side] = loss.detach(), (i.z.grad.clone(), i.c.grad.clone())
    torch.testing.assert_close(scores["ours"], scores["dense"], rtol=0, atol=2e-6)
    torch.testing.assert_close(losses["ours"], losses["dense"], rtol=1e-4, atol=4e-5)
    for a, b in zip(gradients["ours"], gradients["dense"], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=4e-5 * b.abs().max().item())


def run(device: str) -> list[Row]:
    i = inputs(device)
    same(i)
    t, spread = alternating({side: partial(seconds, side, i) for side in SIDES}, ROUNDS)
    m = {side: peak(side, device) for side in SIDES}
    target = 0.5 if device == "cuda" else 1.0
    # pi E and its gradient; scores and their gradients of z and c, at one temperature at least; exp at both
    floor = Work(Flops(0, 2 * N * K * (2 * D + 3 * d)), exponentials=2 * N * K)
    results = 4 * (N * D + N * d + K * d)  # u and two gradients
    return [
        Row("read-outs", "s", t["ours"], t["dense"], target, spread, "arithmetic", floor.seconds(device)),
        Row("read-outs", "MiB", m["ours"], m["dense"], 0.25, None, "N (d + D)", results / 2**20),
    ]


if __name__ == "__main__":
    print(measure_peak(sys.argv[1], sys.argv[2]))
