"""For one's own images and for small machines. `gear plan NAME` says the memory and the hours of each.

None is from the paper. Those that start from warmup-vq-16, the authors' tokenizer with its critic, adapt it while they
train the generator. On images far from photographs a warm-up on the same folder may come first:
`gear train warmup-vq --data.path FOLDER --data.classes folders --steps 20000 --batch 16`, and after it
--tokenizer.init runs/warmup-vq.
"""

from dataclasses import replace

from gear.config import FAMILIES, Config, Data, Optimizer
from gear.recipes.base import gear_b
from gear.recipes.demos import demo
from gear.recipes.registry import recipe

BATCH = 12  # of GEAR-B at 256 px: a third of 24 GiB is left to the allocator and the libraries


@recipe("own")
def imagenet_b_24gb() -> Config:
    """GEAR-B on ImageNet with one 24 GB GPU.

    As gear-b, but 12 images a step and five epochs of them, from the authors' warm-up tokenizer.
    """
    tokenizer = replace(FAMILIES["VQ-16"], init="warmup-vq-16")
    return replace(gear_b(), tokenizer=tokenizer, steps=500_000, batch=BATCH)


@recipe("own")
def folder_256() -> Config:
    """GEAR-B on your own images at 256 px, one 24 GB GPU.

    A folder of class folders, or of images, which are then one class. With writing in them: --data.flip False.
    """
    data = Data("images", crop="random", workers=8)
    return replace(imagenet_b_24gb(), data=data, optimizer=Optimizer(ema=0.999), steps=50_000, save_every=1000)


@recipe("own")
def folder_128_laptop() -> Config:
    """GEAR on your own images at 128 px, on a laptop's CPU.

    The demo's networks and tokenizer; 256 tokens an image.
    """
    return replace(demo(), data=Data("images", resolution=128), steps=3000, batch=16)
