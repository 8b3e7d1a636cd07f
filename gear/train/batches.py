"""From prepared images to the batches of a step, with their target features.

Batch `step` is a pure function of (seed, step), so resuming needs no state.
"""

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from gear.data import Images, batch_indices
from gear.step import Batch
from gear.targets import Target

REMEMBER = 1 << 30  # bytes of features kept in memory for images that come again unchanged
ROWS = 16  # images in one pass of the target when they are remembered


class Features:
    """f(x) of a fixed set of images, each computed once if all of them fit into `REMEMBER` bytes (as float16: only
    their direction counts, eq. 5), else at every step."""

    def __init__(self, target: Target, images: int, grid: tuple[int, int], device: torch.device, flip: bool):
        self.target, self.grid, self.device = target, grid, device
        slots, tokens = images * (2 if flip else 1), grid[0] * grid[1]  # as they are, and flipped
        fits = slots * tokens * target.channels * 2 <= REMEMBER
        self.kept = torch.zeros(slots, tokens, target.channels, dtype=torch.float16) if fits else None
        self.known = np.zeros(slots, dtype=bool)

    def __call__(self, pixels: UInt8[Tensor, "B 3 H W"], slots: np.ndarray) -> Float[Tensor, "B N C"]:
        if self.kept is None:
            return self.target.features(pixels, self.grid)
        new = np.flatnonzero(~self.known[slots])
        if len(new):
            self.kept[slots[new]] = self._in_passes(pixels[new]).half().cpu()
            self.known[slots[new]] = True
        return self.kept[slots].to(self.device).float()

    def _in_passes(self, pixels: UInt8[Tensor, "n 3 H W"]) -> Float[Tensor, "n N C"]:
        """Always `ROWS` images in a pass, the last one filled up: a network rounds differently for another number of
        rows, and which images are new together differs between a run and its continuation."""
        rows = torch.from_numpy(np.resize(np.arange(len(pixels)), -(-len(pixels) // ROWS) * ROWS))
        return torch.cat([self.target.features(pixels[part], self.grid) for part in rows.split(ROWS)])[: len(pixels)]


class Batches:
    """`batches(step)` is the batch of that step, on the device."""

    def __init__(
        self, images: Images, features: Mapping[str, Features], size: int, seed: int, flip: bool, device: torch.device
    ):
        self.images, self.features = images, features
        self.size, self.seed, self.flip, self.device = size, seed, flip, device

    def __call__(self, step: int) -> Batch:
        index = batch_indices(len(self.images), self.size, self.seed, step)
        flipped = np.random.default_rng((self.seed, step, 1)).random(len(index)) < 0.5 * self.flip
        pixels = torch.from_numpy(np.ascontiguousarray(self.images.pixels[index]))
        pixels = torch.where(torch.from_numpy(flipped)[:, None, None, None], pixels.flip(-1), pixels).to(self.device)
        slots = index + flipped * len(self.images)
        return Batch(
            x=to_float(pixels),
            c=torch.from_numpy(self.images.labels[index]).to(self.device),
            f={name: f(pixels, slots) for name, f in self.features.items()},
        )


def to_float(pixels: UInt8[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
    """uint8 to [-1, 1]."""
    return pixels.float() / 127.5 - 1


def to_uint8(x: Float[Tensor, "B 3 H W"]) -> UInt8[Tensor, "B 3 H W"]:
    """[-1, 1] to uint8, clamped and rounded."""
    return (x.clamp(-1, 1) * 127.5 + 127.5).round().to(torch.uint8)
