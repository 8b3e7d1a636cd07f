"""What is made of many images while a run trains, a block at a time.

**Any number of ranks, the same numbers.** Images go through the networks in blocks of `BLOCK`, a block whole on one
rank, the ranks taking turns, since a network rounds differently for another number of rows; `generate` fills its lanes
with them, too. A rank that has none left repeats the last one, so that all ranks call each network equally often: one
that is spread over them needs that.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Bool, Float, UInt8
from rich.progress import Progress
from torch import Tensor
from torch.nn import functional as F

from gear import ranks
from gear.evaluate.frechet import Gaussian, gaussian
from gear.generator.sampling import LANES
from gear.tokenizer.tokenizer import Tokenizer
from gear.train.batches import to_float, to_uint8

BLOCK = LANES  # images; on a GPU more would be faster, but would have to find room beside a training run


def split(n: int) -> list[range]:
    """0 .. n - 1 in blocks; only the last may be short."""
    return [range(i, min(i + BLOCK, n)) for i in range(0, n, BLOCK)]


def in_turns(
    n: int, work: Callable[[list[range]], Iterator[Float[Tensor, "_ D"]]], title: str, shown: Progress | None
) -> Float[Tensor, "m D"]:
    """The rows that `work` makes of images 0 .. n - 1, in their order and on the CPU, on every rank; m < n where some
    are `marked`. `work` is given the blocks of one rank and yields the rows of each."""
    blocks, made = split(n), []
    turns = -(-len(blocks) // ranks.size())
    mine = [blocks[min(turn * ranks.size() + ranks.rank(), len(blocks) - 1)] for turn in range(turns)]
    with row(shown, title) as bar:
        for rows in work(mine):
            made.append(F.pad(rows, (0, 0, 0, BLOCK - len(rows))))
            bar(len(made), turns)
    own = torch.stack(made)
    every = ranks.gathered(own) if ranks.size() > 1 else own[None]
    rows = every.transpose(0, 1).flatten(0, 2)[:n].cpu()
    return rows[~rows.isnan().any(1)]


def marked(rows: Float[Tensor, "b D"], whole: Bool[Tensor, "b"]) -> Float[Tensor, "b D"]:
    """Not numbers for images that could not be opened: the one thing that finite pixels never give."""
    return rows.masked_fill(~whole[:, None], torch.nan)


def fitted(features: Float[Tensor, "n C"]) -> Gaussian | None:
    """None of fewer than two images, which have no covariance."""
    return gaussian(features) if len(features) > 1 else None


def rebuilt(tokenizer: Tokenizer, pixels: UInt8[Tensor, "b 3 R R"]) -> UInt8[Tensor, "b 3 R R"]:
    """Encoded and decoded."""
    return to_uint8(tokenizer.decode(tokenizer.encode(to_float(pixels))))


@contextmanager
def row(shown: Progress | None, title: str) -> Iterator[Callable[[int, int], None]]:
    """Gives what is to be called with (done, in all); a row of a live display, which is gone afterwards."""
    if shown is None or ranks.rank():
        yield lambda done, total: None
        return
    task = shown.add_task(title, total=None, note="")
    try:
        yield lambda done, total: shown.update(task, completed=done, total=total)
    finally:
        shown.remove_task(task)
