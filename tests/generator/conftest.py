from collections.abc import Callable

import pytest
import torch

from gear.generator import Generator


def tiny_generator(random: bool = True, **changes) -> Generator:
    """Two blocks of width 32 on a 3 x 4 grid in evaluation mode; `random` gives every matrix, head too, unit gain."""
    arguments = {
        "codebook_size": 20,
        "classes": 5,
        "layers": 2,
        "heads": 2,
        "width": 32,
        "tap": 1,
        "grid": (3, 4),
        "projector": 16,
        "target_dims": {"a": 6},
    }
    torch.manual_seed(0)
    generator = Generator(**arguments | changes)
    if random:
        for p in generator.parameters():
            torch.nn.init.normal_(p, mean=float(p.ndim == 1), std=p.shape[-1] ** -0.5)
    return generator.eval()


@pytest.fixture
def tiny() -> Callable[..., Generator]:
    return tiny_generator
