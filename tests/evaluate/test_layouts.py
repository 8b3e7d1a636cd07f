"""Folders of drawn images: the official layouts, file by file; interrupted and called again; of other prompts."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from gear.evaluate.captions import Caption
from gear.evaluate.layouts import LayoutError, tiles, write_dpg, write_flat, write_geneval
from gear.evaluate.prompts import GenevalPrompt

PROMPTS = [
    GenevalPrompt(f"a photo of {what}", {"tag": "single_object", "include": [], "prompt": what}) for what in ("a", "b")
]
ABOUT = {"seed": 0, "cfg_interval": (1, 3)}


class Drawing:
    """A colour for each prompt and number; remembers what was asked, and stops before image `last`."""

    def __init__(self, last: int = 10**9):
        self.asked: list[tuple[str, int]] = []
        self.last = last

    def __call__(self, prompts: Sequence[str], numbers: Sequence[int]) -> Tensor:
        if len(self.asked) + len(prompts) > self.last:
            raise KeyboardInterrupt
        self.asked += zip(prompts, numbers, strict=True)
        colours = [[len(prompt) * 9 % 256, number, 7] for prompt, number in zip(prompts, numbers, strict=True)]
        return torch.tensor(colours, dtype=torch.uint8)[:, :, None, None].expand(-1, -1, 16, 16)


def files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def pixels(file: Path) -> Tensor:
    return torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1)


def test_geneval(tmp_path: Path) -> None:
    draw = Drawing()
    out = write_geneval(PROMPTS, draw, tmp_path / "g", about=ABOUT, side=32, batch=3)
    assert list(files(out)) == [
        f"{i:05d}/{name}"
        for i in range(2)
        for name in ("grid.png", "metadata.jsonl", *(f"samples/{j:05d}.png" for j in range(4)))
    ]
    for i, prompt in enumerate(PROMPTS):
        assert json.loads((out / f"{i:05d}" / "metadata.jsonl").read_text()) == prompt.metadata
    assert draw.asked == [(PROMPTS[number // 4].prompt, number) for number in range(8)]
    samples = [pixels(out / "00001" / "samples" / f"{j:05d}.png") for j in range(4)]
    assert samples[0].shape == (3, 32, 32)
    assert samples[2][1, 0, 0] == 6
    for tile, sample in zip(tiles(pixels(out / "00001" / "grid.png")), samples, strict=True):
        assert torch.equal(tile, sample)


def test_dpg_is_a_grid_a_prompt(tmp_path: Path) -> None:
    out = write_dpg({"stanford_1": "a", "x.2": "bb"}, Drawing(), tmp_path / "d", about=ABOUT, side=20)
    assert list(files(out)) == ["stanford_1.png", "x.2.png"]  # nothing else: the scorer takes every file for an image
    grid = pixels(out / "x.2.png")
    assert grid.shape == (3, 40, 40)
    corners = [grid[1, y, x].item() for y, x in ((0, 0), (0, 39), (39, 0), (39, 39))]
    assert corners == [4, 5, 6, 7]


def test_flat_keeps_keys_and_size(tmp_path: Path) -> None:
    out = write_flat([Caption("000005", "A cat."), Caption("k", "A dog.")], Drawing(), tmp_path / "f", about=ABOUT)
    assert list(files(out)) == ["000005.png", "k.png"]
    assert pixels(out / "k.png").shape == (3, 16, 16)
    assert pixels(out / "k.png")[1, 0, 0] == 1


@pytest.mark.parametrize("batch", [1, 5])
def test_interrupted_and_called_again_it_draws_the_rest(batch: int, tmp_path: Path) -> None:
    whole = write_geneval(PROMPTS, Drawing(), tmp_path / "whole", about=ABOUT, side=None)
    with pytest.raises(KeyboardInterrupt):
        write_geneval(PROMPTS, Drawing(last=6), tmp_path / "g", about=ABOUT, side=None, batch=batch)
    rest = Drawing()
    out = write_geneval(PROMPTS, rest, tmp_path / "g", about=ABOUT, side=None)
    assert 0 < len(rest.asked) < 8
    assert files(out) == files(whole)
    again = Drawing()
    write_geneval(PROMPTS, again, tmp_path / "g", about=ABOUT, side=None)
    assert again.asked == []


@pytest.mark.parametrize(
    ("change", "differs"),
    [({"about": {**ABOUT, "seed": 1}}, "seed"), ({"side": 8}, "side"), ({"prompts": PROMPTS[::-1]}, "prompts")],
)
def test_a_folder_of_other_images(change: dict[str, Any], differs: str, tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "prompts": PROMPTS,
        "draw": Drawing(),
        "out": tmp_path / "g",
        "side": None,
        "about": ABOUT,
    }
    write_geneval(**settings)
    with pytest.raises(LayoutError, match=rf"other settings \({differs}\)"):
        write_geneval(**settings | change)


def test_a_folder_of_somebody_else(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "me.png").write_bytes(b"")
    with pytest.raises(LayoutError, match="is not empty"):
        write_flat([Caption("a", "b")], Drawing(), tmp_path / "photos", about=ABOUT)
    with pytest.raises(LayoutError, match="keys must not hold slashes"):
        write_flat([Caption("../a", "b")], Drawing(), tmp_path / "f", about=ABOUT)


def test_a_grid_of_odd_sides() -> None:
    with pytest.raises(LayoutError, match="this is of 11 x 10 px"):
        list(tiles(torch.zeros(3, 10, 11, dtype=torch.uint8)))
