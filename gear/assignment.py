"""The codebook assignment A (eq. 6) and its read-outs (eqs. 7 and 8), without ever holding the N x K matrix.

Every quantizer of the paper defines the same kind of object, up to a constant per position that no read-out can see:

    A_ik = s <z_i, c_k> + b_k        VQ: s = 2, b_k = -|c_k|^2      LFQ: s = 2, b = 0      IBQ: s = 1, b = 0

so the soft read-out softmax(A / tau) E is attention over the codebook: query z, key c, value E. A is therefore computed
a tile at a time (`gear.tiles`), and again in the backward pass; memory grows with N (d + D) + K, not with N K (but for
N K d / 64 floats in the backward pass of the soft read-out on CUDA, where codewords have a gradient). At 32 images of
256 tokens and K = 16384 one float32 N x K matrix is 0.5 GiB, and a plain implementation keeps several. What bounds it:
arithmetic, 2 N K D for the read-out, and N K exponentials.

A is float32 even under bfloat16 autocast and beside TF32 (float64 stays float64): <z, c> near 1 has a resolution of
0.004 in bfloat16, which changes 7 % of the arg maxes on a random sphere at K = 16384, d = 8.

Shapes: N positions in any leading shape ("*N"), K codewords, d latent channels, D generator width.
"""

from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from gear import tiles
from gear.cuda import compiled
from gear.tiles import exact, full

WIDEST = 32  # latent channels that `gear.kernels` makes scores of anew at no cost worth naming


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
            for rows, _, a in tiles.tiles(z, c, b, self.scale, 1.0, len(c)):
                torch.argmax(a, -1, out=q[rows])
        return q.view(self.z.shape[:-1])

    def soft(self, E: Float[Tensor, "K D"], tau: float) -> Float[Tensor, "*N D"]:
        """u^s_i = softmax(A_i / tau) E (eq. 8). Gradients reach z, the codewords and, if it wants one, E."""
        _above_zero("tau", tau)
        z, c, scale, inverse = _flat(self.z), full(self.codewords), self.scale / tau, 1 / tau
        if not E.requires_grad and (kernels := _kernels(z, c)) is not None:
            u = kernels.Soft.apply(*_over(z, c, self.bias, scale, inverse), E, _product(z.device))
        else:
            u = tiles.Soft.apply(z, c, self.bias, full(E), scale, inverse)
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
            h, mean = tiles.Posterior.apply(z, c, self.bias, scale, inverse)
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
        mean = tiles.Product.apply(high.T, low).flatten() / a.shape[0]
        return Posterior(entropy.view(self.z.shape[:-1]), mean)


def _sign_patterns(a: Float[Tensor, "N bits"]) -> Float[Tensor, "N K"]:
    """p(pattern) of every pattern of a few bits with log odds a, pattern k having bit j of k."""
    p = a.new_ones(a.shape[0], 1)
    for j in range(a.shape[1]):
        p = torch.cat([p * torch.sigmoid(-a[:, j : j + 1]), p * torch.sigmoid(a[:, j : j + 1])], dim=1)
    return p


def _above_zero(name: str, value: float) -> None:
    if not value > 0:
        raise ValueError(f"{name} must be above 0 (the read-out is softmax(A / {name})); it is {value}.")


def _flat(z: Tensor) -> Tensor:
    return full(z).reshape(-1, z.shape[-1])


def _kernels(z: Tensor, c: Tensor) -> ModuleType | None:
    """`gear.kernels` on CUDA, for what it takes; None: `gear.tiles`, which takes everything."""
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
