"""Captions as a generator reads them: single blanks, states of a frozen text encoder, which rows of them are text."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Prompts:
    """B captions of up to T tokens; the condition c of eq. 4 where it is text.

    states: of the text encoder, C channels. valid: which rows are text. Short captions are padded in front, by zeros,
    so that the last row, which predicts the first image token, is text; for released weights behind, by what the
    encoder says of padding.

    Rows are chosen as of a tensor: `prompts[2:4]`, `prompts[index]`.
    """

    states: Float[Tensor, "B T C"]
    valid: Bool[Tensor, "B T"]

    def __len__(self) -> int:
        return len(self.states)

    def __getitem__(self, rows: slice | Int[Tensor, "n"]) -> "Prompts":
        return Prompts(self.states[rows], self.valid[rows])

    def to(self, device: torch.device) -> "Prompts":
        return Prompts(self.states.to(device, non_blocking=True), self.valid.to(device, non_blocking=True))


def single_spaced(text: str) -> str:
    """Without blank space around it, and with one space for any in it: what a generator is trained on, and so what it
    must be asked for. Of such a text, itself."""
    return " ".join(text.split())
