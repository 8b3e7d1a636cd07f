"""A tokenizer's reconstructions as images to measure: each original with its reconstruction below it."""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor

from gear.commands.drawing import named
from gear.commands.models import called, folder, model, slug, weights_sha256
from gear.evaluate.images import ImageSource
from gear.evaluate.results import Model
from gear.run import Pair
from gear.train.batches import to_float, to_uint8


class Beside:
    """The images of `originals` and what the tokenizer of `pair` makes of them, on its device, as images of twice the
    height: nothing is decoded, encoded or read twice, and reconstructions are 8-bit images as they would be saved."""

    def __init__(self, pair: Pair, originals: ImageSource):
        self.pair, self.originals = pair, originals
        height, width = originals.resolution
        self.resolution: tuple[int, int] = (2 * height, width)

    def __len__(self) -> int:
        return len(self.originals)

    def about(self) -> dict[str, Any]:
        """The tokenizer by the SHA-256 of its numbers, and of what images these are reconstructions."""
        checkpoint = self.pair.checkpoint
        found = {"kind": "reconstructions", "path": str(checkpoint.path), "step": checkpoint.step, "n": len(self)}
        of = {name: value for name, value in self.originals.about().items() if name != "n"}
        return found | {"weights_sha256": self._weights, "of": of}

    @cached_property
    def _weights(self) -> str:
        return weights_sha256(self.pair.checkpoint, "tokenizer")

    @torch.no_grad()
    def batches(self, start: int, stop: int, size: int) -> Iterator[UInt8[Tensor, "b 3 HH W"]]:
        for pixels in self.originals.batches(start, stop, size):
            x = pixels.to(self.pair.on)
            x_hat = to_uint8(self.pair.tokenizer.decode(self.pair.tokenizer.encode(to_float(x))))
            yield torch.cat([x, x_hat], dim=2)

    def model(self) -> Model:
        """For results.json. params: of the tokenizer."""
        checkpoint = self.pair.checkpoint
        return model(checkpoint, called(checkpoint.path), self.pair.tokenizer)

    def folder(self, data: str, interpolation: str, **changed: Any) -> Path:
        """Where an evaluation goes by default. changed: as of `changed_from`."""
        checkpoint = self.pair.checkpoint
        step = f"step-{checkpoint.step}" if checkpoint.step else ""
        return folder(checkpoint) / named("reconstruction", (data,), slug(interpolation, step), **changed)
