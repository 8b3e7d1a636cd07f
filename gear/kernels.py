"""The read-outs of `gear.assignment` as Triton kernels, for CUDA: tiles of A that never leave the chip.

With s_ik = A_ik / T (z and b arrive divided by T), l_i = log sum_k exp s_ik, p_ik = exp(s_ik - l_i), dA_ik = dL/ds_ik:

    soft        u_i = sum_k p_ik E_k                  dA_ik = p_ik (<g_i, E_k> - <g_i, u_i>)
    posterior   h_i = l_i - sum_k p_ik s_ik           dA_ik = p_ik (m_k - (s_ik - l_i + h_i) g_i - sum_j p_ij m_j)
                mean_k = sum_i p_ik / N

where g is the gradient of u or h, and m that of sum_i p_ik. Then dz_i = sum_k dA_ik c_k, dc_k = sum_i dA_ik z_i and
db_k = sum_i dA_ik. Scores are made anew wherever they are needed: d is small, so that costs less than the exponential.

What bounds it: of `soft` two matrix products of 2 N K D operations, one each way, on the tensor cores in the precision
of the products around it; of the rest N K exponentials, ten passes over them in a step. Sums go in a fixed order,
without atomics, so equal inputs give equal bits: the backward pass of `soft` keeps dc of each 64 positions until then,
which is N K d / 64 floats where codewords have a gradient.

Scores are products of float32, computed as such. N positions, K codewords, d latent channels, D width.
"""

import inspect
from collections.abc import Callable
from typing import Any

import torch
import triton  # pyright: ignore[reportMissingImports]  (a CPU build of torch comes without)
import triton.language as tl  # pyright: ignore[reportMissingImports]
from torch import Tensor
from torch.autograd.function import once_differentiable
from triton.language import constexpr  # pyright: ignore[reportMissingImports]

SPLIT = 8  # parts of the codebook that one block of rows is given to, so that all of a GPU has work


def kernel(function: Callable[..., Any]) -> Any:
    """Compiled by Triton, which reads the source of the bare function: the tests wrap each in a check of its types."""
    return triton.jit(inspect.unwrap(function))


# ------------------------------------------------------------------------------------------------- tiles


@kernel
def _vectors(pointer, at, n, d, DP: constexpr):
    """Rows `at` of an n x d matrix, padded to DP channels with zeros."""
    channel = tl.arange(0, DP)
    return tl.load(
        pointer + at[:, None] * d + channel[None, :], mask=(at < n)[:, None] & (channel < d)[None, :], other=0.0
    )


@kernel
def _scores(z, c, b_ptr, cols, K, BIAS: constexpr):
    """A tile of s, minus infinity right of the last codeword."""
    s = tl.dot(z, tl.trans(c), input_precision="ieee")
    if BIAS:
        s += tl.load(b_ptr + cols, mask=cols < K, other=0.0)[None, :]
    return tl.where((cols < K)[None, :], s, float("-inf"))


@kernel
def _keep_vectors(pointer, at, n, d, DP: constexpr, values):
    channel = tl.arange(0, DP)
    inside = (at < n)[:, None] & (channel < d)[None, :]
    tl.store(pointer + at[:, None] * d + channel[None, :], values, mask=inside)


# ------------------------------------------------------------------------------------------------- soft


@kernel
def _soft_forward(
    z_ptr, c_ptr, b_ptr, E_ptr, u_ptr, l_ptr, N, K, d, D,
    BIAS: constexpr, DP: constexpr, BM: constexpr, BN: constexpr, BD: constexpr,
    PRODUCT: constexpr,
):  # fmt: skip
    rows, at = tl.program_id(0) * BM + tl.arange(0, BM), tl.program_id(1) * BD + tl.arange(0, BD)
    z = _vectors(z_ptr, rows, N, d, DP)
    highest = tl.full([BM], float("-inf"), tl.float32)
    total, u = tl.zeros([BM], tl.float32), tl.zeros([BM, BD], tl.float32)
    for start in range(0, K, BN):
        cols = start + tl.arange(0, BN)
        s = _scores(z, _vectors(c_ptr, cols, K, d, DP), b_ptr, cols, K, BIAS)
        higher = tl.maximum(highest, tl.max(s, 1))
        shrink, p = tl.exp(highest - higher), tl.exp(s - higher[:, None])
        total = total * shrink + tl.sum(p, 1)
        E = tl.load(E_ptr + cols[:, None] * D + at[None, :], mask=(cols < K)[:, None] & (at < D)[None, :], other=0.0)
        u = tl.dot(p.to(E.dtype), E, u * shrink[:, None], input_precision=PRODUCT)
        highest = higher
    tl.store(u_ptr + rows[:, None] * D + at[None, :], u / total[:, None], mask=(rows < N)[:, None] & (at < D)[None, :])
    if tl.program_id(1) == 0:
        tl.store(l_ptr + rows, highest + tl.log(total), mask=rows < N)


