"""Randomness that belongs to the images and not to the processes.

The released code seeds each rank differently, so a run on four GPUs is another run than on eight. Here every rank has
the same state of torch's generator at every step (`gear.train.loop.seed`), draws a few numbers for each row of the
*whole* batch, and uses those of its own rows (`gear.ranks`). A run is then the same for any number of ranks and parts.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gear import ranks

# Multipliers of murmur's finaliser, as int32: a product mixes low bits into high ones, a shift high ones into low ones.
# One product alone leaves pairs of rows with correlations of 0.4.
FIRST, SECOND = 0x85EBCA6B - (1 << 32), 0xC2B2AE35 - (1 << 32)


def uniform(n: int, device: torch.device) -> Float[Tensor, "n"]:
    """A number in [0, 1) for each of the n rows in hand."""
    first, total = ranks.rows(n)
    return torch.rand(total, device=device)[first : first + n]


class Dropout(nn.Module):
    """Each element is zeroed with probability p in training mode, the others are divided by 1 - p.

    The bits of element j of row i are key_i xor field_j, mixed: of one random int32 for each row of the whole batch,
    and one for each place within a row. It needs nothing of the rows that other ranks hold.
    """

    def __init__(self, p: float):
        super().__init__()
        self.p = p

    def forward(self, x: Float[Tensor, "B *shape"]) -> Float[Tensor, "B *shape"]:
        if not self.training or self.p == 0:
            return x
        mine, total = ranks.row_numbers(len(x), x.device)
        low, high = -(1 << 31), 1 << 31
        key = torch.randint(low, high, (total,), dtype=torch.int32, device=x.device)[mine]
        field = torch.randint(low, high, x.shape[1:], dtype=torch.int32, device=x.device)
        bits = (key.view(-1, *[1] * field.dim()) ^ field).mul_(FIRST)
        bits.bitwise_xor_(bits >> 15).mul_(SECOND)
        return x * (bits >= low + round(self.p * (high - low))) / (1 - self.p)

    def extra_repr(self) -> str:
        return f"p={self.p}"
