"""The codebook assignment A (eq. 6) and its read-outs (eqs. 7 and 8), without ever holding the N x K matrix.

Every quantizer of the paper defines the same kind of object, up to a constant per position that no read-out can see:

    A_ik = s <z_i, c_k> + b_k        VQ: s = 2, b_k = -|c_k|^2      LFQ: s = 2, b = 0      IBQ: s = 1, b = 0

so the soft read-out softmax(A / tau) E is attention over the codebook: query z, key c, value E. The rows of A are
therefore computed a block at a time and computed again in the backward pass; memory grows with N (d + D) + K, not with
N K. At 32 images of 256 tokens and K = 16384 one float32 N x K matrix is 0.5 GiB, and a plain implementation keeps
several. What bounds it: arithmetic, 2 N K D for the read-out, and N K exponentials.

A is float32 even under bfloat16 autocast and beside TF32 (float64 stays float64): <z, c> near 1 has a resolution of
0.004 in bfloat16, which changes 7 % of the arg maxes on a random sphere at K = 16384, d = 8.

Shapes: N positions in any leading shape ("*N"), K codewords, d latent channels, D generator width.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from gear.cuda import compiled

ENTRIES = 1 << 20  # of A held at once: 4 MiB of float32, which a core's caches can serve
ON_A_GPU = 1 << 26  # where each tile is a dozen launches: 256 MiB
LOG_2 = math.log(2)
WIDEST = 32  # latent channels that `gear.kernels` makes scores of anew at no cost worth naming


def full(t: Tensor) -> Tensor:
    """float32, or float64 as it is: the precision of A and of the losses under any autocast."""
    return t if t.dtype == torch.float64 else t.float()


@contextmanager
def exact(device: torch.device) -> Iterator[None]:
    """Matrix products in float32, whatever autocast and TF32 (10 bits of mantissa) do around the block."""
    before = torch.get_float32_matmul_precision()
    with torch.autocast(device.type, enabled=False):
        try:
            if before != "highest":
                torch.set_float32_matmul_precision("highest")
            yield
        finally:
            if before != "highest":
                torch.set_float32_matmul_precision(before)


@dataclass(frozen=True)
class Posterior:
    """softmax(A / temperature), summarised.

    entropy: H(p_i) of each position, in nats, in [0, log K].
    mean: the average posterior over all positions of this process, p_k, non-negative, sums to 1.
    """

    entropy: Float[Tensor, "*N"]
    mean: Float[Tensor, "K"]


@dataclass(frozen=True)
class Assignment:
    """A_ik = scale <z_i, c_k> + bias_k, asked through its read-outs. Everything is differentiable but `hard`."""

    z: Float[Tensor, "*N d"]
    codewords: Float[Tensor, "K d"]
    scale: float
    bias: Float[Tensor, "K"] | None = None

    def __getitem__(self, index: Any) -> "Assignment":
        """The same assignment at some positions: `A[:, :-1]` drops the last token of every image."""
        return replace(self, z=self.z[index])

    def dense(self) -> Float[Tensor, "*N K"]:
        """The whole matrix. For tests and small codebooks."""
        z, c, b = full(self.z), full(self.codewords), self.bias
        with exact(z.device):
            A = self.scale * (z @ c.T)
            return A if b is None else A + full(b)

    @torch.no_grad()
    def hard(self) -> Int[Tensor, "*N"]:
        """q_i = argmax_k A_ik (eqs. 1 and 7), int64 in [0, K). Ties go to the lower index."""
        z, c, b = _flat(self.z), full(self.codewords), None if self.bias is None else full(self.bias)
        if (kernels := _kernels(z, c)) is not None:
            return kernels.statistics(*_over(z, c, b, self.scale, 1.0))[2].long().view(self.z.shape[:-1])
        q = torch.empty(len(z), dtype=torch.int64, device=z.device)
        with exact(z.device):
            for rows, _, a in _tiles(z, c, b, self.scale, 1.0, len(c)):
                torch.argmax(a, -1, out=q[rows])
        return q.view(self.z.shape[:-1])

    def soft(self, E: Float[Tensor, "K D"], tau: float) -> Float[Tensor, "*N D"]:
        """u^s_i = softmax(A_i / tau) E (eq. 8). Gradients reach z, the codewords and, if it wants one, E."""
        _above_zero("tau", tau)
        z, c, scale, inverse = _flat(self.z), full(self.codewords), self.scale / tau, 1 / tau
        if not E.requires_grad and (kernels := _kernels(z, c)) is not None:
            u = kernels.Soft.apply(*_over(z, c, self.bias, scale, inverse), E, _product(z.device))
        else:
            u = _Soft.apply(z, c, self.bias, full(E), scale, inverse)
        return u.view(*self.z.shape[:-1], E.shape[-1])

    def straight_through(self, E: Float[Tensor, "K D"], tau: float) -> Float[Tensor, "*N D"]:
        """E[q] in value, softmax(A / tau) in gradient: (pi + sg(onehot(q) - pi)) E.

        A enters with the gradient of the soft read-out, E with that of the lookup. With the codebook itself as E and
        tau = 1 this is IBQ's index back-propagation.
        """
        pi_E = self.soft(E.detach(), tau)
        return F.embedding(self.hard(), E) + (pi_E - pi_E.detach())

    def posterior(self, temperature: float) -> Posterior:
        """The entropies and the mean of softmax(A / temperature): what the entropy loss needs."""
        _above_zero("temperature", temperature)
        z, c, scale, inverse = _flat(self.z), full(self.codewords), self.scale / temperature, 1 / temperature
        if (kernels := _kernels(z, c)) is not None:
            h, mean = kernels.Posterior.apply(*_over(z, c, self.bias, scale, inverse))
        else:
            h, mean = _Posterior.apply(z, c, self.bias, scale, inverse)
        return Posterior(h.view(self.z.shape[:-1]), mean)


@dataclass(frozen=True)
class BinaryAssignment(Assignment):
    """LFQ: the codewords are all sign patterns, so the posterior factorises, p(bit_j = 1) = sigmoid(2 s z_j / T).

    Bit j of an index is channel j, channel 0 the least significant; a channel at exactly 0 reads as -1.
    The entropies are closed forms and the mean posterior one small matrix product; no N x K work is left in them.
    """

    @torch.no_grad()
    def hard(self) -> Int[Tensor, "*N"]:
        bit = 1 << torch.arange(self.z.shape[-1], device=self.z.device)
        return ((self.z > 0) * bit).sum(-1)

    def posterior(self, temperature: float) -> Posterior:
        _above_zero("temperature", temperature)
        a = 2 * self.scale / temperature * _flat(self.z)  # log odds of each bit
        entropy = (F.softplus(-a.abs()) + a.abs() * torch.sigmoid(-a.abs())).sum(-1)
        half = a.shape[1] // 2
        low, high = _sign_patterns(a[:, :half]), _sign_patterns(a[:, half:])
        with exact(a.device):
            mean = (high.T @ low).flatten() / a.shape[0]
        return Posterior(entropy.view(self.z.shape[:-1]), mean)


def _sign_patterns(a: Float[Tensor, "N bits"]) -> Float[Tensor, "N K"]:
    """p(pattern) of every pattern of a few bits with log odds a, pattern k having bit j of k."""
    p = a.new_ones(a.shape[0], 1)
    for j in range(a.shape[1]):
        p = torch.cat([p * torch.sigmoid(-a[:, j : j + 1]), p * torch.sigmoid(a[:, j : j + 1])], dim=1)
    return p


# ---------------------------------------------------------------------------------- tiles of A, forward and backward


def _above_zero(name: str, value: float) -> None:
    if not value > 0:
        raise ValueError(f"{name} must be above 0 (the read-out is softmax(A / {name})); it is {value}.")


def _flat(z: Tensor) -> Tensor:
    return full(z).reshape(-1, z.shape[-1])


def _kernels(z: Tensor, c: Tensor) -> ModuleType | None:
    """`gear.kernels` on CUDA, for what it takes; None: the tiles below, which take everything."""
    if not (z.is_cuda and z.dtype == c.dtype == torch.float32 and z.shape[-1] <= WIDEST):
        return None
    return compiled("gear.kernels")


def _over(z: Tensor, c: Tensor, b: Tensor | None, scale: float, inverse: float) -> tuple[Tensor, Tensor, Tensor | None]:
    """z and b over the temperature, as the kernels take them."""
    return z * scale, c, None if b is None else full(b) * inverse


def _product(device: torch.device) -> torch.dtype:
    """Of pi E: as every other product under the same autocast."""
    low = torch.is_autocast_enabled(device.type)
    return torch.get_autocast_dtype(device.type) if low else torch.float32


def _square(c: Tensor) -> int:
    """Codewords of a square tile, which asks for each row of E and of u equally seldom."""
    return min(math.isqrt(ON_A_GPU if c.is_cuda else ENTRIES), len(c))


def _memory(z: Tensor, c: Tensor, columns: int) -> Tensor:
    """For the values of a tile of `columns` codewords. It is used again by each tile: the kernel gives new memory to a
    process page by page, which takes longer than what is done with it here."""
    return z.new_empty(min(len(z), max(1, (ON_A_GPU if c.is_cuda else ENTRIES) // columns)) * columns)


def _tiles(
    z: Tensor, c: Tensor, b: Tensor | None, scale: float, inverse: float, columns: int
) -> Iterator[tuple[slice, slice, Tensor]]:
    """scale <z_i, c_k> + inverse b_k, some rows by `columns` codewords at a time: rows, codewords, values, which stay
    until the next tile."""
    memory = _memory(z, c, columns)
    height = len(memory) // columns
    for i in range(0, len(z), height):
        rows = slice(i, min(i + height, len(z)))
        for k in range(0, len(c), columns):
            words = slice(k, min(k + columns, len(c)))
            out = memory[: (rows.stop - i) * (words.stop - k)].view(rows.stop - i, words.stop - k)
            if b is None:
                torch.mm(z[rows], c[words].T, out=out).mul_(scale)
            else:
                torch.addmm(b[words], z[rows], c[words].T, beta=inverse, alpha=scale, out=out)
            yield rows, words, out


def _in_bits(ctx: Any, columns: int) -> Iterator[tuple[slice, slice, Tensor]]:
    """Tiles of A / T in units of log 2, since 2^x is a third of the time of e^x and never slow where it underflows."""
    z, c, b = ctx.saved_tensors[:3]
    return _tiles(z, c, b, ctx.scale / LOG_2, ctx.inverse / LOG_2, columns)


class _Gradients:
    """The gradients of z, c and b, gathered from tiles g of dL/d(A / T)."""

    def __init__(self, ctx: Any):
        self.z, self.c, b = ctx.saved_tensors[:3]
        self.scale, self.inverse = ctx.scale, ctx.inverse
        need_z, need_c, need_b = ctx.needs_input_grad[:3]
        self.dz = torch.zeros_like(self.z) if need_z else None
        self.dc = self.c.new_zeros(self.c.shape[::-1]) if need_c else None  # [d K]: five times as fast as [K d]
        self.db = torch.zeros_like(b) if need_b else None

    def add(self, rows: slice, words: slice, g: Tensor) -> None:
        if self.dz is not None:
            self.dz[rows].addmm_(g, self.c[words], alpha=self.scale)
        if self.dc is not None:
            self.dc[:, words].addmm_(self.z[rows].T, g, alpha=self.scale)
        if self.db is not None:
            self.db[words].add_(g.sum(0), alpha=self.inverse)

    def found(self) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        return self.dz, None if self.dc is None else self.dc.T.contiguous(), self.db


class _Soft(torch.autograd.Function):
    """softmax(A / T) E, a tile at a time with a running maximum and sum (Milakov and Gimelshein 2018)."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, c: Tensor, b: Tensor | None, E: Tensor, scale: float, inverse: float) -> Tensor:
        u, mass, top = z.new_zeros(len(z), E.shape[1]), z.new_zeros(len(z), 1), z.new_full((len(z), 1), -torch.inf)
        with exact(z.device):
            for rows, words, a in _tiles(z, c, b, scale / LOG_2, inverse / LOG_2, _square(c)):
                highest = torch.maximum(top[rows], a.amax(-1, keepdim=True))
                shrunk = (top[rows] - highest).exp2_()
                e = a.sub_(highest).exp2_()
                mass[rows] = mass[rows] * shrunk + e.sum(-1, keepdim=True)
                u[rows].mul_(shrunk).addmm_(e, E[words])
                top[rows] = highest
        u /= mass
        ctx.save_for_backward(z, c, b, E, u, top, mass.log2_())
        ctx.scale, ctx.inverse = scale, inverse
        return u

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple:  # pyright: ignore[reportIncompatibleMethodOverride]
        E, u, top, log_mass = ctx.saved_tensors[3:]
        dE, gradients = torch.zeros_like(E) if ctx.needs_input_grad[3] else None, _Gradients(ctx)
        inner = (grad * u).sum(-1, keepdim=True)  # sum_k pi_k <g, e_k> = <g, u>
        memory = _memory(grad, E, _square(E))
        with exact(E.device):
            for rows, words, a in _in_bits(ctx, _square(E)):
                pi, g = a.sub_(top[rows]).sub_(log_mass[rows]).exp2_(), memory[: a.numel()].view_as(a)
                if dE is not None:
                    dE[words].addmm_(pi.T, grad[rows])
                torch.mm(grad[rows], E[words].T, out=g)
                gradients.add(rows, words, g.sub_(inner[rows]).mul_(pi))
        return *gradients.found(), dE, None, None


