"""Sheets with captions: the pixels of the images as they are, the text under them, and the same room for each."""

import numpy as np
import pytest
import torch

from gear.figures.sheets import COLUMNS, LEGIBLE, captioned, sheet


def images(n: int, side: int) -> torch.Tensor:
    return torch.randint(0, 256, (n, 3, side, side), dtype=torch.uint8)


@pytest.mark.parametrize(("n", "side"), [(3, 16), (10, 64), (2, 256)])
def test_images_are_as_on_a_plain_sheet_with_text_under_each(n: int, side: int) -> None:
    x = images(n, side)
    cell, columns = max(LEGIBLE // side * side, side), min(n, COLUMNS)
    rows = -(-n // columns)
    plain, told = sheet(x), captioned(x, ["a red fox"] * n)
    tall = told.shape[0] // rows
    assert told.shape == (rows * tall, columns * cell, 3)
    assert cell < tall < 1.3 * cell
    for row in range(rows):
        assert np.array_equal(told[row * tall :][:cell], plain[row * cell :][:cell])
        for i in range(columns):
            under = told[row * tall + cell : (row + 1) * tall, i * cell : (i + 1) * cell]
            assert (under < 128).any() == (row * columns + i < n)  # ink, and white where there is no image
            assert (under[:, -2:] == 255).all()  # the text ends inside its cell


def test_a_long_caption_makes_room_for_all_and_is_cut() -> None:
    x = images(2, 64)
    short, long = captioned(x, ["fox", "fox"]), captioned(x, ["fox", "word " * 500])
    longer = captioned(x, ["Unbreakable" * 300, "\N{CJK UNIFIED IDEOGRAPH-4E2D}" * 300])
    assert short.shape[0] < long.shape[0] == longer.shape[0] < 2 * LEGIBLE
    assert np.array_equal(short[LEGIBLE + 2 : LEGIBLE + 16, :LEGIBLE], long[LEGIBLE + 2 : LEGIBLE + 16, :LEGIBLE])


def test_different_captions_look_different_and_none_is_white() -> None:
    x = images(2, 64)
    under = captioned(x, ["a fox", "a dog"])[LEGIBLE:]
    assert not np.array_equal(under[:, :LEGIBLE], under[:, LEGIBLE:])
    assert (captioned(x, ["", "a dog"])[LEGIBLE:, :LEGIBLE] == 255).all()
