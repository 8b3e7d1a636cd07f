from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from gear import config as cfg
from gear.generator import Generator


def tiny_generator(random: bool = True, **changes) -> Generator:
    """Two blocks of width 32 on a 3 x 4 grid in evaluation mode; `random` gives every matrix, head too, unit gain."""
    around = {"codebook_size": 20, "classes": 5, "grid": (3, 4), "target_dims": {"a": 6}, "text_width": None}
    config = cfg.Generator(layers=2, heads=2, width=32, tap=1, projector=16)
    config = replace(config, **{name: value for name, value in changes.items() if name not in around})
    torch.manual_seed(0)
    generator = Generator(config, **around | {name: changes[name] for name in changes.keys() & around.keys()})
    if random:
        for p in generator.parameters():
            torch.nn.init.normal_(p, mean=float(p.ndim == 1), std=p.shape[-1] ** -0.5)
    return generator.eval()


@pytest.fixture
def tiny() -> Callable[..., Generator]:
    return tiny_generator
