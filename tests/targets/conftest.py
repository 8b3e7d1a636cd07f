"""A vision transformer written out in float64, the twin of what timm's classes do with a file's tensors; and pictures
whose ImageNet classes anybody can tell."""

import math
import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor, nn

GELU: dict[str, Callable[[Tensor], Tensor]] = {
    "erf": lambda x: x * (1 + torch.erf(x / math.sqrt(2))) / 2,
    "tanh": lambda x: x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2,
    "sigmoid": lambda x: x * torch.sigmoid(1.702 * x),
}


def _twin(
    state: dict[str, Tensor],
    x: Tensor,
    patch: int,
    heads: int,
    *,
    prefix: Sequence[Tensor] = (),
    table: Tensor | None = None,
    turn: Callable[[Tensor], Tensor] = lambda x: x,
    gelu: str = "erf",
    eps: float = 1e-6,
    layer: int | None = None,
) -> Tensor:
    """Patch tokens of the normalised image x, after block `layer`, or after all blocks and the norm.

    prefix: tokens that come first, their positions added. table: (N, C), positions of the patches. turn: what the
    rotary embedding does to queries and keys (..., N, D) of the patches. timm's names.
    """
    s = {name: tensor.double() for name, tensor in state.items()}
    h, w = x.shape[2] // patch, x.shape[3] // patch
    kernel, bias = s["patch_embed.proj.weight"].flatten(1), s.get("patch_embed.proj.bias", torch.zeros(1))
    pieces = [
        x.double()[:, :, patch * i : patch * (i + 1), patch * j : patch * (j + 1)].flatten(1)
        for i in range(h)
        for j in range(w)
    ]
    t = torch.stack([piece @ kernel.T + bias for piece in pieces], dim=1)
    if table is not None:
        t = t + table.double()
    t = torch.cat([*(p.double().expand(len(t), -1, -1) for p in prefix), t], dim=1)
    first = t.shape[1] - h * w
    width = t.shape[2]

    def norm(t: Tensor, name: str) -> Tensor:
        centred = t - t.mean(-1, keepdim=True)
        flat = centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt()
        return flat * s[f"{name}.weight"] + s[f"{name}.bias"]

    def linear(t: Tensor, name: str) -> Tensor:
        return t @ s[f"{name}.weight"].T + s.get(f"{name}.bias", torch.zeros(1))

    if "norm_pre.weight" in s:
        t = norm(t, "norm_pre")
    depth = 1 + max(int(name.split(".")[1]) for name in s if name.startswith("blocks."))
    for block in (f"blocks.{i}" for i in range(depth if layer is None else layer)):
        qkv = linear(norm(t, f"{block}.norm1"), f"{block}.attn.qkv")
        if f"{block}.attn.q_bias" in s:  # the keys have none
            qkv = qkv + torch.cat([s[f"{block}.attn.q_bias"], torch.zeros(width), s[f"{block}.attn.v_bias"]])
        q, k, v = qkv.chunk(3, dim=-1)
        out = []
        for part in (slice(i * width // heads, (i + 1) * width // heads) for i in range(heads)):
            qh, kh = (torch.cat([a[:, :first, part], turn(a[:, first:, part])], dim=1) for a in (q, k))
            out.append((qh @ kh.mT / math.sqrt(width / heads)).softmax(-1) @ v[..., part])
        scales = [s.get(f"{block}.ls{i}.gamma", s.get(f"{block}.gamma_{i}", torch.ones(1))) for i in (1, 2)]
        t = t + scales[0] * linear(torch.cat(out, dim=-1), f"{block}.attn.proj")
        hidden = linear(norm(t, f"{block}.norm2"), f"{block}.mlp.fc1")
        if hidden.shape[-1] == s[f"{block}.mlp.fc2.weight"].shape[1]:
            hidden = GELU[gelu](hidden)
        else:  # SwiGLU
            gate, value = hidden.chunk(2, dim=-1)
            hidden = gate * torch.sigmoid(gate) * value
        t = t + scales[1] * linear(hidden, f"{block}.mlp.fc2")
    return (norm(t, "norm") if layer is None else t)[:, first:]


@pytest.fixture(scope="session")
def vit_twin() -> Callable[..., Tensor]:
    return _twin


@pytest.fixture(scope="session")
def random_state() -> Callable[..., dict[str, Tensor]]:
    """The state dict of timm's make(**options), every parameter made random: LayerScale starts at 1e-5, which would
    hide the blocks."""

    def make(function: Callable[..., nn.Module], **options: Any) -> dict[str, Tensor]:
        torch.manual_seed(0)
        vit = function(num_classes=0, **options)
        return {name: tensor + 0.3 * torch.randn_like(tensor) for name, tensor in vit.state_dict().items()}

    return make


@pytest.fixture(scope="session")
def resize_table() -> Callable[[Tensor, tuple[int, int]], Tensor]:
    """A table (1, n^2, C) of positions to (h w, C): bicubic with antialias, in float64."""

    def resize(table: Tensor, grid: tuple[int, int]) -> Tensor:
        side = math.isqrt(table.shape[1])
        square = table.double().reshape(1, side, side, -1).permute(0, 3, 1, 2)
        return F.interpolate(square, grid, mode="bicubic", antialias=True)[0].flatten(1).mT

    return resize


@pytest.fixture(scope="session")
def drawn_pictures() -> tuple[Tensor, list[int]]:
    """A traffic light, a crossword and a spider's web of 256 x 256 px, and their ImageNet classes."""
    drawn = []
    for draw in (_traffic_light, _crossword, _spider_web):
        image = Image.new("RGB", (256, 256))
        draw(ImageDraw.Draw(image))
        drawn.append(torch.from_numpy(np.array(image)).permute(2, 0, 1))
    return torch.stack(drawn), [920, 918, 815]


def _traffic_light(draw: ImageDraw.ImageDraw) -> None:
    draw.rectangle((0, 0, 256, 256), (120, 170, 220))
    draw.rounded_rectangle((88, 30, 168, 226), 16, (25, 25, 25))
    for y, colour in ((64, (230, 30, 20)), (128, (240, 200, 20)), (192, (20, 200, 60))):
        draw.ellipse((102, y - 26, 154, y + 26), colour)


def _crossword(draw: ImageDraw.ImageDraw) -> None:
    black = random.Random(0)
    for x in range(0, 256, 16):
        for y in range(0, 256, 16):
            draw.rectangle((x, y, x + 16, y + 16), "black" if black.random() < 0.25 else "white", "black")


def _spider_web(draw: ImageDraw.ImageDraw) -> None:
    draw.rectangle((0, 0, 256, 256), (30, 50, 30))
    spokes = [(math.cos(a * math.pi / 8), math.sin(a * math.pi / 8)) for a in range(16)]
    for x, y in spokes:
        draw.line((128, 128, 128 + 200 * x, 128 + 200 * y), (220, 220, 220))
    for r in range(9, 144, 9):
        draw.polygon([(128 + r * x, 128 + r * y) for x, y in spokes], outline=(220, 220, 220))
