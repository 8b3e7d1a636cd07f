"""Captions of a batch as a generator reads them, each encoded once where all of them can be kept."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Float16
from torch import Tensor

from gear.prompts import Prompts
from gear.text import TextEncoder

REMEMBER = 1 << 30  # bytes of states kept in memory


class Reader:
    """`reader(texts)` gives their `Prompts`, on the encoder's device.

    captions: how many different ones there are at most. Each is then encoded once, if their states fit into `REMEMBER`
    bytes; None: nobody knows, and each is encoded whenever it comes. Kept or not, states are the same, since an encoder
    reads every caption as if alone.
    """

    def __init__(self, encoder: TextEncoder, captions: int | None):
        self.encoder = encoder
        row = encoder.tokens * encoder.width * 2
        fits = captions is not None and captions * row <= REMEMBER
        # Memory that nothing is written to is not taken.
        self.kept: Float16[Tensor, "M T C"] | None = None
        if fits:
            self.kept = torch.empty(captions or 0, encoder.tokens, encoder.width, dtype=torch.float16)
            self.valid = torch.zeros(captions or 0, encoder.tokens, dtype=torch.bool)
        self.slots: dict[str, int] = {}

    @property
    def null(self) -> Float[Tensor, "1 C"]:
        """The unconditional input, which a generator keeps."""
        return self.encoder.null()

    def __call__(self, texts: Sequence[str]) -> Prompts:
        if self.kept is None:
            return self.encoder(texts)
        new = [text for text in dict.fromkeys(texts) if text not in self.slots]
        if new and len(self.slots) + len(new) > len(self.kept):  # others than it was told of, as a user's prompts
            return self.encoder(texts)
        if new:
            read, first = self.encoder(new), len(self.slots)
            self.kept[first : first + len(new)] = read.states.cpu()
            self.valid[first : first + len(new)] = read.valid.cpu()
            self.slots |= {text: first + i for i, text in enumerate(new)}
        rows = torch.tensor([self.slots[text] for text in texts])
        return Prompts(self.kept[rows], self.valid[rows]).to(self.encoder.null().device)
