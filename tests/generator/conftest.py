"""A tiny generator; and a slow twin of the text-to-image generator that GEAR's trainer leaves behind."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from gear import config as cfg
from gear.generator import Generator


def tiny_generator(random: bool = True, **changes) -> Generator:
    """Two blocks of width 32 on a 3 x 4 grid in evaluation mode; `random` gives every matrix, head too, unit gain."""
    around = {"codebook_size": 20, "classes": 5, "grid": (3, 4), "target_dims": {"a": 6}, "text_width": None}
    config = cfg.Generator(layers=2, heads=2, width=32, tap=1, projector=16)
    config = replace(config, **{name: value for name, value in changes.items() if name not in around})
    torch.manual_seed(0)
    generator = Generator(config, **around | {name: changes[name] for name in changes.keys() & around.keys()})
    if random:
        for p in generator.parameters():
            torch.nn.init.normal_(p, mean=float(p.ndim == 1), std=p.shape[-1] ** -0.5)
    return generator.eval()


@pytest.fixture
def tiny() -> Callable[..., Generator]:
    return tiny_generator


class Norm(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x / torch.sqrt((x * x).mean(-1, keepdim=True) + 1e-5) * self.weight


class TwinAttention(nn.Module):
    def __init__(self, width: int, heads: int, dual: bool):
        super().__init__()
        self.heads, self.dual = heads, dual
        self.wqkv = nn.Linear(width, 3 * width, bias=False)
        self.wo = nn.Linear(width, width, bias=False)
        if dual:
            self.wqkv_text = nn.Linear(width, 3 * width, bias=False)
            self.wo_text = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, table: Tensor, sees: Tensor, texts: int) -> Tensor:
        B, N, D = x.shape
        C = D // self.heads
        qkv = torch.stack(
            [(self.wqkv_text if self.dual and row < texts else self.wqkv)(x[:, row]) for row in range(N)], dim=1
        )
        q, k, v = (part.reshape(B, N, self.heads, C) for part in qkv.split(D, dim=-1))
        turn = torch.view_as_complex(table.contiguous())[None, :, None]
        q, k = (
            torch.view_as_real(torch.view_as_complex(part.reshape(B, N, self.heads, C // 2, 2)) * turn).flatten(3)
            for part in (q, k)
        )
        out = torch.zeros(B, N, self.heads, C, dtype=x.dtype)
        for b in range(B):
            for head in range(self.heads):
                logits = q[b, :, head] @ k[b, :, head].T / math.sqrt(C)
                weights = logits.masked_fill(~sees[b], -math.inf).softmax(-1)
                out[b, :, head] = weights @ v[b, :, head]
        out = out.reshape(B, N, D)
        return torch.stack(
            [(self.wo_text if self.dual and row < texts else self.wo)(out[:, row]) for row in range(N)], dim=1
        )


class TwinFeedForward(nn.Module):
    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.w1 = nn.Linear(width, hidden, bias=False)
        self.w3 = nn.Linear(width, hidden, bias=False)
        self.w2 = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.w1(x)
        return self.w2(gate * torch.sigmoid(gate) * self.w3(x))


class TwinBlock(nn.Module):
    def __init__(self, width: int, heads: int, hidden: int, dual: bool):
        super().__init__()
        self.dual = dual
        self.attention = TwinAttention(width, heads, dual)
        self.feed_forward = TwinFeedForward(width, hidden)
        self.attention_norm, self.ffn_norm = Norm(width), Norm(width)
        if dual:
            self.attention_norm_text = Norm(width)

    def forward(self, x: Tensor, table: Tensor, sees: Tensor, texts: int) -> Tensor:
        normed = self.attention_norm(x)
        if self.dual:
            normed = torch.cat([self.attention_norm_text(x[:, :texts]), normed[:, texts:]], dim=1)
        x = x + self.attention(normed, table, sees, texts)
        return x + self.feed_forward(self.ffn_norm(x))


class TwinCaption(nn.Module):
    def __init__(self, channels: int, width: int):
        super().__init__()
        self.fc1 = nn.Linear(channels, width, bias=False)
        self.fc2 = nn.Linear(width, width, bias=False)

    def forward(self, states: Tensor) -> Tensor:
        h = self.fc1(states)
        gelu = 0.5 * h * (1 + torch.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * h**3)))
        return self.fc2(gelu)


class Twin(nn.Module):
    """Written from how the generator is described: layers blocks, the first `dual` with two streams; K codewords; a
    grid of side x side; T rows of C channels.

    The sequence is T rows of text, short captions padded behind, then the image tokens. A dense mask says who sees
    whom: what comes before and is no padding, and itself always. The table of rotations is zero for text, cosine and
    sine, so that a query or key of text is zero. In the first blocks text has projections and a norm of its own; the
    feed-forward and its norm are shared. The state of row T - 1, padding or not, predicts the first token.

    Names are those of the file, so that random weights of one load into the other.
    """

    def __init__(
        self, *, layers: int, dual: int, width: int, heads: int, hidden: int, K: int, side: int, T: int, C: int
    ):
        super().__init__()
        self.side, self.T, self.channels = side, T, width // heads
        self.cls_embedding = nn.ModuleDict({"cap_proj": TwinCaption(C, width)})
        self.tok_embeddings = nn.Embedding(K, width)
        self.layers = nn.ModuleList(TwinBlock(width, heads, hidden, i < dual) for i in range(layers))
        self.norm = Norm(width)
        self.output = nn.Linear(width, K, bias=False)

    def forward(self, tokens: Tensor, states: Tensor, valid: Tensor) -> Tensor:
        """Logits (B, M + 1, K) of the tokens 0 .. M, from M of them."""
        x = torch.cat([self.cls_embedding["cap_proj"](states), self.tok_embeddings(tokens)], dim=1)
        table, sees = self.table(tokens.shape[1]).to(x.dtype), self.sees(valid, tokens.shape[1])
        for block in self.layers:
            x = block(x, table, sees, self.T)
        return self.output(self.norm(x[:, self.T - 1 :]))

    def table(self, tokens: int) -> Tensor:
        """Cosine and sine of each pair of channels: zero for text; a quarter of the channels' pairs turn with y, then
        as many with x, in steps of 10000 ** (-2 i / half)."""
        half = self.channels // 2
        rows = torch.zeros(self.T + tokens, half, 2)
        for token in range(tokens):
            for axis, place in enumerate(divmod(token, self.side)):
                for i in range(half // 2):
                    angle = torch.tensor(10000.0) ** (-torch.tensor(2.0 * i) / half) * place
                    pair = axis * (half // 2) + i
                    rows[self.T + token, pair, 0] = angle.cos()
                    rows[self.T + token, pair, 1] = angle.sin()
        return rows

    def sees(self, valid: Tensor, tokens: int) -> Tensor:
        """(B, N, N): row i sees column j."""
        B, N = len(valid), self.T + tokens
        sees = torch.zeros(B, N, N, dtype=torch.bool)
        for b in range(B):
            for i in range(N):
                for j in range(i + 1):
                    sees[b, i, j] = i == j or j >= self.T or bool(valid[b, j])
        return sees


@pytest.fixture(scope="session")
def released_twin() -> type[Twin]:
    return Twin
