"""Images and their labels, three ways.

`load`: the built-in emoji, CIFAR-10 or a folder, prepared once as uint8 squares. `streaming`: images that are decoded
at each visit, for random crops and sets too large to prepare. `shards`: the tokens of images that were encoded before.
The images of a folder are files, or members of tars.
"""

from gear.data.images import DataError, Images, Split
from gear.data.loading import load, load_cifar10_test
from gear.data.order import batch_indices

__all__ = ["DataError", "Images", "Split", "batch_indices", "load", "load_cifar10_test"]
