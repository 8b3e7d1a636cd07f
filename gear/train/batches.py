"""The batches of a step, with their target features: of prepared images, of images decoded ahead, or of stored codes.

Batch `step` is a pure function of (seed, step), so resuming needs no state. Stored codes are drawn as the images that
they were made of, prepared or decoded, with the same crops, flips and captions in the same step
(`gear.data.order.draw`). Prepared images lie in another order than files, so a run on these sees others.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Float16, Int64, UInt8
from torch import Tensor

from gear.data import Images
from gear.data.mixture import Mixture
from gear.data.one_ahead import OneAhead
from gear.data.order import Draw, draw
from gear.data.shards import Shards
from gear.data.streaming import Stream, chosen
from gear.prompts import Prompts
from gear.step import Batch, Encoded
from gear.targets import Target
from gear.train.reader import Reader

REMEMBER = 1 << 30  # bytes of features kept in memory for images that come again unchanged
ROWS = 16  # images in one pass of a target
LARGEST = torch.finfo(torch.float16).max

Precision = Literal["float32", "bfloat16"]


class Features:
    """f(x) of a fixed set of images, each computed once if all of them fit into `REMEMBER` bytes, else at every
    step."""

    def __init__(
        self,
        target: Target,
        images: int,
        grid: tuple[int, int],
        device: torch.device,
        flip: bool,
        precision: Precision,
    ):
        self.target, self.grid, self.device = target, grid, device
        self.precision: Precision = precision
        slots, tokens = images * (2 if flip else 1), grid[0] * grid[1]  # as they are, and flipped
        fits = slots * tokens * target.channels * 2 <= REMEMBER
        self.kept = torch.zeros(slots, tokens, target.channels, dtype=torch.float16) if fits else None
        self.known = np.zeros(slots, dtype=bool)

    def __call__(self, pixels: UInt8[Tensor, "B 3 H W"], slots: np.ndarray) -> Float[Tensor, "B N C"]:
        if self.kept is None:
            return in_passes(self.target, pixels, self.grid, self.precision).float()
        new = np.flatnonzero(~self.known[slots])
        if len(new):
            self.kept[slots[new]] = in_passes(self.target, pixels[new], self.grid, self.precision).cpu()
            self.known[slots[new]] = True
        return self.kept[slots].to(self.device, non_blocking=True).float()


def in_passes(
    target: Target, pixels: UInt8[Tensor, "n 3 H W"], grid: tuple[int, int], precision: Precision
) -> Float16[Tensor, "n N C"]:
    """f(x) as every run has it, so that it is the same whether computed at each visit, remembered or stored.

    The network runs in `precision`, under autocast as in the release; the result is rounded to float16, since only its
    direction counts (eq. 5). Always `ROWS` images in a pass, the last one filled up: a network rounds differently for
    another number of rows, and which images come together differs between a run, its continuation and `gear encode`.
    """
    missing = -len(pixels) % ROWS
    full = torch.cat([pixels, pixels[-1:].expand(missing, -1, -1, -1)]) if missing else pixels
    with torch.autocast(pixels.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        passes = [_rounded(target.features(part, grid)) for part in full.split(ROWS)]
    return torch.cat(passes)[: len(pixels)]


def _rounded(f: Float[Tensor, "n N C"]) -> Float16[Tensor, "n N C"]:
    """A vector that float16 cannot hold is made shorter first, as those of one colour are where channels are normalised
    over an image."""
    f = f.float()
    return (f / (f.abs().amax(-1, keepdim=True) / LARGEST).clamp_min(1)).half()


class Batches:
    """`batches(step)` is the batch of that step, on the device; of images that were prepared."""

    def __init__(
        self,
        images: Images,
        features: Mapping[str, Features],
        size: int,
        seed: int,
        flip: bool,
        device: torch.device,
        reader: Reader | None = None,
    ):
        self.images, self.features, self.reader = images, features, reader
        self.size, self.seed, self.flip, self.device = size, seed, flip, device

    def __call__(self, step: int) -> Batch:
        drawn = draw(len(self.images), self.size, self.seed, step, flip=self.flip, mixture=self.images.mixture)
        pixels = torch.from_numpy(np.ascontiguousarray(self.images.pixels[drawn.index]))
        flipped = torch.from_numpy(drawn.flipped)[:, None, None, None]
        pixels = torch.where(flipped, pixels.flip(-1), pixels).to(self.device, non_blocking=True)
        slots = drawn.index + drawn.flipped * len(self.images)
        return Batch(
            x=to_float(pixels),
            c=self._condition(drawn),
            f={name: f(pixels, slots) for name, f in self.features.items()},
        )

    def _condition(self, drawn: Draw) -> Int64[Tensor, "B"] | Prompts:
        if self.reader is None:
            return torch.from_numpy(self.images.labels[drawn.index]).to(self.device, non_blocking=True)
        assert self.images.captions is not None
        return self.reader(chosen([self.images.captions[i] for i in drawn.index.tolist()], drawn.caption))


class Streamed:
    """The same of images that are decoded ahead, at each visit; features are computed at each visit, too."""

    def __init__(
        self,
        stream: Stream,
        targets: Sequence[Target],
        grid: tuple[int, int],
        device: torch.device,
        precision: Precision,
        reader: Reader | None = None,
    ):
        self.stream, self.targets, self.grid, self.device = stream, targets, grid, device
        self.precision: Precision = precision
        self.reader = reader

    @property
    def broken(self) -> dict[int, str]:
        """Index -> why, of the images found broken so far, and replaced."""
        return self.stream.broken

    def __call__(self, step: int) -> Batch:
        visit = self.stream(step)
        pixels = visit.pixels.to(self.device, non_blocking=True)
        f = {t.name: in_passes(t, pixels, self.grid, self.precision).float() for t in self.targets}
        if self.reader is None:
            c = visit.labels.to(self.device, non_blocking=True)
        else:
            c = self.reader(visit.captions or ())
        return Batch(to_float(pixels), c, f)


class Stored:
    """The same of tokens that `gear encode` stored, with features and captions that it stored too or, without them,
    those of `live`. What is stored is read one step ahead, and again where an image of it has been found broken since:
    in every row all three are of one image.

    `flip`: whether stored flipped images are drawn. `captions`: whether captions are the condition. `mixture`: of which
    sets the images are, if of several.
    """

    def __init__(
        self,
        shards: Shards,
        size: int,
        seed: int,
        flip: bool,
        targets: Collection[str],
        live: Callable[[int], Batch] | None,
        device: torch.device,
        captions: bool = False,
        mixture: Mixture | None = None,
    ):
        self.shards, self.size, self.seed, self.flip = shards, size, seed, flip
        self.targets, self.live, self.device = targets, live, device
        self.captions, self.mixture = captions, mixture
        # Index -> why, of the images that are replaced: those without codes, and what `live` finds, which adds to it.
        self.broken: dict[int, str] = getattr(live, "broken", {})
        self.broken.update(dict.fromkeys(sorted(shards.broken), "without codes"))
        self.ahead = OneAhead(self.read)
        self.known = len(self.broken)  # of them when the next batch was begun

    def __call__(self, step: int) -> Encoded:
        known, self.known = self.known, len(self.broken)
        stored, live = self.ahead(step), self.live(step) if self.live else None
        if known != len(self.broken):
            stored = self.read(step)
        if live is not None:
            return Encoded(self._moved(stored.q), live.c, live.f)
        c = stored.c.to(self.device) if isinstance(stored.c, Prompts) else self._moved(stored.c)
        return Encoded(self._moved(stored.q), c, {name: self._moved(f).float() for name, f in stored.f.items()})

    def _moved(self, t: Tensor) -> Tensor:
        return t.to(self.device, non_blocking=True)

    def read(self, step: int) -> Encoded:
        """What is stored of that step, in memory that the device reads."""
        shape, broken, pin = self.shards.shape, self.broken.copy(), self.device.type == "cuda"
        flip, mixture = self.flip, self.mixture
        d = draw(shape.images, self.size, self.seed, step, views=shape.views, flip=flip, broken=broken, mixture=mixture)
        captions = self.captions and self.live is None
        return Encoded(
            q=self.shards.codes(d.index, d.view, d.flipped, pin),
            c=self.shards.texts(d.index, d.caption) if captions else torch.from_numpy(self.shards.labels[d.index]),
            f={name: self.shards.features(name, d.index, d.view, d.flipped, pin) for name in self.targets},
        )


def to_float(pixels: UInt8[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
    """uint8 to [-1, 1]."""
    return pixels.float() / 127.5 - 1


def to_uint8(x: Float[Tensor, "B 3 H W"]) -> UInt8[Tensor, "B 3 H W"]:
    """[-1, 1] to uint8, clamped and rounded."""
    return (x.clamp(-1, 1) * 127.5 + 127.5).round().to(torch.uint8)
