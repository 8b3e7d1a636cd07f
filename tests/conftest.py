"""What every test gets: one torch thread, a fixed seed, no user caches; and a run that takes half a second.

pyproject.toml adds the annotation checks.
"""

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from gear.config import (
    VQ,
    VQGAN,
    Config,
    Critic,
    Data,
    Gear,
    Generator,
    Optimizer,
    Target,
    Tokenizer,
    TokenizerLoss,
    Watch,
)

torch.set_num_threads(1)  # the tests are small, and run beside each other


@pytest.fixture(autouse=True)
def seed() -> int:
    """The same random numbers in a test whichever tests ran before it."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    return 0


@pytest.fixture(scope="session", autouse=True)
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """For subprocesses too: one thread, and nothing is read from or written to the user's caches."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        for name in ("GEAR_CACHE", "TORCH_HOME", "HF_HOME"):
            patch.setenv(name, str(tmp_path_factory.getbasetemp() / "cache"))
        yield


@pytest.fixture(scope="session")
def images_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two class folders, `disc` and `square`, of four RGB images each, 48 to 96 px, of unequal sides."""
    root = tmp_path_factory.mktemp("images")
    shapes: dict[str, Callable[..., None]] = {
        "disc": ImageDraw.ImageDraw.ellipse,
        "square": ImageDraw.ImageDraw.rectangle,
    }
    for name, draw in shapes.items():
        (root / name).mkdir()
        for i in range(4):
            image = gradient(width=48 + 16 * i, height=96 - 8 * i, tilt=i / 3)
            draw(ImageDraw.Draw(image), (12 + i, 12, 36 + i, 36), fill=(40 * i, 200, 255 - 60 * i))
            image.save(root / name / f"{i}.png")
    return root


def gradient(width: int, height: int, tilt: float) -> Image.Image:
    """A smooth RGB image: red grows to the right, green downwards, blue along the diagonal given by `tilt`."""
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    return Image.fromarray(np.uint8(255 * np.stack([x, y, tilt * x + (1 - tilt) * y], axis=-1)))


@pytest.fixture(scope="session")
def tiny(images_folder: Path) -> Config:
    """The smallest run with every part: GEAR from scratch on `images_folder`, 4 x 4 tokens, both kinds of dropout."""
    return Config(
        stage=Gear(),
        tokenizer=Tokenizer(
            quantizer=VQ(codebook_size=16, dim=4),
            backbone=VQGAN(
                channels=16,
                multipliers=(1, 2),
                encoder_blocks=1,
                decoder_blocks=1,
                latent=16,
                attention=False,
                groups=8,
                patch=4,
            ),
            critic=Critic(channels=8, layers=1),
            loss=TokenizerLoss(perceptual_trunk="alex"),
        ),
        generator=Generator(layers=2, heads=2, width=32, tap=1, projector=16),
        targets=(Target("efficientnet_lite0"),),
        data=Data(str(images_folder), resolution=32, holdout=0.1),
        optimizer=Optimizer(tokenizer_lr=1e-3, critic_lr=1e-3, generator_lr=1e-3, ema=0.9),
        steps=6,
        batch=3,
        precision="float32",
        log_every=2,
        save_every=100,
        watch=Watch(sample_every=0, evaluate_every=0, trackers=()),
        device="cpu",
    )


@pytest.fixture(scope="session")
def trained(tiny: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of `tiny`, to read and not to change."""
    from gear import run  # late: not every test needs it

    folder = tmp_path_factory.mktemp("runs") / "tiny"
    run.train(tiny, folder)
    return folder