@kernel
def _soft_backward(
    z_ptr, c_ptr, b_ptr, E_ptr, g_ptr, l_ptr, gu_ptr, dz_ptr, dc_ptr, db_ptr, N, K, d, D,
    BIAS: constexpr, CODES: constexpr, BIASES: constexpr, DP: constexpr, BM: constexpr, BN: constexpr, BD: constexpr,
    PRODUCT: constexpr, PARTS: constexpr,
):  # fmt: skip
    """A block of rows and a part of the codebook: dz summed over the part, dc (where CODES) and db (where BIASES) over
    the block."""
    block, part = tl.program_id(0), tl.program_id(1)
    rows = block * BM + tl.arange(0, BM)
    z = _vectors(z_ptr, rows, N, d, DP)
    inside = rows < N
    lse = tl.load(l_ptr + rows, mask=inside, other=0.0)
    gu = tl.load(gu_ptr + rows, mask=inside, other=0.0)
    dz = tl.zeros([BM, DP], tl.float32)
    length = tl.cdiv(tl.cdiv(K, BN), PARTS) * BN
    for start in range(part * length, tl.minimum((part + 1) * length, K), BN):
        cols = start + tl.arange(0, BN)
        gE = tl.zeros([BM, BN], tl.float32)
        for first in range(0, D, BD):
            at = first + tl.arange(0, BD)
            g = tl.load(g_ptr + rows[:, None] * D + at[None, :], mask=inside[:, None] & (at < D)[None, :], other=0.0)
            E = tl.load(
                E_ptr + cols[None, :] * D + at[:, None], mask=(cols < K)[None, :] & (at < D)[:, None], other=0.0
            )
            gE = tl.dot(g, E, gE, input_precision=PRODUCT)
        c = _vectors(c_ptr, cols, K, d, DP)
        p = tl.exp(_scores(z, c, b_ptr, cols, K, BIAS) - lse[:, None])
        dA = tl.where(inside[:, None], p * (gE - gu[:, None]), 0.0)
        dz += tl.dot(dA, c, input_precision="ieee")
        if CODES:
            of_block = block.to(tl.int64) * K * d  # which 32 bits do not hold for many positions and codewords
            _keep_vectors(dc_ptr + of_block, cols, K, d, DP, tl.dot(tl.trans(dA), z, input_precision="ieee"))
        if BIASES:
            tl.store(db_ptr + block.to(tl.int64) * K + cols, tl.sum(dA, 0), mask=cols < K)
    _keep_vectors(dz_ptr + part * N * d, rows, N, d, DP, dz)


class Soft(torch.autograd.Function):
    """u = softmax(z c^T + b) E, N x D float32; no gradient to E, which is held fixed where this is used.

    z: N x d, already times s / T. c: K x d. b: K, already over T, or None. product: the type of the two large products.
    """

    @staticmethod
    def forward(ctx: Any, z: Tensor, c: Tensor, b: Tensor | None, E: Tensor, product: torch.dtype) -> Tensor:
        z, c, E = z.contiguous(), c.contiguous(), E.to(product).contiguous()
        (N, d), (K, D) = z.shape, E.shape
        u, lse = z.new_empty(N, D), z.new_empty(N)
        BM, BN, BD = (128, 64, min(256, _power(D))) if product.itemsize == 2 else (64, 32, min(128, _power(D)))
        _soft_forward[(triton.cdiv(N, BM), triton.cdiv(D, BD))](
            z, c, b, E, u, lse, N, K, d, D,
            BIAS=b is not None, DP=_power(d), BM=BM, BN=BN, BD=BD, PRODUCT=_precision(), num_warps=8,
        )  # fmt: skip
        ctx.save_for_backward(z, c, b, E, u, lse)
        return u

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple:  # pyright: ignore[reportIncompatibleMethodOverride]
        z, c, b, E, u, lse = ctx.saved_tensors
        (N, d), (K, D) = z.shape, E.shape
        gu, g = (g * u).sum(-1), g.to(E.dtype).contiguous()
        BM, BN, BD, warps = (64, 128, 64, 4) if E.element_size() == 2 else (64, 64, 32, 8)
        blocks, (_, codes, biases, *_) = triton.cdiv(N, BM), ctx.needs_input_grad
        dz = z.new_empty(SPLIT, N, d)
        dc = z.new_empty(blocks, K, d) if codes else None
        db = z.new_empty(blocks, K) if biases else None
        _soft_backward[(blocks, SPLIT)](
            z, c, b, E, g, lse, gu, dz, dc, db, N, K, d, D,
            BIAS=b is not None, CODES=codes, BIASES=biases, DP=_power(d), BM=BM, BN=BN, BD=BD,
            PRODUCT=_precision(), PARTS=SPLIT, num_warps=warps,
        )  # fmt: skip
        return dz.sum(0), None if dc is None else dc.sum(0), None if db is None else db.sum(0), None, None


