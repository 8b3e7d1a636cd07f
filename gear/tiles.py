"""Tiles of A / T, some positions by some codewords, and what is read off them: forward, and again backward.

No matrix of N x K is held: a tile lies in memory that the next one uses again, and is made anew in the backward pass.
On a CPU the time is that of the products with E and its gradient, 2 N K D each; what else is done with a tile is done
in a core's caches.

N positions, K codewords, d latent channels, D generator width. A_ik / T = scale <z_i, c_k> + inverse b_k.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

ENTRIES = 1 << 20  # of A held at once: 4 MiB of float32, which a core's caches can serve
ON_A_GPU = 1 << 26  # where each tile is a dozen launches: 256 MiB
LOG_2 = math.log(2)


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


def _square(c: Tensor) -> int:
    """Codewords of a tile that is square, or has all of them: it asks for each row of E and of u equally seldom."""
    return min(math.isqrt(ON_A_GPU if c.is_cuda else ENTRIES), len(c))


def _memory(z: Tensor, c: Tensor, columns: int) -> Tensor:
    """For the values of a tile of `columns` codewords. It is used again by each tile: the kernel gives new memory to a
    process page by page, which takes longer than what is done with it here."""
    return z.new_empty(min(max(1, len(z)), max(1, (ON_A_GPU if c.is_cuda else ENTRIES) // columns)) * columns)


def tiles(
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
    return tiles(z, c, b, ctx.scale / LOG_2, ctx.inverse / LOG_2, columns)


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


class Soft(torch.autograd.Function):
    """softmax(A / T) E, a tile at a time with a running maximum and sum (Milakov and Gimelshein 2018)."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, c: Tensor, b: Tensor | None, E: Tensor, scale: float, inverse: float) -> Tensor:
        u, mass, top = z.new_zeros(len(z), E.shape[1]), z.new_zeros(len(z), 1), z.new_full((len(z), 1), -torch.inf)
        with exact(z.device):
            for rows, words, a in tiles(z, c, b, scale / LOG_2, inverse / LOG_2, _square(c)):
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


class Product(torch.autograd.Function):
    """a b, whose backward products are as exact as it is itself: they run when the block around it is left."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(a, b)
        with exact(a.device):
            return a @ b

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        a, b = ctx.saved_tensors
        with exact(a.device):
            return grad @ b.T, a.T @ grad


class Posterior(torch.autograd.Function):
    """The entropies and the mean of softmax(A / T), some whole rows at a time: the mean needs their sums."""

    @staticmethod
    def forward(
        ctx: Any, z: Tensor, c: Tensor, b: Tensor | None, scale: float, inverse: float
    ) -> tuple[Tensor, Tensor]:
        h, mean = z.new_empty(len(z)), z.new_zeros(len(c))
        top, log_mass = z.new_empty(2, len(z), 1)
        memory = _memory(z, c, len(c))
        with exact(z.device):
            for rows, _, a in tiles(z, c, b, scale / LOG_2, inverse / LOG_2, len(c)):
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
