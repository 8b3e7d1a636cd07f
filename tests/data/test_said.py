"""Which caption of an image is taken: by its name and the seed alone, and read for these images only."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gear.data.folder import scan
from gear.data.images import Images
from gear.data.said import first_said, said


@pytest.fixture
def files(tmp_path: Path) -> Path:
    for i in range(6):
        Image.new("RGB", (8, 8), (40 * i, 0, 0)).save(tmp_path / f"{i}.png")
        (tmp_path / f"{i}.txt").write_text("".join(f"{i}, said {k}\n" for k in range(4)))
    return tmp_path


def prepared(n: int, captions: int) -> Images:
    texts = tuple(tuple(f"{i}, said {k}" for k in range(captions)) for i in range(n))
    names = tuple(f"{i}.png" for i in range(n))
    return Images(np.zeros((n, 3, 8, 8), np.uint8), np.zeros(n, np.int64), ("a",), names, names, texts)


def test_the_seed_chooses_one_whatever_else_is_asked_for(files: Path) -> None:
    images, listing = prepared(6, 4), scan(files, captioned=True)
    all_of_them = said(images, range(6), 0)
    assert said(listing, range(6), 0) == all_of_them
    assert said(images, [4, 1], 0) == [all_of_them[4], all_of_them[1]]
    assert all(text is not None and text.startswith(f"{i}, said ") for i, text in enumerate(all_of_them))
    assert said(images, range(6), 1) != all_of_them
    found = [said(prepared(400, 4), range(400), seed)[7] for seed in range(200)]
    assert {found.count(f"7, said {k}") // 30 for k in range(4)} <= {1, 2}  # each about 50 times


def test_other_captions_are_not_read(files: Path) -> None:
    listing = scan(files, captioned=True)
    for i in (0, 2, 3):
        (files / f"{i}.txt").unlink()
    (files / "5.txt").write_bytes(b"\xff\xfe\xfa")
    assert [text is None for text in said(listing, range(6), 0)] == [True, False, True, True, False, True]
    texts = said(listing, [1, 4], 0)
    assert first_said(listing, [0, 4, 5, 1], 3, 0) == (texts[1], texts[0], texts[1])
    assert first_said(listing, [0, 5], 3, 0) == ()


def test_without_captions_there_are_none() -> None:
    bare = Images(np.zeros((2, 3, 8, 8), np.uint8), np.zeros(2, np.int64), ("a",), ("a", "b"), ("a", "b"))
    assert said(bare, [0, 1], 0) == [None, None]
    assert first_said(bare, [0, 1], 4, 0) == ()