# ------------------------------------------------------------------------------------------------- posterior


@kernel
def _row_statistics(
    z_ptr, c_ptr, b_ptr, l_ptr, h_ptr, best_ptr, N, K, d,
    BIAS: constexpr, DP: constexpr, BM: constexpr, BN: constexpr,
):  # fmt: skip
    """Of each position the log-sum-exp, the entropy and the arg max, whose ties go to the lower index."""
    rows = tl.program_id(0) * BM + tl.arange(0, BM)
    z = _vectors(z_ptr, rows, N, d, DP)
    highest, best = tl.full([BM], float("-inf"), tl.float32), tl.zeros([BM], tl.int32)
    total, mean = tl.zeros([BM], tl.float32), tl.zeros([BM], tl.float32)
    for start in range(0, K, BN):
        cols = start + tl.arange(0, BN)
        s = _scores(z, _vectors(c_ptr, cols, K, d, DP), b_ptr, cols, K, BIAS)
        top, where = tl.max(s, 1, return_indices=True, return_indices_tie_break_left=True)
        best = tl.where(top > highest, start + where, best)
        higher = tl.maximum(highest, top)
        shrink, p = tl.exp(highest - higher), tl.exp(s - higher[:, None])
        total = total * shrink + tl.sum(p, 1)
        mean = mean * shrink + tl.sum(tl.where((cols < K)[None, :], p * s, 0.0), 1)
        highest = higher
    lse = highest + tl.log(total)
    tl.store(l_ptr + rows, lse, mask=rows < N)
    tl.store(h_ptr + rows, lse - mean / total, mask=rows < N)
    tl.store(best_ptr + rows, best, mask=rows < N)


@kernel
def _column_means(
    z_ptr, c_ptr, b_ptr, l_ptr, mean_ptr, N, K, d,
    BIAS: constexpr, DP: constexpr, BM: constexpr, BN: constexpr,
):  # fmt: skip
    cols = tl.program_id(0) * BN + tl.arange(0, BN)
    c = _vectors(c_ptr, cols, K, d, DP)
    total = tl.zeros([BN], tl.float32)
    for start in range(0, N, BM):
        rows = start + tl.arange(0, BM)
        lse = tl.load(l_ptr + rows, mask=rows < N, other=float("inf"))
        s = _scores(_vectors(z_ptr, rows, N, d, DP), c, b_ptr, cols, K, BIAS)
        total += tl.sum(tl.exp(s - lse[:, None]), 0)
    tl.store(mean_ptr + cols, total / N, mask=cols < K)


@kernel
def _posterior_rows(
    z_ptr, c_ptr, b_ptr, l_ptr, h_ptr, g_ptr, m_ptr, inner_ptr, dz_ptr, N, K, d,
    BIAS: constexpr, DP: constexpr, BM: constexpr, BN: constexpr,
):  # fmt: skip
    """sum_j p_ij m_j, then dz."""
    rows = tl.program_id(0) * BM + tl.arange(0, BM)
    z = _vectors(z_ptr, rows, N, d, DP)
    lse = tl.load(l_ptr + rows, mask=rows < N, other=0.0)
    h, g = tl.load(h_ptr + rows, mask=rows < N, other=0.0), tl.load(g_ptr + rows, mask=rows < N, other=0.0)
    inner = tl.zeros([BM], tl.float32)
    for start in range(0, K, BN):
        cols = start + tl.arange(0, BN)
        s = _scores(z, _vectors(c_ptr, cols, K, d, DP), b_ptr, cols, K, BIAS)
        inner += tl.sum(tl.exp(s - lse[:, None]) * tl.load(m_ptr + cols, mask=cols < K, other=0.0)[None, :], 1)
    dz = tl.zeros([BM, DP], tl.float32)
    for start in range(0, K, BN):
        cols = start + tl.arange(0, BN)
        c = _vectors(c_ptr, cols, K, d, DP)
        m = tl.load(m_ptr + cols, mask=cols < K, other=0.0)
        logp = _scores(z, c, b_ptr, cols, K, BIAS) - lse[:, None]
        dA = tl.exp(logp) * (m[None, :] - (logp + h[:, None]) * g[:, None] - inner[:, None])
        dz += tl.dot(tl.where((cols < K)[None, :], dA, 0.0), c, input_precision="ieee")
    tl.store(inner_ptr + rows, inner, mask=rows < N)
    _keep_vectors(dz_ptr, rows, N, d, DP, dz)


