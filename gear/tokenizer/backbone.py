"""The convolutional encoder and decoder of the tokenizer: LlamaGen's VQ-16 (Table 18).

At `patch = 1` and `groups = 32` they hold exactly the parameters of the public VQ-16 files, under the same names
(`encoder.conv_blocks.4.attn.1.proj_out.weight`, ...), so such a file loads without renaming. A `patch` above 1 is ours:
patch x patch pixels are folded into channels before the first convolution and unfolded after the last, which saves a
laptop the full-resolution levels.

Shapes: H, W pixels; h = H / downsample and w = W / downsample latents; downsample = patch 2^(len(multipliers) - 1).
"""

from collections.abc import Sequence
from itertools import pairwise

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from gear.recompute import Recomputable
from gear.tokenizer.norm import Norm


class Encoder(nn.Module):
    """Images to latents.

    channels: width of the first convolution. multipliers: width of each level over `channels`, highest resolution
    first; each level but the last halves the resolution. blocks: residual blocks a level (2 in VQ-16). latent: width
    of the output. attention: at the last level and in the middle. groups: of GroupNorm; must divide every width.
    patch: pixels folded into channels first.
    """

    def __init__(
        self,
        channels: int,
        multipliers: Sequence[int],
        blocks: int,
        latent: int,
        attention: bool,
        groups: int,
        patch: int,
    ):
        super().__init__()
        widths = [channels * m for m in multipliers]
        lowest = len(widths) - 1
        self.downsample = patch * 2**lowest
        self.fold = nn.PixelUnshuffle(patch)
        self.conv_in = conv3x3(3 * patch**2, channels)
        self.conv_blocks = nn.ModuleList(
            (Level if i == lowest else DownLevel)(c_in, c_out, blocks, attention and i == lowest, groups)
            for i, (c_in, c_out) in enumerate(pairwise([channels, *widths]))
        )
        self.mid = middle(widths[-1], attention, groups)
        self.norm_out = Norm(widths[-1], groups)
        self.conv_out = conv3x3(widths[-1], latent)

    def forward(self, x: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B latent h w"]:
        """x: images in [-1, 1]; the latents are unbounded. Raises ValueError unless `downsample` divides H and W."""
        require_multiples(x, self.downsample)
        x = self.conv_in(self.fold(x))
        for level in self.conv_blocks:
            x = level(x)
        return self.conv_out(self.norm_out.swish(self.mid(x)))


class Decoder(nn.Module):
    """Latents to images; the arguments are the `Encoder`'s, `blocks` is 3 in VQ-16.

    `multipliers` are again given from the highest resolution; `conv_blocks[0]` is the lowest.
    """

    def __init__(
        self,
        channels: int,
        multipliers: Sequence[int],
        blocks: int,
        latent: int,
        attention: bool,
        groups: int,
        patch: int,
    ):
        super().__init__()
        widths = [channels * m for m in reversed(multipliers)]
        highest = len(widths) - 1
        self.conv_in = conv3x3(latent, widths[0])
        self.mid = middle(widths[0], attention, groups)
        self.conv_blocks = nn.ModuleList(
            (Level if i == highest else UpLevel)(c_in, c_out, blocks, attention and i == 0, groups)
            for i, (c_in, c_out) in enumerate(pairwise([widths[0], *widths]))
        )
        self.norm_out = Norm(widths[-1], groups)
        self.conv_out = conv3x3(widths[-1], 3 * patch**2)
        self.unfold = nn.PixelShuffle(patch)

    def forward(self, z: Float[Tensor, "B latent h w"]) -> Float[Tensor, "B 3 H W"]:
        """Images in the range of [-1, 1] but not clamped to it: the output has no non-linearity."""
        z = self.mid(self.conv_in(z))
        for level in self.conv_blocks:
            z = level(z)
        return self.unfold(self.conv_out(self.norm_out.swish(z)))


class Residual(Recomputable):
    """x + conv(swish(norm(conv(swish(norm(x)))))), with a 1x1 convolution on the short cut where the width changes.

    bias: of the convolutions; MAGVIT2's have none.
    """

    def __init__(self, c_in: int, c_out: int, groups: int, bias: bool = True):
        super().__init__()
        self.norm1, self.conv1 = Norm(c_in, groups), conv3x3(c_in, c_out, bias)
        self.norm2, self.conv2 = Norm(c_out, groups), conv3x3(c_out, c_out, bias)
        self.nin_shortcut = nn.Identity() if c_in == c_out else nn.Conv2d(c_in, c_out, 1, bias=bias)

    def forward(self, x: Float[Tensor, "B c_in h w"]) -> Float[Tensor, "B c_out h w"]:
        y = self.conv1(self.norm1.swish(x))
        y = self.conv2(self.norm2.swish(y))
        y += self.nin_shortcut(x)  # in place: memory never touched before costs more than the sum
        return y


class Attention(Recomputable):
    """Self-attention over all positions: one head, logits scaled by C^-0.5, 1x1 convolutions as projections."""

    def __init__(self, channels: int, groups: int):
        super().__init__()
        self.norm = Norm(channels, groups)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(channels, channels, 1) for _ in range(4))

    def forward(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
        y = self.norm(x)
        q, k, v = (project(y).flatten(2).mT.unsqueeze(1) for project in (self.q, self.k, self.v))  # [B 1 h*w C]
        y = F.scaled_dot_product_attention(q, k, v).squeeze(1)  # [B h*w C]
        return x + self.proj_out(y.mT.unflatten(2, x.shape[2:]))


class Level(nn.Module):
    """The residual blocks of one resolution, each followed by attention if `attention`."""

    def __init__(self, c_in: int, c_out: int, blocks: int, attention: bool, groups: int):
        super().__init__()
        self.res = nn.ModuleList(Residual(a, b, groups) for a, b in pairwise([c_in] + [c_out] * blocks))
        self.attn = nn.ModuleList(Attention(c_out, groups) if attention else nn.Identity() for _ in self.res)

    def forward(self, x: Float[Tensor, "B c_in h w"]) -> Float[Tensor, "B c_out h_out w_out"]:
        for res, attn in zip(self.res, self.attn, strict=True):
            x = attn(res(x))
        return x


class DownLevel(Level):
    """A level, then half the resolution: a zero row below, a zero column right, and a 3x3 convolution of stride 2.

    The one-sided padding is the released files'; with symmetric padding they would see the image a pixel off.
    """

    def __init__(self, c_in: int, c_out: int, blocks: int, attention: bool, groups: int):
        super().__init__(c_in, c_out, blocks, attention, groups)
        self.downsample = nn.ModuleDict({"conv": nn.Conv2d(c_out, c_out, 3, stride=2)})

    def forward(self, x: Float[Tensor, "B c_in h w"]) -> Float[Tensor, "B c_out h//2 w//2"]:
        return self.downsample["conv"](F.pad(super().forward(x), (0, 1, 0, 1)))


class UpLevel(Level):
    """A level, then twice the resolution: nearest neighbour and a 3x3 convolution."""

    def __init__(self, c_in: int, c_out: int, blocks: int, attention: bool, groups: int):
        super().__init__(c_in, c_out, blocks, attention, groups)
        self.upsample = nn.ModuleDict({"conv": conv3x3(c_out, c_out)})

    def forward(self, x: Float[Tensor, "B c_in h w"]) -> Float[Tensor, "B c_out 2*h 2*w"]:
        return self.upsample["conv"](F.interpolate(super().forward(x), scale_factor=2.0, mode="nearest"))


def middle(channels: int, attention: bool, groups: int) -> nn.Sequential:
    """Residual, attention (if any), residual; the released names are mid.0, mid.1, mid.2."""
    attend = Attention(channels, groups) if attention else nn.Identity()
    return nn.Sequential(Residual(channels, channels, groups), attend, Residual(channels, channels, groups))


def conv3x3(c_in: int, c_out: int, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(c_in, c_out, 3, padding=1, bias=bias)


def require_multiples(x: Float[Tensor, "B 3 H W"], downsample: int) -> None:
    """Raises ValueError unless `downsample` divides H and W."""
    if x.shape[-2] % downsample or x.shape[-1] % downsample:
        size = f"{x.shape[-2]} x {x.shape[-1]}"
        raise ValueError(f"The sides of an image must be multiples of {downsample}; crop or resize {size}.")
