"""Images to the vectors whose distribution a Frechet distance compares."""

from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from gear.targets.efficientnet import load_efficientnet_lite, network_input

SIDE = 128  # px


class PooledEfficientNet(nn.Module):
    """The mean over positions after the last convolution of EfficientNet-Lite1, 1280 values; no download needed.

    A network of its own: the alignment target is Lite0, and a distance in features that the training pursued would
    flatter it. Distances in it are comparable with each other only, not with published FIDs.

    weights_path: see `gear.targets.efficientnet.load_efficientnet_lite`, variant 1.
    """

    channels = 1280

    def __init__(self, weights_path: Path):
        super().__init__()
        self.net = load_efficientnet_lite(1, weights_path)

    @torch.no_grad()
    def forward(self, pixels: UInt8[Tensor, "B 3 H W"]) -> Float[Tensor, "B 1280"]:
        """Every image is read at 128 x 128 px (antialiased bicubic), in float32 even under autocast."""
        with torch.autocast(pixels.device.type, enabled=False):
            return self.net.forward_features(network_input(pixels, (SIDE, SIDE))).mean((2, 3))
