"""The transformer's parts: RMSNorm, 2-D rotary embedding, attention with an optional cache, SwiGLU, block.

Layout and names are LlamaGen's (Sun et al. 2024), so that released weights load by name; nothing has a bias.

B images, N rows (the condition's T, which is 1 for a class, then tokens), D width, H heads, C = D / H channels a head,
P = C / 2 channel pairs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from gear.assignment import full
from gear.losses import next_token
from gear.noise import Dropout
from gear.recompute import Recomputable

ConditionRotary = Literal["identity", "zero"]


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
    """(cos, sin) of each row of the sequence: T rows of the condition, then tokens 0 .. hw-2, each at its own place.

    `identity` leaves the condition unrotated: where its words stand, the text encoder has told. `zero` is what the
    released code does: cos and sin are both 0, hence q = k = 0, and every row attends to each row of the condition with
    logit 0 whatever it says.
    """

    table: Tensor  # (T + hw - 1, P, 2), float32

    def __init__(
        self, grid: tuple[int, int], channels: int, condition: ConditionRotary = "identity", condition_rows: int = 1
    ):
        super().__init__()
        self.grid, self.channels, self.condition, self.condition_rows = grid, channels, condition, condition_rows
        self.register_buffer("table", self._build(), persistent=False)

    def _build(self) -> Tensor:
        angles = rotary_angles(self.grid, self.channels)[:-1]
        token = torch.stack([angles.cos(), angles.sin()], dim=-1)
        cos = 1.0 if self.condition == "identity" else 0.0
        first = torch.tensor([cos, 0.0]).expand(self.condition_rows, self.channels // 2, 2)
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


@dataclass(frozen=True)
class Sight:
    """Which rows are text, and who sees whom where captions differ in length.

    text: the first rows, of which dual-stream blocks have weights of their own. order: rows in the order in which those
    that hold nothing come last, and are therefore seen by no other in plain causal attention, which needs no mask.
    inverse: from there back. mask: who sees whom, in place of causal attention.
    """

    text: int = 0
    order: Int[Tensor, "B N"] | None = None
    inverse: Int[Tensor, "B N"] | None = None
    mask: Bool[Tensor, "B 1 N S"] | None = None


PLAIN = Sight()  # all rows hold something, and none of them is text


class Reordered(torch.autograd.Function):
    """Rows of each image in another order. A permutation's gradient is its inverse, gathered; torch's own would add
    into zeros."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(order, inverse)
        return x.gather(2, order[:, None, :, None].expand_as(x))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        order, inverse = ctx.saved_tensors
        return Reordered.apply(grad, inverse, order), None, None  # pyright: ignore[reportReturnType]


def attend(
    q: Float[Tensor, "B H N C"], k: Float[Tensor, "B H S C"], v: Float[Tensor, "B H S C"], sight: Sight
) -> Float[Tensor, "B H N C"]:
    """softmax(q k / sqrt(C)) v over what each row sees: what `sight.mask` says, or itself and all rows before it that
    hold something."""
    if sight.mask is not None:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=sight.mask)
    if sight.order is None:
        # One row sees all that is stored; torch aligns a causal mask to the first key, which is right when N == S.
        return F.scaled_dot_product_attention(q, k, v, is_causal=q.shape[2] > 1)
    q, k, v = (Reordered.apply(t, sight.order, sight.inverse) for t in (q, k, v))
    out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    return Reordered.apply(out, sight.inverse, sight.order)  # pyright: ignore[reportReturnType]


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
        self, x: Float[Tensor, "B N D"], rotary: Float[Tensor, "N P 2"], past: Past | None = None, sight: Sight = PLAIN
    ) -> Float[Tensor, "B N D"]:
        q, k, v = self.read(x, sight).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # each (B, H, N, C)
        q, k = rotate(q, rotary), rotate(k, rotary)
        if past is not None:
            k, v = past.append(k, v)
        out = attend(q, k, v, sight)
        return self.dropout(self.write(out.transpose(1, 2).flatten(2), sight))

    def read(self, x: Float[Tensor, "B N D"], sight: Sight) -> Float[Tensor, "B N 3*D"]:
        return self.wqkv(x)

    def write(self, x: Float[Tensor, "B N D"], sight: Sight) -> Float[Tensor, "B N D"]:
        return self.wo(x)


def by_stream(
    x: Float[Tensor, "B N D"], text: int, of_text: Callable[[Tensor], Tensor], of_image: Callable[[Tensor], Tensor]
) -> Float[Tensor, "B N _"]:
    """`of_text` of the first `text` rows and `of_image` of the others."""
    if text == 0:  # each further token of sampling
        return of_image(x)
    return torch.cat([of_text(x[:, :text]), of_image(x[:, text:])], dim=1)


class DualAttention(Attention):
    """Joint attention of two streams, text and image tokens, each with q, k, v and output weights of its own
    (appendix B)."""

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__(width, heads, dropout)
        self.wqkv_text = nn.Linear(width, 3 * width, bias=False)
        self.wo_text = nn.Linear(width, width, bias=False)

    def read(self, x: Float[Tensor, "B N D"], sight: Sight) -> Float[Tensor, "B N 3*D"]:
        return by_stream(x, sight.text, self.wqkv_text, self.wqkv)

    def write(self, x: Float[Tensor, "B N D"], sight: Sight) -> Float[Tensor, "B N D"]:
        return by_stream(x, sight.text, self.wo_text, self.wo)


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
        self, x: Float[Tensor, "B N D"], rotary: Float[Tensor, "N P 2"], past: Past | None = None, sight: Sight = PLAIN
    ) -> Float[Tensor, "B N D"]:
        x = x + self.attention(self.normed(x, sight), rotary, past, sight)
        return x + self.feed_forward(self.ffn_norm(x))

    def normed(self, x: Float[Tensor, "B N D"], sight: Sight) -> Float[Tensor, "B N D"]:
        return self.attention_norm(x)


class DualBlock(Block):
    """A block whose attention, and the norm before it, has weights of its own for text; the rest is shared, as in the
    release."""

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__(width, heads, dropout)
        self.attention = DualAttention(width, heads, dropout)
        self.attention_norm_text = RMSNorm(width)

    def normed(self, x: Float[Tensor, "B N D"], sight: Sight) -> Float[Tensor, "B N D"]:
        return by_stream(x, sight.text, self.attention_norm_text, self.attention_norm)


class Head(nn.Linear):
    """The logits of every row; given targets, L_NTP (eq. 4) instead, of logits that are not kept.

    A layer for both, so that whoever watches modules sees where the loss is made.
    """

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, x: Float[Tensor, "*B D"], targets: Int[Tensor, "B N"] | None = None
    ) -> Float[Tensor, "*B K"] | Float[Tensor, ""]:
        return super().forward(x) if targets is None else next_token(x, self.weight, targets)
