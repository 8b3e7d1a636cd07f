"""The networks of GEAR in ordinary PyTorch: VQ-16, PatchGAN, and a Llama with projectors, for `bench.plain_step`.

The parameters have the names of ours, so that `load_state_dict` takes them over.

B images, h x w latents, N tokens each, K codewords, d latent channels, D generator width.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from gear import config as cfg
from gear.generator.layers import hidden_width, rotary_angles


def wide(t: Tensor) -> Tensor:
    """float32, where autocast made it less."""
    return t.to(torch.promote_types(t.dtype, torch.float32))


def norm(channels: int, groups: int) -> nn.GroupNorm:
    return nn.GroupNorm(groups, channels, eps=1e-6)


class Residual(nn.Module):
    def __init__(self, c_in: int, c_out: int, groups: int):
        super().__init__()
        self.norm1, self.conv1 = norm(c_in, groups), nn.Conv2d(c_in, c_out, 3, padding=1)
        self.norm2, self.conv2 = norm(c_out, groups), nn.Conv2d(c_out, c_out, 3, padding=1)
        self.nin_shortcut = nn.Identity() if c_in == c_out else nn.Conv2d(c_in, c_out, 1)

    def forward(self, x: Float[Tensor, "B c_in h w"]) -> Float[Tensor, "B c_out h w"]:
        y = self.conv1(F.silu(self.norm1(x)))
        y = self.conv2(F.silu(self.norm2(y)))
        return self.nin_shortcut(x) + y


class SpatialAttention(nn.Module):
    def __init__(self, channels: int, groups: int):
        super().__init__()
        self.norm = norm(channels, groups)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(channels, channels, 1) for _ in range(4))

    def forward(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
        y = self.norm(x)
        q, k, v = (project(y).flatten(2).transpose(1, 2)[:, None] for project in (self.q, self.k, self.v))
        y = F.scaled_dot_product_attention(q, k, v)[:, 0]
        return x + self.proj_out(y.transpose(1, 2).unflatten(2, x.shape[2:]))


class Level(nn.Module):
    """Residual blocks of one resolution with their attention, then half of it, twice, or the same."""

    def __init__(self, c_in: int, c_out: int, blocks: int, attention: bool, groups: int, change: str | None):
        super().__init__()
        self.res = nn.ModuleList(Residual(a, b, groups) for a, b in pairwise([c_in] + [c_out] * blocks))
        self.attn = nn.ModuleList(SpatialAttention(c_out, groups) if attention else nn.Identity() for _ in self.res)
        self.change = change
        if change == "down":
            self.downsample = nn.ModuleDict({"conv": nn.Conv2d(c_out, c_out, 3, stride=2)})
        if change == "up":
            self.upsample = nn.ModuleDict({"conv": nn.Conv2d(c_out, c_out, 3, padding=1)})

    def forward(self, x: Float[Tensor, "B c_in h w"]) -> Float[Tensor, "B c_out h_out w_out"]:
        for res, attn in zip(self.res, self.attn, strict=True):
            x = attn(res(x))
        if self.change == "down":
            return self.downsample["conv"](F.pad(x, (0, 1, 0, 1)))
        if self.change == "up":
            return self.upsample["conv"](F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return x


class Half(nn.Module):
    """The encoder, or the decoder: widths from its first level to its last, which does not change the resolution."""

    def __init__(
        self, c_in: int, first: int, widths: Sequence[int], c_out: int, blocks: int, b: cfg.VQGAN, change: str
    ):
        super().__init__()
        last, lowest = len(widths) - 1, (len(widths) - 1 if change == "down" else 0)
        self.conv_in = nn.Conv2d(c_in, first, 3, padding=1)
        self.conv_blocks = nn.ModuleList(
            Level(w_in, w_out, blocks, b.attention and i == lowest, b.groups, None if i == last else change)
            for i, (w_in, w_out) in enumerate(pairwise([first, *widths]))
        )
        middle = widths[-1] if change == "down" else first
        self.mid = nn.Sequential(
            Residual(middle, middle, b.groups),
            SpatialAttention(middle, b.groups) if b.attention else nn.Identity(),
            Residual(middle, middle, b.groups),
        )
        self.norm_out = norm(widths[-1], b.groups)
        self.conv_out = nn.Conv2d(widths[-1], c_out, 3, padding=1)
        self.change = change

    def forward(self, x: Float[Tensor, "B c_in h w"]) -> Float[Tensor, "B c_out h_out w_out"]:
        x = self.conv_in(x)
        stages = [self.mid, *self.conv_blocks] if self.change == "up" else [*self.conv_blocks, self.mid]
        for stage in stages:
            x = stage(x)
        return self.conv_out(F.silu(self.norm_out(x)))


class Tokenizer(nn.Module):
    def __init__(self, quantizer: cfg.VQ, b: cfg.VQGAN):
        super().__init__()
        widths, pixels = [b.channels * m for m in b.multipliers], 3 * b.patch**2
        self.encoder = Half(pixels, b.channels, widths, b.latent, b.encoder_blocks, b, "down")
        self.decoder = Half(b.latent, widths[-1], widths[::-1], pixels, b.decoder_blocks, b, "up")
        self.quant_conv = nn.Conv2d(b.latent, quantizer.dim, 1)
        self.post_quant_conv = nn.Conv2d(quantizer.dim, b.latent, 1)
        self.quantize = nn.ModuleDict({"embedding": nn.Embedding(quantizer.codebook_size, quantizer.dim)})
        self.downsample = b.downsample
        self.fold, self.unfold = nn.PixelUnshuffle(b.patch), nn.PixelShuffle(b.patch)

    def encode(self, x: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B d h w"]:
        return self.quant_conv(self.encoder(self.fold(x)))

    def decode(self, z_hat: Float[Tensor, "B N d"], size: Sequence[int]) -> Float[Tensor, "B 3 H W"]:
        """size: of the images, B 3 H W."""
        z_hat = z_hat.transpose(1, 2).unflatten(2, (size[2] // self.downsample, -1))
        return self.unfold(self.decoder(self.post_quant_conv(z_hat)))


class Critic(nn.Module):
    """PatchGAN."""

    def __init__(self, channels: int, layers: int):
        super().__init__()
        widths = [channels * min(2**i, 8) for i in range(layers + 1)]
        main: list[nn.Module] = [nn.Conv2d(3, channels, 4, stride=2, padding=1), nn.LeakyReLU(0.2, inplace=True)]
        for i, (c_in, c_out) in enumerate(pairwise(widths), start=1):
            main.append(nn.Conv2d(c_in, c_out, 4, 2 if i < layers else 1, padding=1, bias=False))
            main += [nn.BatchNorm2d(c_out), nn.LeakyReLU(0.2, inplace=True)]
        self.main = nn.Sequential(*main, nn.Conv2d(widths[-1], 1, 4, padding=1))

    def forward(self, x: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 1 h w"]:
        return wide(self.main(x))


class Block(nn.Module):
    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        linear, hidden = lambda a, b: nn.Linear(a, b, bias=False), hidden_width(width)
        self.heads, self.dropout = heads, nn.Dropout(dropout)
        self.attention_norm, self.ffn_norm = nn.RMSNorm(width, eps=1e-5), nn.RMSNorm(width, eps=1e-5)
        self.attention = nn.ModuleDict({"wqkv": linear(width, 3 * width), "wo": linear(width, width)})
        self.feed_forward = nn.ModuleDict(
            {"w1": linear(width, hidden), "w3": linear(width, hidden), "w2": linear(hidden, width)}
        )

    def forward(self, x: Float[Tensor, "B N D"], turns: Tensor) -> Float[Tensor, "B N D"]:
        x = x + self.dropout(self.attend(self.attention_norm(x), turns))
        y, ff = self.ffn_norm(x), self.feed_forward
        return x + self.dropout(ff["w2"](F.silu(ff["w1"](y)) * ff["w3"](y)))

    def attend(self, x: Float[Tensor, "B N D"], turns: Tensor) -> Float[Tensor, "B N D"]:
        q, k, v = self.attention["wqkv"](x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(rotate(q, turns), rotate(k, turns), v, is_causal=True)
        return self.attention["wo"](y.transpose(1, 2).flatten(2))


def rotate(x: Float[Tensor, "B H N C"], turns: Tensor) -> Float[Tensor, "B H N C"]:
    """Adjacent channels as complex numbers, as in Llama."""
    turned = torch.view_as_complex(wide(x).unflatten(-1, (-1, 2))) * turns
    return torch.view_as_real(turned).flatten(-2).to(x.dtype)


class Generator(nn.Module):
    turns: Tensor  # complex, one for each row and pair of channels; that of the class is 1

    def __init__(self, g: cfg.Generator, codebook_size: int, classes: int, side: int, target_dims: Mapping[str, int]):
        super().__init__()
        self.tap, self.classes, self.class_drop = g.aligned_block, classes, g.class_drop
        self.cls_embedding = nn.ModuleDict({"embedding_table": nn.Embedding(classes + 1, g.width)})
        self.tok_embeddings = nn.Embedding(codebook_size, g.width)
        self.dropout = nn.Dropout(g.dropout)
        self.layers = nn.ModuleList(Block(g.width, g.heads, g.dropout) for _ in range(g.layers))
        self.norm, self.output = nn.RMSNorm(g.width, eps=1e-5), nn.Linear(g.width, codebook_size, bias=False)
        self.projectors = nn.ModuleDict(
            {name: projector(g.width, g.projector, dim) for name, dim in target_dims.items()}
        )
        angles = rotary_angles((side, side), g.width // g.heads)
        angles = torch.cat([torch.zeros_like(angles[:1]), angles[:-1]])
        self.register_buffer("turns", torch.complex(angles.cos(), angles.sin()), persistent=False)

    def to_tap(self, u: Float[Tensor, "B M D"], c: Int[Tensor, "B"]) -> Float[Tensor, "B N D"]:
        """[e_c, u_1 .. u_M] through the blocks up to layer l; row i is the state that predicts token i."""
        if self.training:
            c = torch.where(torch.rand(len(c), device=c.device) < self.class_drop, self.classes, c)
        x = self.dropout(torch.cat([self.cls_embedding["embedding_table"](c)[:, None], u], dim=1))
        for block in self.layers[: self.tap]:
            x = block(x, self.turns)
        return x

    def to_logits(self, h: Float[Tensor, "B N D"]) -> Float[Tensor, "B N K"]:
        for block in self.layers[self.tap :]:
            h = block(h, self.turns)
        return self.output(self.norm(h))

    def align(self, h: Float[Tensor, "B N D"], f: Mapping[str, Float[Tensor, "B N _"]]) -> Float[Tensor, ""]:
        """Eq. 5: minus the cosine of g_phi(h_i) and f(x)_i."""
        cosines = [F.cosine_similarity(wide(self.projectors[name](h)), y, dim=-1).mean() for name, y in f.items()]
        return -torch.stack(cosines).mean()


def projector(width: int, hidden: int, channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(width, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, channels)
    )
