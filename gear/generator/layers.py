"""The transformer's parts: RMSNorm, 2-D rotary embedding, attention with an optional cache, SwiGLU, block.

Layout and names are LlamaGen's (Sun et al. 2024), so that released weights load by name; nothing has a bias.

B images, N rows (the class token, then tokens), D width, H heads, C = D / H channels a head, P = C / 2 channel pairs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from gear.assignment import full
from gear.noise import Dropout
from gear.recompute import Recomputable

ClassRotary = Literal["identity", "zero"]


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) in float32, cast back to the dtype of x, then times the weight."""

    def __init__(self, width: int, eps: float = 1e-5):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        return F.rms_norm(full(x), self.weight.shape, eps=self.eps).to(x.dtype) * self.weight


def rotary_angles(grid: tuple[int, int], channels: int, base: float = 10000.0) -> Float[Tensor, "hw P"]:
    """Angle in radians of every adjacent channel pair of a head, at every grid position in raster order.

    The first half of the pairs turns with the row y, the second half with the column x; within a half, pair i turns
    by base^(-2i / (channels / 2)) a step. Float32.
    """
    h, w = grid
    half = channels // 2
    speeds = base ** -(torch.arange(0, half, 2, dtype=torch.float32) / half)
    y, x = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    return torch.cat([y.reshape(-1, 1) * speeds, x.reshape(-1, 1) * speeds], dim=1)


class Rotary(nn.Module):
    """(cos, sin) of each row of the sequence: the class token, then tokens 0 .. hw-2, each at its own grid position.

    `identity` leaves the class token unrotated. `zero` is what the released code does: cos and sin are both 0, hence
    q = k = 0, and every row attends to the class token with logit 0 whatever the class is.
    """

    table: Tensor  # (hw, P, 2), float32

    def __init__(self, grid: tuple[int, int], channels: int, class_rotary: ClassRotary = "identity"):
        super().__init__()
        self.grid, self.channels, self.class_rotary = grid, channels, class_rotary
        self.register_buffer("table", self._build(), persistent=False)

    def _build(self) -> Tensor:
        angles = rotary_angles(self.grid, self.channels)[:-1]
        token = torch.stack([angles.cos(), angles.sin()], dim=-1)
        cos = 1.0 if self.class_rotary == "identity" else 0.0
        first = torch.tensor([cos, 0.0]).expand(1, self.channels // 2, 2)
        return torch.cat([first, token])

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True):
        # Rebuilt after every move, because `.to(bfloat16)` would round the angles and `.to_empty` would lose them.
        super()._apply(fn, recurse)
        self.table = self._build().to(self.table.device)
        return self

    def forward(self, start: int, rows: int) -> Float[Tensor, "rows P 2"]:
        return self.table[start : start + rows]


def rotate(x: Float[Tensor, "B H N C"], rotary: Float[Tensor, "N P 2"]) -> Float[Tensor, "B H N C"]:
    """Turns each adjacent channel pair (a, b) to (a cos - b sin, a sin + b cos), in float32, then the dtype of x.

    As the complex product (a + ib)(cos + i sin): one pass over x, an eighth of the time of four real products.
    """
    turned = torch.view_as_complex(full(x).unflatten(-1, (-1, 2))) * torch.view_as_complex(rotary)
    return torch.view_as_real(turned).flatten(-2).to(x.dtype)


@dataclass
class Past:
    """Keys and values that one attention layer has seen: room for S rows, of which the first `rows` are filled."""

    keys: Float[Tensor, "B H S C"]
    values: Float[Tensor, "B H S C"]
    rows: int = 0

    def append(self, k: Float[Tensor, "B H M C"], v: Float[Tensor, "B H M C"]) -> tuple[Tensor, Tensor]:
        """Stores M further rows; returns the keys and values of all rows so far, as views (B, H, rows, C)."""
        end = self.rows + k.shape[2]
        self.keys[:, :, self.rows : end] = k
        self.values[:, :, self.rows : end] = v
        self.rows = end
        return self.keys[:, :, :end], self.values[:, :, :end]


class Attention(nn.Module):
    """Causal multi-head self-attention with rotated queries and keys.

    With a `past`, x holds the rows that follow those in it, which are attended to as well: all rows of an empty
    past at once, or one further row a call.
    """

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.heads = heads
        self.wqkv = nn.Linear(width, 3 * width, bias=False)
        self.wo = nn.Linear(width, width, bias=False)
        self.dropout = Dropout(dropout)

    def forward(
        self, x: Float[Tensor, "B N D"], rotary: Float[Tensor, "N P 2"], past: Past | None = None
    ) -> Float[Tensor, "B N D"]:
        q, k, v = self.wqkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # each (B, H, N, C)
        q, k = rotate(q, rotary), rotate(k, rotary)
        if past is not None:
            k, v = past.append(k, v)
        # One row sees all that is stored; torch aligns a causal mask to the first key, which is right when N == rows.
        out = F.scaled_dot_product_attention(q, k, v, is_causal=q.shape[2] > 1)
        return self.dropout(self.wo(out.transpose(1, 2).flatten(2)))


def hidden_width(width: int) -> int:
    """SwiGLU's hidden width: 8/3 of `width`, rounded up to a multiple of 256 as LlamaGen does.

    Below width 256, which LlamaGen does not have, to a multiple of 32, so that tiny models stay tiny.
    """
    multiple = 256 if width >= 256 else 32
    return -(-int(8 * width / 3) // multiple) * multiple


class FeedForward(nn.Module):
    """SwiGLU: w2(silu(w1 x) * w3 x)."""

    def __init__(self, width: int, dropout: float):
        super().__init__()
        hidden = hidden_width(width)
        self.w1 = nn.Linear(width, hidden, bias=False)
        self.w3 = nn.Linear(width, hidden, bias=False)
        self.w2 = nn.Linear(hidden, width, bias=False)
        self.dropout = Dropout(dropout)

    def forward(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        return self.dropout(self.w2(F.silu(self.w1(x)) * self.w3(x)))


class Block(Recomputable):
    """x + attention(norm(x)), then x + feed_forward(norm(x))."""

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.attention_norm = RMSNorm(width)
        self.attention = Attention(width, heads, dropout)
        self.ffn_norm = RMSNorm(width)
        self.feed_forward = FeedForward(width, dropout)

    def forward(
        self, x: Float[Tensor, "B N D"], rotary: Float[Tensor, "N P 2"], past: Past | None = None
    ) -> Float[Tensor, "B N D"]:
        x = x + self.attention(self.attention_norm(x), rotary, past)
        return x + self.feed_forward(self.ffn_norm(x))
