"""A frozen text encoder: captions in, `Prompts` out."""

import re
from collections.abc import Sequence
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Float16, Int64
from torch import Tensor, nn

from gear.config import Text
from gear.prompts import Prompts, single_spaced
from gear.text.files import TextError, place, tokenizer
from gear.text.network import network

ROWS = 16  # captions in one pass
LARGEST = torch.finfo(torch.float16).max
CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f]")  # but white space
LONE = re.compile("[\ud800-\udfff]")  # halves of a character, which no text may hold alone

Precision = Literal["float32", "bfloat16"]


class TextEncoder(nn.Module):
    """Captions to states of a language model after its last norm, which is frozen; raw, without a chat template.

    name: as given. tokens: T, rows of a caption; a longer one is cut, its special tokens kept. width: C, channels of a
    state.

    A caption's states are the same whichever captions come with it: a network rounds differently for another number or
    length of rows. On a GPU it therefore always reads `ROWS` captions of T tokens, filled up; on a CPU each caption by
    itself, which is as fast there and has no padding to compute. Padding lies behind the text meanwhile, where
    positions are as in training, and is moved in front of it afterwards.
    """

    def __init__(self, text: Text, net: nn.Module, tokenizer: Any):
        super().__init__()
        self.name, self.tokens, self.padding = text.encoder, text.tokens, text.padding
        self.net, self.tokenizer = net, tokenizer
        config: Any = net.config
        self.width: int = config.hidden_size
        self._nothing: list[int] = self._ids([""])[0]  # special tokens alone; none of some decoders
        self.together: bool | None = None  # whether captions share a pass; None: on a GPU
        self._instead = self._nothing or [tokenizer.eos_token_id]
        fill = (tokenizer.pad_token_id, tokenizer.eos_token_id, 0)  # never seen by the text: any token does
        self._fill: int = next(token for token in fill if token is not None)
        self._null: Float[Tensor, "1 C"] | None = None

    def train(self, mode: bool = True) -> "TextEncoder":
        """Stays in evaluation mode."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, texts: Sequence[str]) -> Prompts:
        """States in float16 on the encoder's device; zero where there is padding in front.

        A caption without a word is the unconditional input: the one row of `null`, or no row where padding lies behind.
        Raises `TextError` if a state is not finite.
        """
        ids = self._ids(texts)
        empty = [i for i, text in enumerate(texts) if not cleaned(text).strip() or ids[i] == self._nothing]
        for i in empty:
            ids[i] = self._instead
        states, valid = self._encoded(ids)
        if bad := (~states.isfinite().flatten(1).all(1)).nonzero().flatten().tolist():
            raise TextError(
                f"The text encoder {self.name} gives states that are not finite for the caption "
                f"{texts[bad[0]][:80]!r}: choose another encoder, or bring its weights again."
            )
        if empty:
            states[empty], valid[empty] = 0, False
            if self.padding == "left":
                states[empty, -1], valid[empty, -1] = self.null().half(), True
        return Prompts(states, valid)

    @torch.no_grad()
    def null(self) -> Float[Tensor, "1 C"]:
        """The unconditional input, in float32: the last state of the empty text, which is special tokens alone, or that
        for the end of a text where a tokenizer has no others. Zero where padding lies behind, as in released weights,
        which see no row of it."""
        if self.padding == "right":
            return torch.zeros(1, self.width, device=self._device)
        if self._null is None:
            last = self._encoded([self._instead])[0][0, -1:].float()
            if not last.isfinite().all():
                raise TextError(f"The text encoder {self.name} gives no finite state for the empty text.")
            self._null = last
        return self._null.to(self._device)

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """The tokens that each caption has, special ones included, before it is cut to `tokens`."""
        return [len(ids) for ids in self._ids(texts, cut=False)]

    def known(self, texts: Sequence[str]) -> list[int]:
        """Of the tokens that each caption has once it is cut, how many say something: neither special ones, such as
        [UNK] for what the tokenizer does not know, nor blanks. With tokens of bytes nothing is unknown."""
        read = self._ids(texts)
        mute = {*self.tokenizer.all_special_ids, *self._nothing}
        mute |= {i for i in set().union(*read) - mute if not self.tokenizer.decode([i]).strip()}
        return [sum(i not in mute for i in ids) for ids in read]

    @property
    def _device(self) -> torch.device:
        return next(self.net.parameters()).device

    def _ids(self, texts: Sequence[str], cut: bool = True) -> list[list[int]]:
        if not texts:
            return []
        options = {"truncation": True, "max_length": self.tokens} if cut else {}
        return self.tokenizer([cleaned(text) for text in texts], verbose=False, **options)["input_ids"]

    def _encoded(self, ids: Sequence[list[int]]) -> tuple[Float16[Tensor, "B T C"], Bool[Tensor, "B T"]]:
        """States, padded as `padding` says. In front, padding is zero; behind, it is what the network says there, as in
        the release, which predicts the first image token from the last row of it."""
        column = torch.arange(self.tokens, device=self._device)
        counts = torch.tensor([len(row) for row in ids], dtype=torch.int64, device=self._device)[:, None]
        filled = [row + [self._fill] * (self.tokens - len(row)) for row in ids]
        tokens = torch.tensor(filled, dtype=torch.int64, device=self._device).view(-1, self.tokens)
        valid = column < counts
        states = torch.zeros(len(ids), self.tokens, self.width, dtype=torch.float16, device=self._device)
        together = self._device.type != "cpu" if self.together is None else self.together
        if together or self.padding == "right":
            for i in range(0, len(ids), ROWS):
                states[i : i + ROWS] = self._pass(tokens[i : i + ROWS], valid[i : i + ROWS])
        else:
            for i, size in enumerate(map(len, ids)):
                states[i, :size] = self._read(tokens[i : i + 1, :size], valid[i : i + 1, :size])[0]
        if self.padding == "right":
            return states, valid
        states = torch.where(valid[..., None], states, 0)
        source = (column + counts) % self.tokens  # of each row once the text is moved behind its padding
        return states.take_along_dim(source[..., None], 1), valid.take_along_dim(source, 1)

    def _pass(self, tokens: Int64[Tensor, "n T"], valid: Bool[Tensor, "n T"]) -> Float16[Tensor, "n T C"]:
        """Up to `ROWS` captions, filled up with the last one."""
        rows = torch.arange(ROWS, device=tokens.device).clamp(max=len(tokens) - 1)
        return self._read(tokens[rows], valid[rows])[: len(tokens)]

    def _read(self, tokens: Int64[Tensor, "n t"], valid: Bool[Tensor, "n t"]) -> Float16[Tensor, "n t C"]:
        with torch.autocast(tokens.device.type, enabled=False):  # the weights have the precision of the run
            read = self.net(input_ids=tokens, attention_mask=valid.long()).last_hidden_state.float()
        return torch.where(read.isfinite(), read.clamp(-LARGEST, LARGEST), read).half()  # an infinity stays one


def load(text: Text, on: torch.device, precision: Precision) -> TextEncoder:
    """The encoder that `text` names, on a device; its weights in float32, or in bfloat16 as in the release. Raises
    `TextError`."""
    folder = place(text.encoder)
    words = tokenizer(folder, text.tokens)
    net = network(folder).to(torch.bfloat16 if precision == "bfloat16" else torch.float32)
    return TextEncoder(text, net, words).eval().to(on)


def cleaned(text: str) -> str:
    """The caption `single_spaced`, whoever gives it: those of training are, and the same words with other blanks are
    other tokens. Control characters become spaces, and halves of characters the sign for a wrong one: tokenizers refuse
    the latter."""
    return LONE.sub("\ufffd", CONTROL.sub(" ", single_spaced(text)))
