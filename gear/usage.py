"""How a codebook is used (Figure 4), from counts of hard indices or from any other masses of its codewords."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor


@dataclass(frozen=True)
class Usage:
    """Of the distribution p over K codewords, p_k their share of all positions; on the device of the masses.

    entropy: H = -sum p log p in nats, in [0, log K].
    effective_size: exp(H), in [1, K].
    dead: share of codewords without any mass, in [0, 1].
    top1, top10, top100, top1000: cumulative mass of the so many most used, in [0, 1]; all of it where K is smaller.
    """

    entropy: Float64[Tensor, ""]
    effective_size: Float64[Tensor, ""]
    dead: Float64[Tensor, ""]
    top1: Float64[Tensor, ""]
    top10: Float64[Tensor, ""]
    top100: Float64[Tensor, ""]
    top1000: Float64[Tensor, ""]

    def numbers(self) -> dict[str, float]:
        """By the names of the fields. A GPU is waited for."""
        return dict(zip(vars(self), torch.stack(list(vars(self).values())).tolist(), strict=True))


def usage(mass: Float[Tensor, "K"]) -> Usage:
    """Masses may be summed over steps and ranks first. Without any the entropy is 0. In float64."""
    p = mass.double() / torch.where(mass.sum() > 0, mass.double().sum(), 1.0)
    entropy = -torch.special.xlogy(p, p).sum()
    cumulative = p.sort(descending=True).values.cumsum(0).clamp(max=1)
    tops = [cumulative[min(k, len(p)) - 1] for k in (1, 10, 100, 1000)]
    return Usage(entropy, entropy.exp(), (mass == 0).double().mean(), *tops)


def count(q: Int[Tensor, "*N"], K: int) -> Float[Tensor, "K"]:
    """How often each codeword was chosen, float32, without a host sync (torch.bincount has one)."""
    q = q.flatten()
    ones = torch.ones_like(q, dtype=torch.float32)
    return ones.new_zeros(K).index_add_(0, q, ones)
