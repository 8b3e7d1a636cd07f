from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from gear.data import Images, builtin, load
from gear.data.builtin import FOLDER, images

CLASSES = {
    "activities": 84,
    "animals": 156,
    "body": 301,
    "food": 128,
    "objects": 260,
    "people": 1466,
    "smileys": 166,
    "symbols": 231,
    "travel": 218,
}


@pytest.fixture(scope="module")
def emoji() -> Images:
    return images()


def one(emoji: Images, caption: str) -> int:
    assert emoji.captions is not None
    return [names[0] for names in emoji.captions].index(caption)


def test_counts(emoji):
    assert Counter(emoji.classes[label] for label in emoji.labels) == CLASSES
    assert emoji.pixels.shape == (3010, 3, 64, 64)
    assert len(set(emoji.names)) == 3010


def test_size_on_disk():
    assert sum(file.stat().st_size for file in FOLDER.iterdir() if file.is_file()) < 6_000_000
    assert "Microsoft" in (FOLDER / "NOTICE").read_text()


def test_pictures_lie_where_the_table_says(emoji):
    """Colours in the middle of pictures that leave no doubt: row and column are not mixed up, nor is the order."""
    middle = {name: emoji.pixels[one(emoji, name), :, 32, 32] for name in ("red circle", "green circle", "blue circle")}
    assert [int(np.argmax(colour)) for colour in middle.values()] == [0, 1, 2]
    assert (emoji.pixels[:, :, 0, 0].min(axis=1) >= 250).mean() > 0.95  # white around nearly every picture
    left, right = (emoji.pixels[one(emoji, f"{side} arrow"), :, 20:44].min(axis=0) > 200 for side in ("left", "right"))
    assert left[:, :32].sum() > left[:, 32:].sum()  # more of the white is at the head than at the shaft
    assert right[:, :32].sum() < right[:, 32:].sum()


def test_skin_tones(emoji):
    tones = ["light", "medium light", "medium", "medium dark", "dark"]
    for what in ("waving hand", "ear", "person mountain biking"):
        rows = [one(emoji, f"{what}, {tone} skin tone") for tone in tones]
        brightness = [emoji.pixels[row].mean() for row in rows]
        assert brightness == sorted(brightness, reverse=True)
        assert len({emoji.groups[row] for row in [*rows, one(emoji, what)]}) == 1


def test_captions_are_plain_words(emoji):
    assert emoji.captions is not None
    allowed = set("abcdefghijklmnopqrstuvwxyz0123456789 ,'-")
    assert not [c for (c, *_) in emoji.captions if not c or set(c) - allowed or c != c.strip() or "  " in c]
    for caption in ("grinning face", "men's room", "twelve o'clock", "keycap hash", "woman astronaut, dark skin tone"):
        one(emoji, caption)


def test_no_variant_leaks(emoji):
    """Not by group only: no base picture, whatever its tones and genders, has a caption on both sides."""
    split = emoji.split(0.1)
    assert not set(split.train.groups) & set(split.held_out.groups)
    assert split.train.captions is not None
    assert split.held_out.captions is not None

    def stem(caption: str) -> str:
        words = caption.split(",")[0].split()
        return " ".join(word for word in words if word not in ("man", "woman", "person", "men", "women", "people"))

    assert not {s for s in map(stem, (c[0] for c in split.train.captions)) if s} & set(
        map(stem, (c[0] for c in split.held_out.captions))
    )
    assert 0.05 < len(split.held_out) / len(emoji) < 0.15


def test_what_is_not_microsofts_is_not_in(emoji):
    assert emoji.captions is not None
    starts = ("flag ", "family", "couple", "kiss woman", "black bird", "paperclip", "video game", "technologist")
    assert [c for (c, *_) in emoji.captions if c.startswith(starts)] == ["flag in hole"]
    assert not [n for n in emoji.names if n.startswith(("1F1E", "1F1F"))]  # regional indicators: the countries


def test_smaller_is_antialiased(emoji, monkeypatch):
    native = replace(emoji, pixels=emoji.pixels[:100], labels=emoji.labels[:100])
    monkeypatch.setattr(builtin, "images", lambda: native)
    small = load("builtin", 16)
    boxes = native.pixels.reshape(-1, 3, 16, 4, 16, 4).mean((3, 5))
    assert np.abs(small.pixels - boxes).mean() < 4
    assert small.captions == native.captions


def test_keywords_say_more_than_names(emoji):
    assert emoji.captions is not None
    assert ("grinning face", "grinning face, smile, happy, joy") in emoji.captions
    for name, more in emoji.captions:
        words = more.removeprefix(f"{name}, ").split(", ")
        assert more.startswith(f"{name}, ")
        assert 1 <= len(words) <= 3
        assert all(word.replace(" ", "").isalpha() and word not in name.split() for word in words)
