"""Target encoders: f(x) of eq. 5, what the generator's states are aligned to."""

from gear.targets.dinov2 import DINOv2
from gear.targets.efficientnet import EfficientNetLite0
from gear.targets.encoders import ENCODERS, Encoder, check_grid, check_layer
from gear.targets.target import SpatiallyNormalised, Standardised, Target, fit_standardisation

__all__ = [
    "ENCODERS",
    "DINOv2",
    "EfficientNetLite0",
    "Encoder",
    "SpatiallyNormalised",
    "Standardised",
    "Target",
    "check_grid",
    "check_layer",
    "fit_standardisation",
]
