"""Every target encoder by the name it has in `Config.targets` and in `gear fetch`."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from gear.targets.clip import CLIP
from gear.targets.dinov2 import DINOv2
from gear.targets.dinov3 import DINOv3
from gear.targets.efficientnet import EfficientNetLite0
from gear.targets.mobilenet import MobileNetV2
from gear.targets.resnet import ResNet50
from gear.targets.siglip2 import SigLIP2
from gear.targets.target import Target
from gear.targets.vjepa21 import VJEPA21


@dataclass(frozen=True)
class Encoder:
    """A target encoder that is not loaded yet. `gear.weights` knows its file by the same name."""

    make: Callable[..., Target]  # the class, which takes weights_path and layer
    layers: int  # blocks of a transformer, stages of a convolutional network
    grid: int | None = None  # the only number of tokens along a side that it can give; None: any
    standardised: bool = False  # whether its channels need `fit_standardisation`

    def load(self, weights_path: Path, layer: int | None = None) -> Target:
        """Raises ValueError if the file holds another network, or there is no such layer."""
        return self.make(weights_path, layer=layer)


ENCODERS: dict[str, Encoder] = {
    "dinov2-s": Encoder(partial(DINOv2, size="s"), layers=12),
    "dinov2-b": Encoder(partial(DINOv2, size="b"), layers=12),
    "dinov2-l": Encoder(partial(DINOv2, size="l"), layers=24),
    "dinov2-g": Encoder(partial(DINOv2, size="g"), layers=40),
    "dinov2-s-reg": Encoder(partial(DINOv2, size="s", registers=True), layers=12),
    "dinov2-b-reg": Encoder(partial(DINOv2, size="b", registers=True), layers=12),
    "dinov2-l-reg": Encoder(partial(DINOv2, size="l", registers=True), layers=24),
    "dinov2-g-reg": Encoder(partial(DINOv2, size="g", registers=True), layers=40),
    "dinov3-s": Encoder(partial(DINOv3, size="s"), layers=12),
    "dinov3-b": Encoder(partial(DINOv3, size="b"), layers=12),
    "dinov3-l": Encoder(partial(DINOv3, size="l"), layers=24),
    "siglip2-b": Encoder(partial(SigLIP2, size="b"), layers=12, grid=16),
    "siglip2-l": Encoder(partial(SigLIP2, size="l"), layers=24, grid=16),
    "siglip2-so400m": Encoder(partial(SigLIP2, size="so400m"), layers=27, grid=16),
    "siglip2-b-512": Encoder(partial(SigLIP2, size="b", resolution=512), layers=12, grid=32),
    "siglip2-l-512": Encoder(partial(SigLIP2, size="l", resolution=512), layers=24, grid=32),
    "siglip2-so400m-512": Encoder(partial(SigLIP2, size="so400m", resolution=512), layers=27, grid=32),
    "vjepa2.1-b": Encoder(partial(VJEPA21, size="b"), layers=12),
    "vjepa2.1-l": Encoder(partial(VJEPA21, size="l"), layers=24),
    "clip-l": Encoder(CLIP, layers=24, grid=16),
    "efficientnet_lite0": Encoder(EfficientNetLite0, layers=7, standardised=True),
    "mobilenet_v2": Encoder(MobileNetV2, layers=7, standardised=True),
    "resnet50": Encoder(ResNet50, layers=4, standardised=True),
}


def check_grid(name: str, resolution: int, grid: int) -> None:
    """Raises ValueError unless the encoder, which is not loaded, can give grid x grid tokens. resolution: px."""
    only = ENCODERS[name].grid
    if only in (None, grid):
        return
    same = name.removesuffix("-512")
    other = next((n for n in (same, f"{same}-512") if n in ENCODERS and ENCODERS[n].grid == grid), None)
    instead = f"use {other}" if other else "use one of any grid, as dinov2-b"
    raise ValueError(
        f"The target {name} gives {only} x {only} tokens and no others, and images of {resolution} px are "
        f"{grid} x {grid} tokens here: {instead}, or images of {resolution * only // grid} px."
    )


def check_layer(name: str, layer: int | None) -> None:
    """Raises ValueError unless the encoder has that layer; it is not loaded."""
    layers = ENCODERS[name].layers
    if layer is not None and not 1 <= layer <= layers:
        raise ValueError(f"The target {name} has the layers 1 to {layers}; it has no layer {layer}.")
