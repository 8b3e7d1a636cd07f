"""Which images `gear evaluate adm` measures, and against which."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from gear.commands import measuring
from gear.evaluate import images
from gear.evaluate.reference import Measured, Reference


def test_fewer_images_than_there_are_have_all_classes(images_folder: Path, monkeypatch: pytest.MonkeyPatch):
    """Of samples and references in class folders, `disc` and `square` of four each."""
    seen: list[Reference] = []

    def measured(reference: Reference, *given: Any, **more: Any) -> Measured:
        seen.append(reference)
        return Measured({}, np.zeros((0, 1), np.float32), reference.about)

    monkeypatch.setattr(measuring.inception, "opened", nn.Identity)
    monkeypatch.setattr(measuring.references, "measured", measured)
    where = str(images_folder)
    asked = measuring.Asked(where, where, 2, 4, 0, None, 32, None, "bicubic", False, None, None, "cpu", "")
    with measuring.judging(asked) as judge:
        for source, each in ((judge.samples, 1), (seen[0].source, 2)):
            assert isinstance(source, images.Decoded)
            assert source.files.names == tuple(f"{name}/{i}.png" for name in ("disc", "square") for i in range(each))
    assert (judge.against.about["n"], judge.against.about["part_of"]) == (4, 8)
