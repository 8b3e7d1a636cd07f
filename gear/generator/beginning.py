"""Before the first token: the condition is read, and its keys and values wait in the rows that will draw.

b images of one pass, r rows: b, and under guidance as many unconditional ones after them.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gear.generator.condition import CaptionEmbedding
from gear.generator.generator import Generator
from gear.generator.layers import Past
from gear.prompts import Prompts

NOTHING = -1  # in place of a prompt's number: the negative prompt, or the unconditional input


@dataclass(frozen=True)
class Begun:
    """The rows of one pass, when the condition is read and no token is drawn.

    logits: of the first token. past: the condition's keys and values. holds: which rows of the past may be seen; None:
    all.
    """

    logits: Float[Tensor, "r K"]
    past: list[Past]
    holds: Bool[Tensor, "r S"] | None = None

    def first(self, rows: int) -> "Begun":
        """The first rows alone."""
        past = [Past(p.keys[:rows], p.values[:rows], p.rows) for p in self.past]
        return Begun(self.logits[:rows], past, None if self.holds is None else self.holds[:rows])


# Labels; whether as many unconditional rows follow; memory of an earlier pass to begin in, None: anew.
Begin = Callable[[Int[Tensor, "b"], bool, list[Past] | None], Begun]


def room(generator: Generator, batch: int, rows: int | None = None) -> list[Past]:
    device = generator.embedding.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    return generator.empty_past(batch, dtype, rows)


def begin_classes(
    generator: Generator, labels: Int[Tensor, "b"], guided: bool, past: list[Past] | None = None
) -> Begun:
    null = torch.full_like(labels, generator.null_label)
    labels = torch.cat([labels, null]) if guided else labels
    past = past or room(generator, len(labels))
    for layer in past:
        layer.rows = 0
    return Begun(generator.decode(generator.cls_embedding(labels.to(generator.embedding.device)), past), past)


@dataclass(frozen=True)
class Prefix:
    """A caption that was read: the keys and values of its t rows, which of them are seen by what follows, and the
    logits of the first token."""

    past: list[Past]
    holds: Bool[Tensor, "t"]
    logits: Float[Tensor, "1 K"]


class Reading:
    """Reads each of the prompts when it is first needed. As many are kept as there are rows in a pass."""

    def __init__(self, generator: Generator, prompts: Prompts, nothing: Prompts):
        self.generator, self.prompts, self.nothing = generator, prompts, nothing
        self.known: dict[int, Prefix] = {}

    def begin(self, labels: Int[Tensor, "b"], guided: bool, past: list[Past] | None = None) -> Begun:
        numbers = labels.tolist() + [NOTHING] * (len(labels) * guided)
        prefixes = {number: self._prefix(number, len(labels)) for number in dict.fromkeys(numbers)}
        past, text = past or room(self.generator, len(numbers)), self.generator.condition_rows
        on = self.generator.embedding.device
        holds = torch.ones(len(numbers), past[0].keys.shape[2], dtype=torch.bool, device=on)
        holds[:, :text] = False
        for number, prefix in prefixes.items():
            rows = torch.tensor([row for row, other in enumerate(numbers) if other == number], device=on)
            start = text - len(prefix.holds)
            holds[rows, start:text] = prefix.holds
            for whole, read in zip(past, prefix.past, strict=True):
                whole.keys[rows, :, start:text], whole.values[rows, :, start:text] = read.keys, read.values
                # Nobody sees what is before it, but nothing times what memory happens to hold need not be nothing.
                whole.keys[rows, :, :start], whole.values[rows, :, :start] = 0.0, 0.0
        for whole in past:
            whole.rows = text
        return Begun(torch.cat([prefixes[number].logits for number in numbers]), past, holds)

    def _prefix(self, number: int, most: int) -> Prefix:
        if number not in self.known:
            if len(self.known) > most:  # the one that was read first, but not what all passes need
                del self.known[next(other for other in self.known if other != NOTHING)]
            self.known[number] = read(self.generator, self.nothing if number == NOTHING else self._one(number))
        return self.known[number]

    def _one(self, number: int) -> Prompts:
        return self.prompts[number : number + 1]


@torch.no_grad()
def read(generator: Generator, prompt: Prompts) -> Prefix:
    """One pass over the text of one prompt. Padding in front is left out: nobody would see it."""
    prompt = prompt.to(generator.embedding.device)
    padding = int((prompt.valid[0].cumsum(0) == 0).sum()) % prompt.valid.shape[1]  # all of it, if there is no text
    short = Prompts(prompt.states[:, padding:], prompt.valid[:, padding:])
    past = room(generator, 1, short.valid.shape[1])
    logits = generator.decode(generator.cls_embedding(short), past, generator.sight(short, short.valid.shape[1]))
    return Prefix(past, short.valid[0], logits)  # of the released unconditional input, no row is seen


def reader(generator: Generator, prompts: Prompts | None, negative: Prompts | None) -> Reading | None:
    """Of a generator with text; None for one of classes. Raises ValueError for prompts that `generator` cannot read."""
    condition = generator.cls_embedding
    if not isinstance(condition, CaptionEmbedding):
        if prompts is not None or negative is not None:
            raise ValueError("this generator draws classes and reads no prompts: give labels alone.")
        return None
    if prompts is None:
        raise ValueError(
            "this generator draws what a text says: give prompts, which its text encoder (gear.text.load) makes."
        )
    nothing = negative or condition.unconditional(1, generator.condition_rows)
    if len(nothing) != 1:
        raise ValueError(f"negative must be one prompt; there are {len(nothing)}.")
    for given in (prompts, nothing):
        rows, width = given.states.shape[1:]
        in_front = bool((given.valid[:, 1:] >= given.valid[:, :-1]).all() and given.valid[:, -1].all())
        if condition.text.padding == "left" and not in_front:
            raise ValueError("a prompt must have text in its last row, and all its padding in front.")
        if width != condition.text_width:
            raise ValueError(
                f"the prompts have {width} channels, and the generator was trained with a text encoder of "
                f"{condition.text_width}: use that one ({condition.text.encoder})."
            )
        if rows > generator.condition_rows:
            raise ValueError(f"the prompts have {rows} rows; the generator reads at most {generator.condition_rows}.")
    return Reading(generator, prompts, nothing)
