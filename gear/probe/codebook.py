"""How a codebook is used (Figure 4): naturally, by the codes that images get, and softly, at a temperature tau."""

from jaxtyping import Float
from torch import Tensor

from gear.assignment import Assignment
from gear.usage import count


def natural_mass(A: Assignment) -> Float[Tensor, "K"]:
    """How many positions have each codeword as their hard index, argmax_k A_ik."""
    return count(A.hard(), len(A.codewords))


def soft_mass(A: Assignment, tau: float) -> Float[Tensor, "K"]:
    """sum_i softmax(A_i / tau)_k over all positions i: what the soft read-out (eq. 8) draws on. The N x K matrix is
    never held, see `gear.assignment`."""
    return A.posterior(tau).mean * A.z[..., 0].numel()
