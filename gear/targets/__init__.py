"""Target encoders: f(x) of eq. 5, what the generator's states are aligned to."""

from gear.targets.dinov2 import DINOv2
from gear.targets.efficientnet import EfficientNetLite0
from gear.targets.target import Standardised, Target, fit_standardisation

__all__ = ["DINOv2", "EfficientNetLite0", "Standardised", "Target", "fit_standardisation"]
