"""Pixels of drawn tokens: what a pass of `generate` has finished is decoded while the next one is drawn."""

import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from gear.run import Pair
from gear.train.batches import to_uint8

GPU_ROWS = 32  # images decoded in one pass; on a CPU one, so that none is wasted


def decode_tokens(pair: Pair, q: Int[Tensor, "n N"]) -> UInt8[Tensor, "n 3 H W"]:
    """Pixels of drawn tokens, on the device. Equally many images in every pass, the last one filled up: a network
    rounds differently for another number of rows, and an image must not depend on those that come with it."""
    rows = 1 if pair.on.type == "cpu" else GPU_ROWS
    full = torch.cat([q, q[-1:].expand(-len(q) % rows, -1)])
    return torch.cat([to_uint8(pair.tokenizer.decode(part)) for part in full.split(rows)])[: len(q)]


class Painting:
    """n images that come to be pass by pass, as `generate(..., finished=painting)`; of a pass only bytes are kept.

    On CUDA a stream of its own decodes and copies to pinned memory while the next pass is drawn (not yet run on one);
    on a CPU one comes after the other. The pixels are those of `decode_tokens` of all the tokens.
    """

    def __init__(self, pair: Pair, n: int):
        self.pair, self.n = pair, n
        self.parts: list[tuple[list[int], Tensor]] = []
        self.stream = torch.cuda.Stream(pair.on) if pair.on.type == "cuda" else None

    def __call__(self, indices: list[int], tokens: Int[Tensor, "b N"]) -> None:
        if self.stream is None:
            self.parts.append((indices, decode_tokens(self.pair, tokens)))
            return
        self.stream.wait_stream(torch.cuda.current_stream(self.pair.on))
        with torch.cuda.stream(self.stream):
            tokens.record_stream(self.stream)
            pixels = decode_tokens(self.pair, tokens)
            held = torch.empty(pixels.shape, dtype=pixels.dtype, pin_memory=True)
            self.parts.append((indices, held.copy_(pixels, non_blocking=True)))

    def images(self) -> UInt8[Tensor, "n 3 H W"]:
        """All of them, on the CPU. Raises ValueError where a pass is missing."""
        if self.stream is not None:
            self.stream.synchronize()
        there = torch.tensor([index for indices, _ in self.parts for index in indices])
        if len(there) != self.n:
            raise ValueError(f"{self.n} images were asked for, and {len(there)} are finished.")
        return torch.cat([pixels.cpu() for _, pixels in self.parts])[there.argsort()]
