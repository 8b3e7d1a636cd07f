"""MobileNetV2 (Sandler et al. 2018; BSD-3, ImageNet), whose weights come inside a Python package."""

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn
from torchvision.models import mobilenet_v2
from torchvision.models.mobilenetv2 import MobileNetV2 as Network

from gear.targets import files
from gear.targets.convolutional import fold_norms, stage_number, width
from gear.targets.target import resized

STRIDES = (2, 4, 8, 16, 16, 32, 32)  # of the maps after the stages of bottlenecks, Table 2
BLOCKS = (1, 2, 3, 4, 3, 3, 1)  # in each


class MobileNetV2(nn.Module):
    """The stride-16 map after stage 5, 96 channels: the output of a linear bottleneck, no activation after it.

    weights_path: see `load_mobilenet_v2`. layer: the map after that stage, from 1 to 7, instead. `architecture`
    overrides arguments of torchvision's mobilenet_v2.
    """

    name = "mobilenet_v2"
    mean: Tensor
    std: Tensor

    def __init__(self, weights_path: Path, layer: int | None = None, **architecture: Any):
        super().__init__()
        stage = stage_number(self.name, 5 if layer is None else layer, len(STRIDES))
        net = load_mobilenet_v2(weights_path, **architecture)
        self.stride = STRIDES[stage - 1]
        self.net = nn.Sequential(*list(net.features.children())[: 1 + sum(BLOCKS[:stage])])
        self.channels = width(self.net)
        self.register_buffer("mean", 255 * torch.tensor(IMAGENET_DEFAULT_MEAN)[:, None, None])
        self.register_buffer("std", 255 * torch.tensor(IMAGENET_DEFAULT_STD)[:, None, None])

    def preprocess(self, pixels: UInt8[Tensor, "B 3 H W"], grid: tuple[int, int]) -> Float[Tensor, "B 3 h w"]:
        """ImageNet's mean and standard deviation. No feature is resampled: the image is, to `stride` px a token."""
        h, w = grid
        x = (resized(pixels, (self.stride * h, self.stride * w)) - self.mean) / self.std
        return x.contiguous(memory_format=torch.channels_last)

    @torch.no_grad()
    def features(self, pixels: UInt8[Tensor, "B 3 H W"], grid: tuple[int, int]) -> Float[Tensor, "B N C"]:
        """f(x) of eq. 5, see `Target`."""
        return self.net(self.preprocess(pixels, grid)).flatten(2).mT.float()


def load_mobilenet_v2(weights_path: Path, **architecture: Any) -> Network:
    """The frozen network in eval mode and float32, its normalisations folded into the convolutions.

    weights_path: torchvision's mobilenet_v2-b0353104.pth, or the same tensors in a safetensors file. Raises ValueError
    if the file does not hold exactly this network.
    """
    with torch.device("meta"):  # no time and no random numbers for an initialisation that is overwritten
        net = mobilenet_v2(**architecture)
    files.fill(net, files.read(weights_path), weights_path, "MobileNetV2")
    net.eval().requires_grad_(False)
    fold_norms(net)
    return net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
