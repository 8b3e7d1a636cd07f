"""The three quantizers of the paper (Table 8). Each only says what A is and what its own loss is; all else is shared.

A quantizer maps latents z ("B N d", float32) to an `Assignment`, its hard indices q, and codewords for the decoder
through which the reconstruction's gradient passes straight.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from gear.assignment import Assignment, BinaryAssignment, full


@dataclass(frozen=True)
class Quantized:
    """
    assignment: A over "B N" positions.
    q: hard indices, argmax_k A_ik.
    z_q: the codewords c_q in value; their gradient reaches the encoder by the quantizer's straight-through rule.
    codebook: the term of weight 1 that pulls the codebook (0 for LFQ, which has none to learn).
    commitment: the term of weight 0.25 in eq. 2 that keeps z near its codeword. IBQ's released loss gives its weight
        0.25 to the codebook side instead; what stands here is then that term (PAPER.md, M10).
    """

    assignment: Assignment
    q: Int[Tensor, "B N"]
    z_q: Float[Tensor, "B N d"]
    codebook: Float[Tensor, ""]
    commitment: Float[Tensor, ""]


class VQ(nn.Module):
    """Nearest codeword (eqs. 1 and 6), z and codewords on the unit sphere as in LlamaGen (PAPER.md, M8).

    A_ik = -|z_i - c_k|^2 up to the constant |z_i|^2 = 1, so s = 2 and b_k = -|c_k|^2.
    """

    def __init__(self, codebook_size: int, dim: int):
        super().__init__()
        self.embedding = nn.Embedding(codebook_size, dim)
        nn.init.uniform_(self.embedding.weight, -1, 1)
        if not self.embedding.weight.is_meta:  # where it would only be slow: torch imports all of its compiler for it
            with torch.no_grad():  # as LlamaGen: at length 1 a step of AdamW turns a codeword by its learning rate
                self.embedding.weight.copy_(F.normalize(self.embedding.weight, dim=-1))

    def codewords(self) -> Float[Tensor, "K d"]:
        return F.normalize(full(self.embedding.weight), dim=-1)

    def forward(self, z: Float[Tensor, "B N d"]) -> Quantized:
        z, c = F.normalize(z, dim=-1), self.codewords()
        A = Assignment(z, c, scale=2.0, bias=-c.square().sum(-1))
        q = A.hard()
        c_q = F.embedding(q, c)
        return Quantized(
            assignment=A,
            q=q,
            z_q=z + (c_q - z).detach(),
            codebook=F.mse_loss(c_q, z.detach()),
            commitment=F.mse_loss(z, c_q.detach()),
        )


class LFQ(nn.Module):
    """Look-up free quantization: the codeword is the sign of z; s = 2, b = 0, c_k in {-1, +1}^bits, none learned."""

    patterns: Tensor

    def __init__(self, bits: int):
        super().__init__()
        k = torch.arange(2**bits).unsqueeze(-1)
        self.register_buffer("patterns", ((k >> torch.arange(bits)) & 1) * 2.0 - 1.0, persistent=False)

    def codewords(self) -> Float[Tensor, "K d"]:
        return self.patterns

    def forward(self, z: Float[Tensor, "B N d"]) -> Quantized:
        A = BinaryAssignment(z, self.patterns, scale=2.0)
        q = A.hard()
        c_q = F.embedding(q, self.patterns)
        return Quantized(
            assignment=A,
            q=q,
            z_q=z + (c_q - z).detach(),
            codebook=z.new_zeros(()),
            commitment=F.mse_loss(z, c_q),
        )


class IBQ(nn.Module):
    """Index back-propagation: A_ik = <z_i, c_k>, s = 1, b = 0; the decoder's gradient reaches every codeword through
    the softmax of A at temperature 1 (SEED-Voken's IBQ)."""

    def __init__(self, codebook_size: int, dim: int):
        super().__init__()
        self.embedding = nn.Embedding(codebook_size, dim)

    def codewords(self) -> Float[Tensor, "K d"]:
        return full(self.embedding.weight)

    def forward(self, z: Float[Tensor, "B N d"]) -> Quantized:
        c = self.codewords()
        A = Assignment(z, c, scale=1.0)
        q = A.hard()
        z_q, c_q = A.straight_through(c, tau=1.0), F.embedding(q, c)
        return Quantized(
            assignment=A,
            q=q,
            z_q=z_q,
            codebook=F.mse_loss(z_q, z) + F.mse_loss(z, c_q.detach()),
            commitment=F.mse_loss(c_q, z.detach()),
        )
