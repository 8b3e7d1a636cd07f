"""Pixels of drawn tokens: what a pass of `generate` has finished is decoded while the next one is drawn."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from gear.run import Pair
from gear.train.batches import to_uint8

GPU_ROWS = 32  # images decoded in one pass; on a CPU one, so that none is wasted


def decode_tokens(pair: Pair, q: Int[Tensor, "n N"]) -> UInt8[Tensor, "n 3 H W"]:
    """Pixels of drawn tokens, on the device, of the pair's size. Equally many images in every pass, the last one filled
    up: a network rounds differently for another number of rows, and an image must not depend on those that come with
    it."""
    rows = 1 if pair.on.type == "cpu" else GPU_ROWS
    full = torch.cat([q, q[-1:].expand(-len(q) % rows, -1)])
    parts = (resized(pair.tokenizer.decode(part), pair.resize) for part in full.split(rows))
    return torch.cat([to_uint8(part) for part in parts])[: len(q)]


def resized(x: Float[Tensor, "n 3 H W"], side: int | None) -> Float[Tensor, "n 3 h w"]:
    """To `side` x `side` px before anything is rounded; None: as they are.

    Bicubic without antialias, by which LlamaGen and GEAR's release bring samples of 384 and 512 px to 256: other pixels
    than an antialiased resize of the saved image gives, and another gFID (Table 13).
    """
    return x if side is None else F.interpolate(x, (side, side), mode="bicubic", antialias=False)


def unusual_size(pair: Pair) -> dict[str, int]:
    """For what is said of images that were brought to another size."""
    return {} if pair.resize is None else {"resize": pair.resize}


class Painting:
    """n images that come to be pass by pass, as `generate(..., finished=painting)`; nothing but their bytes is kept,
    once.

    On CUDA a stream of its own decodes and copies to pinned memory while the next pass is drawn (not yet run on one);
    on a CPU one comes after the other. The pixels are those of `decode_tokens` of all the tokens.
    """

    def __init__(self, pair: Pair, n: int):
        self.pair, self.n = pair, n
        self.finished = 0
        self.whole: Tensor | None = None
        self.under_way: tuple[list[int], Tensor] | None = None  # of the last pass
        self.stream = torch.cuda.Stream(pair.on) if pair.on.type == "cuda" else None

    def __call__(self, indices: list[int], tokens: Int[Tensor, "b N"]) -> None:
        if self.stream is None:
            self._keep(indices, decode_tokens(self.pair, tokens))
            return
        self._land()
        self.stream.wait_stream(torch.cuda.current_stream(self.pair.on))
        with torch.cuda.stream(self.stream):
            tokens.record_stream(self.stream)
            pixels = decode_tokens(self.pair, tokens)
            held = torch.empty(pixels.shape, dtype=pixels.dtype, pin_memory=True)
            self.under_way = indices, held.copy_(pixels, non_blocking=True)

    def images(self) -> UInt8[Tensor, "n 3 H W"]:
        """All of them, on the CPU. Raises ValueError where a pass is missing."""
        self._land()
        if self.whole is None or self.finished != self.n:
            raise ValueError(f"{self.n} images were asked for, and {self.finished} are finished.")
        return self.whole

    def _keep(self, indices: list[int], pixels: UInt8[Tensor, "b 3 H W"]) -> None:
        if self.whole is None:
            self.whole = torch.empty(self.n, *pixels.shape[1:], dtype=pixels.dtype)
        self.whole[indices] = pixels
        self.finished += len(indices)

    def _land(self) -> None:
        """The stream had all of the next pass's time for it, so that this hardly waits."""
        if self.stream is not None and self.under_way is not None:
            self.stream.synchronize()
            self._keep(*self.under_way)
            self.under_way = None