class _Posterior(torch.autograd.Function):
    """The entropies and the mean of softmax(A / T), some whole rows at a time: the mean needs their sums."""

    @staticmethod
    def forward(
        ctx: Any, z: Tensor, c: Tensor, b: Tensor | None, scale: float, inverse: float
    ) -> tuple[Tensor, Tensor]:
        h, mean = z.new_empty(len(z)), z.new_zeros(len(c))
        top, log_mass = z.new_empty(2, len(z), 1)
        memory = _memory(z, c, len(c))
        with exact(z.device):
            for rows, _, a in _tiles(z, c, b, scale / LOG_2, inverse / LOG_2, len(c)):
                torch.amax(a, -1, keepdim=True, out=top[rows])
                e = torch.exp2(a.sub_(top[rows]), out=memory[: a.numel()].view_as(a))
                mass = e.sum(-1)
                h[rows] = (mass.log2() - torch.linalg.vecdot(e, a) / mass) * LOG_2
                mean.addmv_(e.T, 1 / mass)
                log_mass[rows, 0] = mass.log2_()
        ctx.save_for_backward(z, c, b, h, top, log_mass)
        ctx.scale, ctx.inverse = scale, inverse
        return h, mean / len(z)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_h: Tensor, grad_mean: Tensor) -> tuple:  # pyright: ignore[reportIncompatibleMethodOverride]
        z, c, _, h, top, log_mass = ctx.saved_tensors
        grad_p, gradients, memory = grad_mean / len(z), _Gradients(ctx), _memory(z, c, len(c))
        with exact(z.device):
            for rows, words, a in _in_bits(ctx, len(c)):
                # dH/da_k = -p_k (log p_k + H);  d<g, p>/da_k = p_k (g_k - <g, p>)
                p = torch.exp2(a.sub_(top[rows]).sub_(log_mass[rows]), out=memory[: a.numel()].view_as(a))
                inner = (p @ grad_p)[:, None]
                g = a.mul_(LOG_2).add_(h[rows, None]).mul_(-grad_h[rows, None]).add_(grad_p).sub_(inner).mul_(p)
                gradients.add(rows, words, g)
        return *gradients.found(), None, None
