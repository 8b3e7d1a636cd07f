"""What an image is generated from, as the first rows of the sequence, c of eqs. 4 and 9: a class, or a caption."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from gear.config import Text
from gear.generator.layers import PLAIN, Sight
from gear.noise import uniform
from gear.prompts import Prompts


class ClassEmbedding(nn.Module):
    """A row for each class and one for the null class, which is label `classes`.

    In training mode a label becomes the null class with probability `drop`: the unconditional half of
    classifier-free guidance (Ho and Salimans 2022).
    """

    def __init__(self, classes: int, width: int, drop: float):
        super().__init__()
        self.classes, self.drop = classes, drop
        self.embedding_table = nn.Embedding(classes + 1, width)

    def dropped(self, labels: Int[Tensor, "B"]) -> Int[Tensor, "B"]:
        """Some of them the null class, in training mode."""
        if not self.training or self.drop == 0:
            return labels
        return torch.where(uniform(len(labels), labels.device) < self.drop, self.classes, labels)

    def forward(self, labels: Int[Tensor, "B"]) -> Float[Tensor, "B 1 D"]:
        return self.embedding_table(labels)[:, None]

    def sight(self, labels: Int[Tensor, "B"], rows: int) -> Sight:
        """Every row sees all before it."""
        return PLAIN


class Projection(nn.Module):
    """From the text encoder's channels to the generator's: linear, GELU (the tanh form), linear; without bias."""

    def __init__(self, text_width: int, width: int):
        super().__init__()
        self.fc1 = nn.Linear(text_width, width, bias=False)
        self.fc2 = nn.Linear(width, width, bias=False)

    def forward(self, states: Float[Tensor, "B T C"]) -> Float[Tensor, "B T D"]:
        return self.fc2(nn.functional.gelu(self.fc1(states), approximate="tanh"))


class CaptionEmbedding(nn.Module):
    """The states of a caption, projected.

    The unconditional input is `null`, one row, what the text encoder says of no text: a buffer, so that a generator has
    it wherever it goes. With padding behind, as in the release, it is no row at all. In training mode a caption becomes
    it with probability `drop`.
    """

    null: Tensor

    def __init__(self, text: Text, text_width: int, width: int):
        super().__init__()
        self.text, self.text_width = text, text_width
        self.cap_proj = Projection(text_width, width)
        self.register_buffer("null", torch.zeros(1, text_width))

    def unconditional(self, batch: int, rows: int | None = None) -> Prompts:
        """`batch` times no caption, in `rows` rows; by default in as few as it has, or all if padding lies behind."""
        rows = rows or (1 if self.text.padding == "left" else self.text.tokens)
        states = torch.zeros(batch, rows, self.text_width, dtype=self.null.dtype, device=self.null.device)
        valid = torch.zeros(batch, rows, dtype=torch.bool, device=self.null.device)
        if self.text.padding == "left":
            states[:, -1], valid[:, -1] = self.null, True
        return Prompts(states, valid)

    def dropped(self, prompts: Prompts) -> Prompts:
        """Some of them without a caption, in training mode."""
        if not self.training or self.text.drop == 0:
            return prompts
        none = self.unconditional(len(prompts), prompts.valid.shape[1])
        rows = uniform(len(prompts), prompts.valid.device) < self.text.drop
        states = torch.where(rows[:, None, None], none.states, prompts.states.to(none.states.dtype))
        return Prompts(states, torch.where(rows[:, None], none.valid, prompts.valid))

    def forward(self, prompts: Prompts) -> Float[Tensor, "B T D"]:
        return self.cap_proj(prompts.states.to(self.null.dtype))

    def sight(self, prompts: Prompts, rows: int) -> Sight:
        """Who sees whom among T rows of text and the `rows` - T image tokens after them. Nobody sees padding."""
        valid, text = prompts.valid, prompts.valid.shape[1]
        place = torch.arange(rows, device=valid.device)
        if self.text.padding == "left":  # turned, each by as much as it has padding, that comes last
            padding = (text - valid.sum(1, keepdim=True)).clamp(max=text - 1)  # the last row stays before the image
            return Sight(text, (place + padding) % rows, (place - padding) % rows)
        # As released, where the last row of padding sees the text and itself, and predicts the first image token.
        holds = nn.functional.pad(valid, (0, rows - text), value=True)
        causal = place[:, None] >= place
        return Sight(text, mask=(causal & holds[:, None, None, :]) | (place[:, None] == place))
