"""A text-to-image run of the smallest kind, trained for a few steps on captioned images."""

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from gear import run
from gear.config import Config, Text

TOKENS = 8


@pytest.fixture(scope="session")
def talking(tiny: Config, reading_words: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run on eight captioned squares, to read and not to change."""
    images = tmp_path_factory.mktemp("captioned")
    for i in range(8):
        name, colour = (("red", (200, 0, 0)), ("blue", (0, 0, 200)))[i % 2]
        Image.new("RGB", (40, 40), colour).save(images / f"{i}.png")
        (images / f"{i}.txt").write_text(f"a photo of a {name} cup")
    text = Text(str(reading_words), tokens=TOKENS)
    config = replace(
        tiny,
        steps=40,
        optimizer=replace(tiny.optimizer, generator_lr=1e-2),
        generator=replace(tiny.generator, text=text),
        data=replace(tiny.data, path=str(images)),
    )
    folder = tmp_path_factory.mktemp("runs") / "talking"
    run.train(config, folder)
    return folder
