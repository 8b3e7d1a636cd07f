"""Images of one size as uint8, prepared once: the built-in emoji, CIFAR-10, or a folder."""

from gear.data.images import DataError, Images, Split
from gear.data.loading import NAMED, load, load_cifar10_test
from gear.data.order import batch_indices

__all__ = ["NAMED", "DataError", "Images", "Split", "batch_indices", "load", "load_cifar10_test"]
