"""Images and their labels or captions, three ways.

`load`: the built-in emoji, CIFAR-10 or a folder, prepared once as uint8 squares. `streaming`: images that are decoded
at each visit, for random crops and sets too large to prepare. `shards`: the tokens of images that were encoded before.
The images of a folder are files, or members of tars. `loaded` and `listed` give what a run trains on, split, of one set
or a mixture.
"""

from gear.data.images import DataError, Images, Split
from gear.data.loading import load, load_cifar10_test
from gear.data.mixing import listed, loaded
from gear.data.order import batch_indices

__all__ = ["DataError", "Images", "Split", "batch_indices", "listed", "load", "load_cifar10_test", "loaded"]