@kernel
def _posterior_columns(
    z_ptr, c_ptr, b_ptr, l_ptr, h_ptr, g_ptr, m_ptr, inner_ptr, dc_ptr, db_ptr, N, K, d,
    BIAS: constexpr, DP: constexpr, BM: constexpr, BN: constexpr,
):  # fmt: skip
    cols = tl.program_id(0) * BN + tl.arange(0, BN)
    c = _vectors(c_ptr, cols, K, d, DP)
    m = tl.load(m_ptr + cols, mask=cols < K, other=0.0)
    dc, db = tl.zeros([BN, DP], tl.float32), tl.zeros([BN], tl.float32)
    for start in range(0, N, BM):
        rows = start + tl.arange(0, BM)
        inside = rows < N
        z = _vectors(z_ptr, rows, N, d, DP)
        lse, inner = tl.load(l_ptr + rows, mask=inside, other=0.0), tl.load(inner_ptr + rows, mask=inside, other=0.0)
        h, g = tl.load(h_ptr + rows, mask=inside, other=0.0), tl.load(g_ptr + rows, mask=inside, other=0.0)
        logp = _scores(z, c, b_ptr, cols, K, BIAS) - lse[:, None]
        dA = tl.exp(logp) * (m[None, :] - (logp + h[:, None]) * g[:, None] - inner[:, None])
        dA = tl.where(inside[:, None] & (cols < K)[None, :], dA, 0.0)
        dc += tl.dot(tl.trans(dA), z, input_precision="ieee")
        db += tl.sum(dA, 0)
    _keep_vectors(dc_ptr, cols, K, d, DP, dc)
    if BIAS:
        tl.store(db_ptr + cols, db, mask=cols < K)


class Posterior(torch.autograd.Function):
    """Entropies, N, and mean, K, of softmax(z c^T + b); z, c and b as in `Soft`."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, c: Tensor, b: Tensor | None) -> tuple[Tensor, Tensor]:
        z, c = z.contiguous(), c.contiguous()
        lse, h, _ = statistics(z, c, b)
        mean = z.new_empty(c.shape[0])
        tile = {"BIAS": b is not None, "DP": _power(z.shape[1]), "BM": 64, "BN": 64}
        _column_means[(triton.cdiv(len(c), 64),)](z, c, b, lse, mean, len(z), len(c), z.shape[1], **tile)
        ctx.save_for_backward(z, c, b, lse, h)
        return h, mean

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_h: Tensor, grad_mean: Tensor) -> tuple:  # pyright: ignore[reportIncompatibleMethodOverride]
        z, c, b, lse, h = ctx.saved_tensors
        (N, d), K = z.shape, len(c)
        g, m = grad_h.contiguous(), (grad_mean / N).contiguous()
        dz, dc, inner = torch.empty_like(z), torch.empty_like(c), torch.empty_like(lse)
        db = None if b is None else torch.empty_like(b)
        same = {"BIAS": b is not None, "DP": _power(d)}
        _posterior_rows[(triton.cdiv(N, 32),)](z, c, b, lse, h, g, m, inner, dz, N, K, d, **same, BM=32, BN=128)
        _posterior_columns[(triton.cdiv(K, 64),)](z, c, b, lse, h, g, m, inner, dc, db, N, K, d, **same, BM=64, BN=64)
        return dz, dc, db


def statistics(z: Tensor, c: Tensor, b: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Log-sum-exp, entropy and arg max (int32) of each row of z c^T + b."""
    z, c = z.contiguous(), c.contiguous()
    (N, d), K = z.shape, len(c)
    lse, h, best = z.new_empty(N), z.new_empty(N), torch.empty(N, dtype=torch.int32, device=z.device)
    tile = {"BIAS": b is not None, "DP": _power(d), "BM": 32, "BN": 128}
    _row_statistics[(triton.cdiv(N, 32),)](z, c, b, lse, h, best, N, K, d, **tile)
    return lse, h, best


def _power(n: int) -> int:
    """The next power of two, at least the 16 that a matrix product of tiles takes."""
    return max(16, 1 << (n - 1).bit_length())


def _precision() -> str:
    """Of products of float32: as the rest of the program has it."""
    return "ieee" if torch.get_float32_matmul_precision() == "highest" else "tf32"
