"""The convolutional encoder and decoder of Open-MAGVIT2, the tokenizer of LFQ-16 (Table 18).

With the defaults of `config.MAGVIT2` they hold exactly the parameters of the public file, under its names
(`decoder.adaptive.4.gamma.weight`, ...), so such a file loads without renaming. `up` and `adaptive` are numbered by
resolution: index 0 is the highest, which the decoder comes to last.

Shapes: H, W pixels; h = H / downsample and w = W / downsample latents; downsample = 2^(len(multipliers) - 1).
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from gear.tokenizer.backbone import Residual, conv3x3, require_multiples
from gear.tokenizer.norm import Norm


class MAGVIT2Encoder(nn.Module):
    """Images to latents.

    channels: width of the first convolution. multipliers: width of each level over `channels`, highest resolution
    first; each level but the last halves the resolution. blocks: residual blocks a level, and in the middle. latent:
    width of the output, the bits of LFQ. groups: of GroupNorm; must divide every width.
    """

    def __init__(self, channels: int, multipliers: Sequence[int], blocks: int, latent: int, groups: int):
        super().__init__()
        widths = [channels * m for m in multipliers]
        lowest = len(widths) - 1
        self.downsample = 2**lowest
        self.conv_in = conv3x3(3, channels, bias=False)
        self.down = nn.ModuleList(
            (Level if i == lowest else DownLevel)(c_in, c_out, blocks, groups)
            for i, (c_in, c_out) in enumerate(pairwise([channels, *widths]))
        )
        self.mid_block = residuals(widths[-1], widths[-1], blocks, groups)
        self.norm_out = Norm(widths[-1], groups)
        self.conv_out = nn.Conv2d(widths[-1], latent, 1)

    def forward(self, x: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B latent h w"]:
        """x: images in [-1, 1]; the latents are unbounded. Raises ValueError unless `downsample` divides H and W."""
        require_multiples(x, self.downsample)
        x = self.conv_in(x)
        for level in self.down:
            x = level(x)
        return self.conv_out(self.norm_out.swish(self.mid_block(x)))


class MAGVIT2Decoder(nn.Module):
    """Latents to images; the arguments are the `MAGVIT2Encoder`'s.

    `multipliers` are again given from the highest resolution, and so are `up` and `adaptive` ordered.
    """

    def __init__(self, channels: int, multipliers: Sequence[int], blocks: int, latent: int, groups: int):
        super().__init__()
        widths = [channels * m for m in multipliers]
        inputs = [*widths[1:], widths[-1]]  # of each level: the width of the one below it
        self.conv_in = conv3x3(latent, widths[-1])
        self.mid_block = residuals(widths[-1], widths[-1], blocks, groups)
        self.adaptive = nn.ModuleList(AdaptiveGroupNorm(latent, c_in, groups) for c_in in inputs)
        self.up = nn.ModuleList(
            (UpLevel if i else Level)(c_in, c_out, blocks, groups)
            for i, (c_in, c_out) in enumerate(zip(inputs, widths, strict=True))
        )
        self.norm_out = Norm(widths[0], groups)
        self.conv_out = conv3x3(widths[0], 3)

    def forward(self, z: Float[Tensor, "B latent h w"]) -> Float[Tensor, "B 3 H W"]:
        """Images in the range of [-1, 1] but not clamped to it: the output has no non-linearity.

        Raises ValueError for a single latent: the adaptive norms take its unbiased variance over positions.
        """
        if z.shape[-2] * z.shape[-1] < 2:
            raise ValueError("The MAGVIT2 decoder needs an image of at least two tokens; this one has 1: enlarge it.")
        x = self.mid_block(self.conv_in(z))
        for adapt, level in zip(reversed(self.adaptive), reversed(self.up), strict=True):
            x = level(adapt(x, z))
        return self.conv_out(self.norm_out.swish(x))


class AdaptiveGroupNorm(nn.Module):
    """GroupNorm whose scale and bias are linear in each latent channel's deviation and mean over the image (AdaIN)."""

    def __init__(self, latent: int, channels: int, groups: int):
        super().__init__()
        self.groups = groups
        self.gamma, self.beta = nn.Linear(latent, channels), nn.Linear(latent, channels)

    def forward(self, x: Float[Tensor, "B C h w"], z: Float[Tensor, "B latent h_z w_z"]) -> Float[Tensor, "B C h w"]:
        variance, mean = torch.var_mean(z, dim=(2, 3), correction=1)  # unbiased, as in the released code
        scale, bias = self.gamma((variance + 1e-6).sqrt()), self.beta(mean)
        return F.group_norm(x, self.groups, eps=1e-6) * scale[..., None, None] + bias[..., None, None]


class Level(nn.Module):
    """The residual blocks of one resolution."""

    def __init__(self, c_in: int, c_out: int, blocks: int, groups: int):
        super().__init__()
        self.block = residuals(c_in, c_out, blocks, groups)

    def forward(self, x: Float[Tensor, "B c_in h w"]) -> Float[Tensor, "B c_out h_out w_out"]:
        return self.block(x)


class DownLevel(Level):
    """A level, then half the resolution: a 3x3 convolution of stride 2, padded alike on all sides (VQ-16's is not)."""

    def __init__(self, c_in: int, c_out: int, blocks: int, groups: int):
        super().__init__(c_in, c_out, blocks, groups)
        self.downsample = nn.Conv2d(c_out, c_out, 3, stride=2, padding=1)

    def forward(self, x: Float[Tensor, "B c_in h w"]) -> Float[Tensor, "B c_out h//2 w//2"]:
        return self.downsample(self.block(x))


class UpLevel(Level):
    """A level, then twice the resolution: a 3x3 convolution to four times the channels, folded into space."""

    def __init__(self, c_in: int, c_out: int, blocks: int, groups: int):
        super().__init__(c_in, c_out, blocks, groups)
        self.upsample = nn.ModuleDict({"conv1": conv3x3(c_out, 4 * c_out)})

    def forward(self, x: Float[Tensor, "B c_in h w"]) -> Float[Tensor, "B c_out 2*h 2*w"]:
        return depth_to_space(self.upsample["conv1"](self.block(x)))


def depth_to_space(x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C//4 2*h 2*w"]:
    """Channel (2 i + j) C / 4 + c goes to row 2 y + i and column 2 x + j of channel c.

    It is TensorFlow's order (ONNX: DCR): the place in the 2 x 2 block varies slowest, in `F.pixel_shuffle` fastest.
    The result is channels-last, which costs a copy of whole pixels.
    """
    x = x.permute(0, 2, 3, 1).unflatten(3, (2, 2, -1))  # B h w i j C/4
    x = x.transpose(2, 3).flatten(3, 4).flatten(1, 2)  # B 2h 2w C/4
    return x.permute(0, 3, 1, 2)


def residuals(c_in: int, c_out: int, blocks: int, groups: int) -> nn.Sequential:
    return nn.Sequential(*(Residual(a, b, groups, bias=False) for a, b in pairwise([c_in] + [c_out] * blocks)))
