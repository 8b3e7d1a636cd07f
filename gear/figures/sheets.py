"""Sheets of images, seen while a run trains: plain, or with a caption under each image."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import matplotlib
import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional as F

COLUMNS, LEGIBLE = 8, 128  # images in a row of a sheet; px, smaller ones are enlarged
LINES = 4  # of text under an image; a longer caption ends in dots
LETTERS = 20  # of ordinary text in a line, about
FONT = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")  # Latin, Greek, Cyrillic, Arabic, Hebrew
INK, DOTS, UNKNOWN = (26, 28, 32), "\N{HORIZONTAL ELLIPSIS}", "\N{REPLACEMENT CHARACTER}"


def sheet(*images: UInt8[Tensor, "n 3 R R"]) -> UInt8[np.ndarray, "_ _ 3"]:
    """In rows of `COLUMNS`, white where the last is short; of several sets, one row of each in turn. Small images are
    enlarged by a whole number."""
    return _grid([enlarged(part) for part in images])


def captioned(images: UInt8[Tensor, "n 3 R R"], captions: Sequence[str]) -> UInt8[np.ndarray, "_ _ 3"]:
    """`sheet` of one set, the caption of each image under it, in at most `LINES` lines.

    A letter that the font lacks, as those of Chinese, is drawn as the sign for an unknown one: a file of the captions
    should be beside the sheet.
    """
    cells = enlarged(images)
    width = cells.shape[-1]
    lines = [wrapped(caption, width) for caption in captions]
    tall = max(map(len, lines), default=0)
    texts = torch.stack([torch.from_numpy(_text(own, width, tall)).permute(2, 0, 1) for own in lines])
    return _grid([torch.cat([cells, texts], dim=2)])


def enlarged(images: UInt8[Tensor, "n 3 R R"]) -> UInt8[Tensor, "n 3 S S"]:
    """By the whole number that brings them nearest to `LEGIBLE` from below; large ones as they are."""
    scale = max(1, LEGIBLE // images.shape[-1])
    return images.repeat_interleave(scale, dim=2).repeat_interleave(scale, dim=3)


def wrapped(caption: str, width: int) -> list[str]:
    """Lines of at most `width` px, broken between words where that is possible; dots where there were more."""
    font, room = _font(width), width - 2 * _margin(width)
    words = "".join(letter if _drawn(letter) else UNKNOWN for letter in " ".join(caption.split())).split()
    lines = [""]
    while words and len(lines) <= LINES:
        word = words.pop(0)
        joined = f"{lines[-1]} {word}".strip()
        if font.getlength(joined) <= room:
            lines[-1] = joined
        elif lines[-1]:
            lines.append("")
            words.insert(0, word)
        else:  # a word longer than a line
            fits = max((i for i in range(1, len(word)) if font.getlength(word[:i]) <= room), default=1)
            lines[-1:] = [word[:fits], ""]
            words.insert(0, word[fits:])
    if len(lines) <= LINES:
        return lines if lines[-1] else lines[:-1]
    last = lines[LINES - 1]
    while last and font.getlength(last + DOTS) > room:
        last = last[:-1]
    return [*lines[: LINES - 1], last.rstrip() + DOTS]


def _text(lines: Sequence[str], width: int, tall: int) -> UInt8[np.ndarray, "_ width 3"]:
    """Lines on white, with room for `tall` of them."""
    font, margin = _font(width), _margin(width)
    step = round(1.25 * font.size)
    image = Image.new("RGB", (width, tall * step + 2 * margin), "white")
    pen = ImageDraw.Draw(image)
    for i, line in enumerate(lines):
        pen.text((margin, margin + i * step), line, INK, font)
    return np.array(image)


def _margin(width: int) -> int:
    return max(2, width // 32)


@lru_cache
def _font(width: int) -> ImageFont.FreeTypeFont:
    """In which about `LETTERS` letters fill a line; never smaller than can be read."""
    return ImageFont.truetype(str(FONT), max(10, round(width / LETTERS / 0.58)))


@lru_cache(maxsize=4096)
def _drawn(letter: str) -> bool:
    """Whether the font has it: what it lacks is drawn like a code point that is none."""
    font = _font(LEGIBLE)
    return letter == " " or bytes(font.getmask(letter)) != bytes(font.getmask("\uffff"))


def _grid(sets: Sequence[UInt8[Tensor, "n 3 _ _"]]) -> UInt8[np.ndarray, "_ _ 3"]:
    """Of cells of one size."""
    n = len(sets[0])
    columns = min(COLUMNS, n)
    padded = torch.stack([F.pad(part, (0, 0) * 3 + (0, -n % columns), value=255) for part in sets])
    grid = padded.unflatten(1, (-1, columns)).permute(1, 0, 4, 2, 5, 3)  # row, set, y, column, x, channel
    return grid.flatten(3, 4).flatten(0, 2).numpy()
