"""A sheet of images with what they were drawn from written above them."""

import unicodedata
from collections.abc import Collection, Sequence
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
from jaxtyping import UInt8
from matplotlib.ft2font import FT2Font
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from gear.store.whole import replacing

COLUMNS = 8  # images beside each other, at most
LEAST = 512  # px, width of a sheet, so that a text has room
GAP = 6  # px, around what is on it
SIZE = 16  # px, of the letters
LINES = 8  # of a text, which ends with dots where it is longer
FONT = Path(
    matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"
)  # Latin, Greek, Cyrillic, Arabic, Hebrew, signs
FEW = 2  # letters that the font lacks, which can be looked up


def save_captioned(images: UInt8[Tensor, "N 3 H W"], texts: Sequence[str], path: Path, upscale: int = 1) -> None:
    """As one PNG: each text, and under it its N / len(texts) images, text after text, at most `COLUMNS` in a row.

    Long texts are wrapped, and cut where they fill `LINES`. What the font lacks is written by name ([grinning face]),
    or counted, as `written` says. upscale: each pixel becomes `upscale` x `upscale`. Raises ValueError where N is no
    multiple.
    """
    if not len(texts) or len(images) % len(texts):
        raise ValueError(f"each of {len(texts)} texts needs equally many images; there are {len(images)}.")
    each = len(images) // len(texts)
    columns, (height, width) = min(each, COLUMNS), (upscale * side for side in images.shape[-2:])
    whole = max(LEAST, columns * (width + GAP) + GAP)
    pixels = images.cpu().permute(0, 2, 3, 1).numpy().repeat(upscale, axis=1).repeat(upscale, axis=2)
    font, known = ImageFont.truetype(str(FONT), SIZE), letters()
    wrapped = [lines(text, font, whole - 2 * GAP, known) for text in texts]
    step = sum(font.getmetrics())
    rows = -(-each // columns)
    tall = [len(said) * step + GAP + rows * (height + GAP) + GAP for said in wrapped]
    sheet = Image.new("RGB", (whole, sum(tall) + GAP), "white")
    pen, y = ImageDraw.Draw(sheet), GAP
    for i, said in enumerate(wrapped):
        for k, line in enumerate(said):
            x = whole - GAP - font.getlength(line) if _leftwards(texts[i]) else GAP
            pen.text((x, y + k * step), line, fill="black", font=font)
        top = y + len(said) * step + GAP
        for j in range(each):
            place = GAP + j % columns * (width + GAP), top + j // columns * (height + GAP)
            sheet.paste(Image.fromarray(np.ascontiguousarray(pixels[i * each + j])), place)
        y += tall[i]
    with replacing(path) as temporary:
        sheet.save(temporary, format="PNG")


def lines(text: str, font: ImageFont.FreeTypeFont, width: int, known: Collection[int], most: int = LINES) -> list[str]:
    """A text in lines of at most `width` px, at most `most`. A word that is wider alone is broken."""
    found = [""]
    for word in written(text, known).split():
        joined = f"{found[-1]} {word}".lstrip()
        if font.getlength(joined) <= width:
            found[-1] = joined
            continue
        found += [""] * bool(found[-1])
        for letter in word:
            if font.getlength(found[-1] + letter) > width:
                found.append("")
            found[-1] += letter
    if len(found) <= most:
        return found
    last = found[most - 1]
    while last and font.getlength(f"{last} ...") > width:
        last = last[:-1]
    return [*found[: most - 1], f"{last} ..."]


def written(text: str, known: Collection[int]) -> str:
    """With letters of `known` code points alone, blanks for what steers a terminal or a line, symbols by name.

    Of other letters that stand together, with blanks and punctuation between them, the code points are given where
    they are `FEW`, else their number: [5 letters that the font lacks].
    """
    found, run, between = "", "", ""
    for letter in text:
        shown = _shown(letter, known)
        if shown is None:
            run, between = run + letter, ""
        elif run and (not shown.strip() or _is(letter, "P")):
            between += shown
        else:
            found, run, between = found + _note(run) + between + shown, "", ""
    return found + _note(run) + between


def lacks(text: str, known: Collection[int]) -> bool:
    """Whether it has letters that `written` does not show."""
    return any(_shown(letter, known) is None for letter in text)


def _shown(letter: str, known: Collection[int]) -> str | None:
    """What stands for one letter; None for one that is not there and has no name of its own."""
    if ord(letter) in known:
        return letter
    kind = unicodedata.category(letter)
    if kind in ("Cc", "Zl", "Zp", "Zs"):
        return " "
    if kind in ("Mn", "Me", "Cf"):  # joiners and variants of an emoji
        return ""
    name = unicodedata.name(letter, "").lower()
    return f"[{name}]" if name and _is(letter, "S") else None


def _is(letter: str, kind: str) -> bool:
    return unicodedata.category(letter).startswith(kind)


def _note(run: str) -> str:
    letters = [letter for letter in run if not _is(letter, "P")] or run
    if len(letters) > FEW:
        return f"[{len(letters)} letters that the font lacks]"
    return f"[{' '.join(f'U+{ord(letter):04X}' for letter in letters)}]" if run else ""


def _leftwards(text: str) -> bool:
    """Whether it begins at the right, by its first letter that has a direction."""
    kinds = (unicodedata.bidirectional(letter) for letter in text)
    return next((kind for kind in kinds if kind in ("L", "R", "AL")), "L") != "L"


@cache
def letters() -> frozenset[int]:
    """The code points that the font has."""
    return frozenset(FT2Font(FONT).get_charmap())
