"""Sets of images too large to be kept as pixels: decoded at each visit, ahead of the step that needs them.

ImageNet at 256 px would be 252 GB. `Stream` gives training its batches, `in_order` gives every image once.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64, UInt8
from torch import Tensor

from gear.data import captions, decode
from gear.data.ahead import Ahead, Decoder, Request
from gear.data.crop import Cropping
from gear.data.folder import Listing
from gear.data.images import DataError
from gear.data.order import Draw, draw

HOPELESS = 16  # so many broken images and no other in one step, or in a row: rather a disk that is gone
LOST = (decode.UNREADABLE, captions.UNREADABLE)  # why, where it is

log = logging.getLogger("gear")


@dataclass(frozen=True, eq=False)
class Visit:
    """The images of one step, as they are seen this time."""

    pixels: UInt8[Tensor, "B 3 R R"]  # flipped where `draw` says so
    labels: Int64[Tensor, "B"]
    draw: Draw
    captions: tuple[str, ...] | None = None  # of each image the one that `draw.caption` chooses


class Stream:
    """`stream(step)` is the `Visit` of that step: its images, crops and flips are a function of (seed, step) alone.

    Consecutive steps are decoded ahead by `workers` processes; any other step starts there anew, so that resuming needs
    no state. A broken image is replaced as `draw` says, named once in the log, and counted in `broken`. Raises
    `DataError` where there is nothing else.
    """

    def __init__(
        self,
        listing: Listing,
        cropping: Cropping,
        batch: int,
        seed: int,
        *,
        flip: bool,
        workers: int,
        pin: bool = False,
    ):
        if not len(listing):
            raise DataError(f"{listing.folder} has no images to train on.")
        self.plan = _Plan(listing, cropping, batch, seed, flip)
        self.ahead = Ahead(Decoder(cropping.resolution, cropping.interpolation), self.plan.request, workers, pin)

    @property
    def broken(self) -> dict[int, str]:
        """Index in the listing -> why, of the images found broken so far."""
        return self.plan.broken

    def __call__(self, step: int) -> Visit:
        decoded = self.ahead(step)
        pixels, index, texts = decoded.pixels, decoded.index.copy(), decoded.captions
        if len(decoded.broken) == len(np.unique(index)) >= HOPELESS:
            name, reason = self.plan.listing.names[index[0]], decoded.broken[int(index[0])]
            raise DataError(
                f"None of the {len(index)} images of step {step} could be used, {name} and the others ({reason}): is "
                f"{self.plan.listing.folder} still there?"
            )
        while True:
            self._note(decoded.broken)
            drawn = self.plan.draw(step)
            rows = np.flatnonzero(drawn.index != index)  # were drawn before their image was known to be broken
            if not len(rows):
                labels = torch.from_numpy(self.plan.listing.labels[drawn.index])
                return Visit(pixels[:, 0], labels, drawn, None if texts is None else chosen(texts, drawn.caption))
            decoded = self.ahead.decoder[self.plan.rows(drawn, rows)]
            pixels[rows], index[rows] = decoded.pixels, decoded.index
            for row, several in zip(rows.tolist(), decoded.captions or (), strict=False):
                assert texts is not None
                texts[row] = several

    def close(self) -> None:
        """Ends the processes; for a program that goes on without the stream."""
        self.ahead.close()

    def _note(self, found: dict[int, str]) -> None:
        for i, reason in found.items():
            if i not in self.broken:
                self.broken[i] = reason
                log.warning("Left out of training: %s (%s).", self.plan.listing.names[i], reason)


class _Plan:
    """What the stream asks of its processes. Holds no reference to it, so that they end with the stream."""

    def __init__(self, listing: Listing, cropping: Cropping, batch: int, seed: int, flip: bool):
        self.listing, self.cropping, self.batch, self.seed, self.flip = listing, cropping, batch, seed, flip
        self.broken: dict[int, str] = {}

    def draw(self, step: int) -> Draw:
        return draw(
            len(self.listing),
            self.batch,
            self.seed,
            step,
            views=self.cropping.fixed,
            flip=self.flip,
            broken=self.broken,
            mixture=self.listing.mixture,
        )

    def request(self, step: int) -> Request:
        drawn = self.draw(step)
        return self.rows(drawn, np.arange(len(drawn.index)))

    def rows(self, drawn: Draw, rows: Int64[np.ndarray, "n"]) -> Request:
        index, c = drawn.index[rows], self.cropping
        if c.crop == "center":
            places = None
        elif c.views is None:
            places = drawn.place[rows, None]
        else:
            images: list[int] = index.tolist()
            views = zip(images, drawn.view[rows].tolist(), strict=True)
            places = np.array([[c.place(self.listing.names[i], view)] for i, view in views])
        return _request(self.listing, index, places, drawn.flipped[rows])


@dataclass(frozen=True, eq=False)
class Block:
    """Some images of a listing with all their squares."""

    index: Int64[np.ndarray, "n"]  # in the listing, one after the other
    pixels: UInt8[Tensor, "n V 3 R R"]  # zero for broken images
    labels: Int64[Tensor, "n"]  # -1 for broken images
    captions: tuple[tuple[str, ...], ...] | None = None  # all of each image; none of broken ones


def in_order(
    listing: Listing, cropping: Cropping, images: int, *, workers: int, rows: range | None = None
) -> Iterator[Block]:
    """All images, or those of `rows`, once, in blocks of `images`; each is decoded once for all its V squares.

    Broken ones are named in the log. Raises `DataError` where `HOPELESS` in a row, or more, cannot be read; the block
    of the first one is not given then. Raises ValueError for crops that are fresh at each visit: there is no end of
    them.
    """
    if cropping.fixed is None:
        raise ValueError('a pass over all images needs the middle or fixed crops; crop is "random" and views None.')
    rows = range(len(listing)) if rows is None else rows
    blocks = [rows[i : i + images] for i in range(0, len(rows), images)]

    def request(step: int) -> Request:
        index = np.array(blocks[step], dtype=np.int64)
        places = None
        if cropping.views is not None:
            views = range(cropping.views)
            places = np.array([[cropping.place(listing.names[i], view) for view in views] for i in blocks[step]])
        return _request(listing, index, places, np.zeros(len(index), dtype=bool))

    ahead = Ahead(Decoder(cropping.resolution, cropping.interpolation), request, workers, stop=len(blocks))
    lost: list[int] = []  # in a row, up to here
    waiting: list[Block] = []  # those that they are in
    try:
        for step in range(len(blocks)):
            decoded = ahead(step)
            labels = listing.labels[decoded.index]
            for i, reason in decoded.broken.items():
                log.warning("Left out: %s (%s).", listing.names[i], reason)
                labels[decoded.index == i] = -1
            found = [i for i in decoded.index.tolist() if decoded.broken.get(i) not in LOST]
            if found:
                yield from waiting
                waiting.clear()
                lost.clear()
            lost += [i for i in decoded.index.tolist() if not found or i > found[-1]]
            if not found and len(lost) >= HOPELESS:
                raise DataError(
                    f"The last {len(lost)} images, from {listing.names[lost[0]]} on, could not be read "
                    f"({decoded.broken[lost[-1]]}): is {listing.folder} still there? Once they can be read, the same "
                    "command goes on."
                )
            texts = None if decoded.captions is None else tuple(decoded.captions)
            waiting.append(Block(decoded.index, decoded.pixels, torch.from_numpy(labels), texts))
            if not lost:
                yield waiting.pop()
        yield from waiting
    finally:
        ahead.close()


def chosen(captions: Sequence[tuple[str, ...]], u: Float64[np.ndarray, "n"]) -> tuple[str, ...]:
    """Of each image's captions the one that u, uniform in [0, 1), falls on."""
    return tuple(several[int(at * len(several))] for several, at in zip(captions, u.tolist(), strict=True))


def _request(
    listing: Listing,
    index: Int64[np.ndarray, "n"],
    places: Float64[np.ndarray, "n V 2"] | None,
    flipped: Bool[np.ndarray, "n"],
) -> Request:
    images = index.tolist()
    texts = None if listing.captions is None else [listing.captions[i] for i in images]
    return Request(index, [listing.file(i) for i in images], places, flipped, texts)
