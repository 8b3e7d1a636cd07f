"""How a codebook is used (Figure 4): naturally, by the codes that images get, and softly, at a temperature tau."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from gear.assignment import Assignment, count


@dataclass(frozen=True)
class Usage:
    """Of the distribution p over K codewords, p_k their share of all positions.

    top1, top10, top100, top1000: the mass of the so many most used, in [0, 1], Figure 4's cumulative assignment mass.
    entropy: H = -sum p log p, in nats, in [0, log K]. effective_size: exp(H), in [1, K].
    dead: share of codewords with no mass at all, in [0, 1].
    """

    top1: float
    top10: float
    top100: float
    top1000: float
    entropy: float
    effective_size: float
    dead: float


def usage(mass: Float[Tensor, "K"]) -> Usage:
    """Of counts, or of any other masses that are not all 0. In float64."""
    p = mass.double() / mass.double().sum()
    entropy = -torch.special.xlogy(p, p).sum()
    cumulative = p.sort(descending=True).values.cumsum(0).clamp(max=1)

    def top(k: int) -> float:
        return float(cumulative[min(k, len(p)) - 1])

    return Usage(
        top1=top(1),
        top10=top(10),
        top100=top(100),
        top1000=top(1000),
        entropy=float(entropy),
        effective_size=float(entropy.exp()),
        dead=float((p == 0).double().mean()),
    )


def natural_mass(A: Assignment) -> Float[Tensor, "K"]:
    """How many positions have each codeword as their hard index, argmax_k A_ik."""
    return count(A.hard(), len(A.codewords))


def soft_mass(A: Assignment, tau: float) -> Float[Tensor, "K"]:
    """sum_i softmax(A_i / tau)_k over all positions i: what the soft read-out (eq. 8) draws on. The N x K matrix is
    never held, see `gear.assignment`."""
    return A.posterior(tau).mean * A.z[..., 0].numel()
