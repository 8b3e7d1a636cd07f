"""The class token of DINOv2 ViT-L/14 (Oquab et al. 2023), by timm: the features of FD-DINOv2 (Stein et al. 2023).

As in the GPIC toolkit: each image to 224 x 224 px by Pillow's bicubic, whatever its shape, and ImageNet's mean and std.
"""

from pathlib import Path
from typing import Any, Literal

import timm
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, UInt8
from torch import Tensor, nn

from gear.evaluate.pil_resize import pil_resize
from gear.store.packages import sha256
from gear.targets.dinov2 import DINOv2

GRID = 16  # patches along a side
PATCH = 14  # px
OFFSET = 0.1  # patches that torch.hub's network adds to the grid when it resamples its table of positions
FEATURES = "cls"

Positions = Literal["hub", "timm"]


class DinoDetector(nn.Module):
    """B images -> {"cls": B x 1024}: the class token after the last LayerNorm, in float32 even under autocast.

    weights_path: as for `gear.targets.dinov2.DINOv2`, size "l"; raises ValueError if the file holds another network.
    positions: how the table of 37 x 37 positions becomes 16 x 16. "hub": bicubic without antialias at the scale
    16.1 / 37, as the network of torch.hub does it, which published FD-DINOv2 comes from. "timm": bicubic with
    antialias, as the targets of the training have it. The features differ; never compare one with the other.
    `architecture` overrides arguments of timm's function.
    """

    name = "dinov2-l"

    def __init__(self, weights_path: Path, positions: Positions = "hub", **architecture: Any):
        super().__init__()
        self.net = DINOv2(weights_path, size="l", **architecture)
        self.channels = {FEATURES: self.net.channels}
        self.positions, self.weights_path = positions, weights_path
        vit = self.net.vit
        assert vit.pos_embed is not None
        if positions == "hub":
            vit.pos_embed = nn.Parameter(hub_positions(vit.pos_embed, GRID), requires_grad=False)
            vit.patch_embed.set_input_size(img_size=GRID * PATCH)

    @torch.no_grad()
    def forward(self, pixels: UInt8[Tensor, "B 3 H W"]) -> dict[str, Float32[Tensor, "B D"]]:
        with torch.autocast(pixels.device.type, enabled=False):
            resized = pil_resize(pixels, (GRID * PATCH, GRID * PATCH))
            return {FEATURES: self.net.vit.forward_features(self.net.normalise(resized / 255))[:, 0]}

    def about(self) -> dict[str, Any]:
        """What its features depend on."""
        return {
            "name": self.name,
            "features": "class token after the last LayerNorm",
            "sha256": sha256(self.weights_path),
            "resize": f"Pillow bicubic, {GRID * PATCH} x {GRID * PATCH}",
            "positions": self.positions,
            "timm": timm.__version__,
        }


def hub_positions(table: Float[Tensor, "1 N C"], grid: int) -> Float[Tensor, "1 {grid}*{grid}+1 C"]:
    """The table with the class token's position first, resampled as facebookresearch/dinov2 does at its defaults.

    It gives the scale instead of the size: a tenth of a patch too large, so that rounding cannot lose a patch.
    """
    side = round((table.shape[1] - 1) ** 0.5)
    if side == grid:
        return table.detach().clone()
    square = table[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    scale = (grid + OFFSET) / side
    square = F.interpolate(square, scale_factor=(scale, scale), mode="bicubic")
    return torch.cat([table[:, :1], square.flatten(2).mT], dim=1).detach()
