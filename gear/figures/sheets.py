"""Sheets of images, seen while a run trains: plain, or with a caption under each image."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional as F

from gear.figures.prompt_sheet import FONT, letters, lines

COLUMNS, LEGIBLE = 8, 128  # images in a row of a sheet; px, smaller ones are enlarged
LINES = 4  # of text under an image; a longer caption is cut
LETTERS = 20  # of ordinary text in a line, about
INK = (26, 28, 32)


def sheet(*images: UInt8[Tensor, "n 3 R R"]) -> UInt8[np.ndarray, "_ _ 3"]:
    """In rows of `COLUMNS`, white where the last is short; of several sets, one row of each in turn. Small images are
    enlarged by a whole number."""
    return _grid([enlarged(part) for part in images])


def captioned(images: UInt8[Tensor, "n 3 R R"], captions: Sequence[str]) -> UInt8[np.ndarray, "_ _ 3"]:
    """`sheet` of one set, the caption of each image under it, in at most `LINES` lines.

    Letters that the font lacks, as those of Chinese, are counted: a file of the captions should be beside the sheet.
    """
    cells = enlarged(images)
    width = cells.shape[-1]
    room = width - 2 * _margin(width)
    wrapped = [lines(caption, _font(width), room, letters(), LINES) for caption in captions]
    tall = max(map(len, wrapped), default=0)
    texts = torch.stack([torch.from_numpy(_text(own, width, tall)).permute(2, 0, 1) for own in wrapped])
    return _grid([torch.cat([cells, texts], dim=2)])


def enlarged(images: UInt8[Tensor, "n 3 R R"]) -> UInt8[Tensor, "n 3 S S"]:
    """By the whole number that brings them nearest to `LEGIBLE` from below; large ones as they are."""
    scale = max(1, LEGIBLE // images.shape[-1])
    return images.repeat_interleave(scale, dim=2).repeat_interleave(scale, dim=3)


def _text(text: Sequence[str], width: int, tall: int) -> UInt8[np.ndarray, "_ width 3"]:
    """Lines on white, with room for `tall` of them."""
    font, margin = _font(width), _margin(width)
    step = round(1.25 * font.size)
    image = Image.new("RGB", (width, tall * step + 2 * margin), "white")
    pen = ImageDraw.Draw(image)
    for i, line in enumerate(text):
        pen.text((margin, margin + i * step), line, INK, font)
    return np.array(image)


def _margin(width: int) -> int:
    return max(2, width // 32)


@lru_cache
def _font(width: int) -> ImageFont.FreeTypeFont:
    """In which about `LETTERS` letters fill a line; never smaller than can be read."""
    return ImageFont.truetype(str(FONT), max(10, round(width / LETTERS / 0.58)))


def _grid(sets: Sequence[UInt8[Tensor, "n 3 _ _"]]) -> UInt8[np.ndarray, "_ _ 3"]:
    """Of cells of one size."""
    n = len(sets[0])
    columns = min(COLUMNS, n)
    padded = torch.stack([F.pad(part, (0, 0) * 3 + (0, -n % columns), value=255) for part in sets])
    grid = padded.unflatten(1, (-1, columns)).permute(1, 0, 4, 2, 5, 3)  # row, set, y, column, x, channel
    return grid.flatten(3, 4).flatten(0, 2).numpy()
