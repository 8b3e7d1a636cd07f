from collections.abc import Callable
from typing import Literal

import pytest
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from gear import config as cfg
from gear.generator import Generator
from gear.tokenizer.tokenizer import Tokenizer

GRID = (4, 4)


class Squares:
    """A target that sees the mean colour of each token's square, and some products."""

    name, channels = "squares", 5

    def features(self, pixels: UInt8[Tensor, "B 3 H W"], grid: tuple[int, int]) -> Float[Tensor, "B N C"]:
        x = torch.nn.functional.adaptive_avg_pool2d(pixels.float() / 255, grid).flatten(2).mT
        return torch.cat([x, x[..., :2] * x[..., 1:]], 2)

    def to(self, device: torch.device) -> "Squares":
        return self


@pytest.fixture
def target() -> Squares:
    return Squares()


@pytest.fixture
def tokenizer() -> Tokenizer:
    backbone = cfg.VQGAN(channels=16, multipliers=(1, 2), latent=16, attention=False, groups=8, patch=4)
    return Tokenizer(cfg.VQ(codebook_size=16, dim=4), backbone).eval()


def make_generator(align: Literal["next", "same"] = "next") -> Generator:
    """Three blocks on a 4 x 4 grid, with random weights of unit gain and dropout that must not act."""
    config = cfg.Generator(layers=3, heads=2, width=32, tap=2, projector=16, dropout=0.5, align=align)
    net = Generator(config, codebook_size=16, classes=3, grid=GRID, target_dims={"squares": 5})
    for p in net.parameters():
        torch.nn.init.normal_(p, mean=float(p.ndim == 1), std=p.shape[-1] ** -0.5)
    return net


@pytest.fixture
def generator() -> Generator:
    return make_generator()


@pytest.fixture
def generator_of() -> Callable[[Literal["next", "same"]], Generator]:
    """With this `align`."""
    return make_generator


@pytest.fixture
def pixels() -> Tensor:
    """30 images of 32 px: noise at several scales."""
    coarse = torch.rand(30, 3, 4, 4)
    x = torch.nn.functional.interpolate(coarse, 32, mode="bilinear") + 0.2 * torch.rand(30, 3, 32, 32)
    return (255 * x / 1.2).to(torch.uint8)
