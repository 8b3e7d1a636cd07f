"""What no run of gear does, for the arms that ask what it would cost."""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gear.assignment import Assignment, Posterior


class RoundedAssignment(Assignment):
    """An assignment whose entries are rounded to bfloat16, as the released joint training has them (PAPER.md, M11).
    It holds the N x K matrix: for small codebooks."""

    def dense(self) -> Float[Tensor, "*N K"]:
        A = super().dense()
        return A + (A.bfloat16().to(A.dtype) - A).detach()  # rounded in value; the gradient is that of A

    @torch.no_grad()
    def hard(self) -> Int[Tensor, "*N"]:
        return self.dense().argmax(-1)

    def soft(self, E: Float[Tensor, "K D"], tau: float) -> Float[Tensor, "*N D"]:
        return (self.dense() / tau).softmax(-1) @ E

    def posterior(self, temperature: float) -> Posterior:
        logp = (self.dense() / temperature).log_softmax(-1)
        return Posterior(-(logp.exp() * logp).sum(-1), logp.exp().flatten(0, -2).mean(0))


@contextmanager
def rounded_assignment() -> Iterator[None]:
    """Within the block VQ and IBQ assign in bfloat16."""
    with patch("gear.tokenizer.quantizers.Assignment", RoundedAssignment):
        yield
