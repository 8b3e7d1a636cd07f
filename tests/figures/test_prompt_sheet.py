"""Sheets with texts above their images: where each is, what is wrapped, and letters that the font lacks."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFont

from gear.figures.prompt_sheet import FONT, GAP, LINES, SIZE, lacks, lines, save_captioned, written

KNOWN = frozenset(range(32, 127))


@pytest.fixture
def font() -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(FONT), SIZE)


def test_each_text_stands_above_its_images(tmp_path: Path) -> None:
    images = torch.arange(6, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 20, 20) * 30 + 40
    save_captioned(images, ["a red cup", "word " * 30], tmp_path / "s.png", upscale=2)
    sheet = np.asarray(Image.open(tmp_path / "s.png")).astype(int)
    assert sheet.shape[1] == 512
    tops = []
    for i in range(6):
        x = GAP + i % 3 * (40 + GAP)
        column = np.flatnonzero((sheet[:, x] == 40 + 30 * i).all(-1))
        tops.append(column[0])
        assert (sheet[tops[i] : tops[i] + 40, x : x + 40] == 40 + 30 * i).all()
    assert tops[0] == tops[1] == tops[2] < tops[3] == tops[5]
    ink = (sheet.sum(-1) < 60).any(1)
    assert ink[: tops[0]].any()
    assert ink[tops[0] + 40 : tops[3]].any()
    assert not ink[tops[3] :].any()
    assert tops[3] - tops[0] - 40 > 1.5 * tops[0]  # of three lines


def test_more_images_than_a_row_holds(tmp_path: Path) -> None:
    save_captioned(torch.zeros(10, 3, 100, 100, dtype=torch.uint8), ["a"], tmp_path / "s.png")
    assert np.asarray(Image.open(tmp_path / "s.png")).shape[1] == 8 * 106 + 6
    with pytest.raises(ValueError, match="each of 3 texts needs equally many images; there are 10"):
        save_captioned(torch.zeros(10, 3, 8, 8, dtype=torch.uint8), ["a", "b", "c"], tmp_path / "s.png")


def test_lines_fit_and_lose_nothing(font: ImageFont.FreeTypeFont) -> None:
    text = "a photo of " + "three cups " * 12
    found = lines(text, font, 300, KNOWN)
    assert " ".join(found) == text.strip()
    assert max(map(font.getlength, found)) <= 300 < font.getlength(f"{found[0]} {found[1].split()[0]}")
    assert "".join(lines("x" * 80, font, 200, KNOWN)) == "x" * 80
    cut = lines("word " * 500, font, 300, KNOWN)
    assert len(cut) == LINES
    assert cut[-1].endswith(" ...")
    assert max(map(font.getlength, cut)) <= 300


def test_letters_that_are_not_there() -> None:
    assert (
        written("a\t\x1b[1m\u200db\N{RED APPLE}\N{VARIATION SELECTOR-16}\u4e00", KNOWN) == "a  [1mb[red apple][U+4E00]"
    )


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("一只红色的狐狸", "[7 letters that the font lacks]"),
        ("a sign 出口 here", "a sign [U+51FA U+53E3] here"),
        ("赤い リンゴ、, 雪の中。 a fox", "[8 letters that the font lacks] a fox"),
        ("a red 狐狸狐狸, and a fox", "a red [4 letters that the font lacks], and a fox"),
        ("\N{GRINNING FACE} 一 \N{GRINNING FACE}", "[grinning face] [U+4E00] [grinning face]"),
        ("。", "[U+3002]"),
        ("\ud83d", "[U+D83D]"),
    ],
)
def test_letters_that_the_font_lacks_are_told_in_short(text: str, want: str) -> None:
    assert written(text, KNOWN) == want
    assert lacks(text, KNOWN)
    assert not lacks("a\tred, \N{GRINNING FACE}", KNOWN)


@pytest.mark.parametrize(
    "text", ["سوداء صغيرة", "שלג לבן", "\U0001f9d1\U0001f3fd\u200d\U0001f680", "\ud83d", "\u202e mirrored"]
)
def test_any_text_can_be_drawn(text: str, tmp_path: Path) -> None:
    save_captioned(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), [text], tmp_path / "s.png")
    sheet = np.asarray(Image.open(tmp_path / "s.png"))
    ink = np.flatnonzero((sheet[: 2 * GAP + SIZE - 6] < 100).all(-1).any(0))
    assert len(ink)
    assert (ink.max() > 480) == (text[0] in "سש")  # from the right
