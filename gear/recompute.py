"""Activation checkpointing: a block that keeps its input, and computes the rest again in the backward pass."""

from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


class Recomputable(nn.Module):
    """A module of some activations to which `recompute` may be set (Chen et al. 2016). The gradients are the same bits;
    random numbers are drawn again as they were."""

    recompute = False

    def __call__(self, *args: Any) -> Any:
        if self.recompute and torch.is_grad_enabled():
            return checkpoint(super().__call__, *args, use_reentrant=False)
        return super().__call__(*args)


def recompute(module: nn.Module, on: bool = True) -> None:
    """Switches every `Recomputable` in `module`."""
    for part in module.modules():
        if isinstance(part, Recomputable):
            part.recompute = on
