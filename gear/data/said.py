"""One caption of each image, for what is seen of a run: the seed chooses where there are several."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64

from gear.data.captions import read
from gear.data.decode import Skip
from gear.data.images import Images, position
from gear.data.listing import Listing


def said(part: Images | Listing, rows: Sequence[int] | Int64[np.ndarray, "n"], seed: int) -> list[str | None]:
    """A caption of each of these images, which its name and `seed` alone choose; None where none can be read. Of a
    listing, those of these images are read and no others."""
    return [_one(part, int(i), position(f"{seed} {part.names[int(i)]}")) for i in rows]


def first_said(
    part: Images | Listing, order: Sequence[int] | Int64[np.ndarray, "n"], n: int, seed: int
) -> tuple[str, ...]:
    """`n` captions: of the first images in `order` that have one, over again where there are too few; none of none."""
    found: list[str] = []
    for i in order:
        if len(found) == n:
            break
        found += [caption for caption in said(part, [int(i)], seed) if caption is not None]
    return tuple(found[i % len(found)] for i in range(n)) if found else ()


def _one(part: Images | Listing, i: int, u: float) -> str | None:
    """The caption at the place u in [0, 1)."""
    if part.captions is None:
        return None
    try:
        texts = read(part.captions[i])
    except Skip:
        return None
    return texts[int(u * len(texts))]
