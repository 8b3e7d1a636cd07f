"""The processes that share a batch, and which rows of it are in hand.

Rank r of W holds rows r B / W to (r + 1) B / W - 1 of a step's batch of B, and takes them in k parts, one after the
other, where gradients are accumulated. Whatever is drawn at random for an image is drawn for its row of the whole batch
(`gear.noise`), and whatever is a statistic of the batch is one of all ranks: losses and weights are therefore the same
for any W, up to the order of summation. Without `torch.distributed` there is one rank.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from jaxtyping import Float, Int
from torch import Tensor

# Not context variables: backward passes on a GPU run in a thread of their own.
_index, _of = 0, 1
_number = np.zeros((), np.int64)  # _index again, for compiled code; numpy's, since torch may be counting in `gear.plan`
_in_hand = torch.from_numpy(_number)


def rank() -> int:
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def size() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def part() -> tuple[int, int]:
    """(i, k): part i of k of this rank's rows is in hand; (0, 1) without accumulation."""
    return _index, _of


@contextmanager
def in_part(index: int, of: int) -> Iterator[None]:
    """Within the block, part `index` of `of` is in hand."""
    global _index, _of
    before, (_index, _of) = (_index, _of), (index, of)
    _number[()] = _index
    try:
        yield
    finally:
        _index, _of = before
        _number[()] = _index


def rows(n: int) -> tuple[int, int]:
    """(first, B): the n rows in hand are first to first + n - 1 of the B rows of the whole batch."""
    return (rank() * _of + _index) * n, n * _of * size()


def row_numbers(n: int, device: torch.device) -> tuple[Int[Tensor, "n"], int]:
    """The same numbers, one by one, and B, for a compiled layer: made for every part anew it would reach the limit of
    graphs at the eighth, and be interpreted from then on. A tensor's value is no part of a graph."""
    index = _in_hand if torch.compiler.is_compiling() else _index
    first = (rank() * _of + index) * n
    return first + torch.arange(n, device=device), n * _of * size()


def share(batch: int) -> slice:
    """The rows of a whole batch that are this rank's."""
    each = batch // size()
    return slice(rank() * each, (rank() + 1) * each)


def mean(p: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The mean of p over all ranks in value, with the gradient of the local p.

    DDP averages the ranks' gradients, and d f(mean_r p_r) = f'(mean) mean_r dp_r, so this is the exact global gradient
    of a function f that every rank computes alike.
    """
    if size() == 1:
        return p
    total = p.detach().clone()
    dist.all_reduce(total)
    return p + (total / size() - p).detach()


def gathered(t: Float[Tensor, "*shape"]) -> Float[Tensor, "W *shape"]:
    """The t of every rank, in their order, with the exact gradient: what a rank does with the t of another one counts
    in the other one's gradient. For small tensors, of one shape."""
    return t[None] if size() == 1 else _Gathered.apply(t)


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, t: Tensor) -> Tensor:
        every = t.new_zeros(size(), *t.shape)
        every[rank()] = t
        dist.all_reduce(every)  # and not all_gather: one call for every backend, on tensors of some hundred numbers
        return every

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        grad = grad.contiguous().clone()
        dist.all_reduce(grad)
        return grad[rank()]
