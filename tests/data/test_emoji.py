"""The larger set of emoji, of archives with a few pictures of their own, laid out as the published ones."""

import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gear import fetch
from gear.data import DataError, emoji, load
from gear.data.emoji_names import FLUENT, LEXICON, NOTO, TABLE, WORDS, keywords
from gear.store.packages import FetchError, sha256

ENTRIES = [
    ("1F600", "Smileys & Emotion", "face-smiling", []),
    ("1F44B", "People & Body", "hand-fingers-open", ["1F3FB", "1F3FC", "1F3FF"]),
    ("1F469-200D-1F680", "People & Body", "person-role", ["1F3FF"]),
    ("1F468-200D-1F680", "People & Body", "person-role", ["1F3FF"]),
    ("1F9D1-200D-1F4BB", "People & Body", "person-role", []),  # at a laptop
    ("1F1EB-1F1F7", "Flags", "country-flag", []),
    ("1F46A", "People & Body", "family", []),
    ("1F4CE", "Objects", "office", []),  # the paper clip with eyes
    ("2764-FE0F", "Smileys & Emotion", "heart", []),
]
NAMES = {
    "😀": ["grinning_face", "face", "smile", "happy", ":D", "joy", "grin"],
    "👋": ["waving_hand", "wave"],
    "👩\u200d🚀": ["woman_astronaut", "rocket"],
    "👨\u200d🚀": ["man_astronaut", "rocket"],
    "🧑\u200d💻": ["technologist", "coder"],
    "🇫🇷": ["flag_france", "fr"],
    "👪": ["family", "home"],
    "📎": ["paperclip", "documents"],
    "❤️": ["red_heart", "heart"],
}


def toned(codes: str, tone: str) -> str:
    first, *rest = codes.split("-")
    return "-".join([first, tone, *rest])


def colour(style: int, codes: str) -> tuple[int, int, int]:
    return (60 * style, sum(map(ord, codes)) % 256, len(codes))


def picture(style: int, codes: str, form: str) -> bytes:
    buffer, side = io.BytesIO(), 128 if style else 64
    layer = Image.new("RGBA", (side, side), (*colour(style, codes), 255))
    layer.putpixel((0, 0), (0, 0, 0, 0))
    layer.save(buffer, form, **({"lossless": True} if form == "webp" else {}))
    return buffer.getvalue()


def archive(folder: Path, name: str, files: dict[str, bytes]) -> Path:
    with tarfile.open(folder / name, "w:gz") as bundle:
        for member, data in files.items():
            entry = tarfile.TarInfo(member)
            entry.size = len(data)
            bundle.addfile(entry, io.BytesIO(data))
    return folder / name


@pytest.fixture
def archives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GEAR_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "archives"
    folder.mkdir()
    table, fluent, noto = [], {}, {}
    for order, (codes, category, subcategory, tones) in enumerate(ENTRIES):
        one = {"unified": codes, "non_qualified": codes.replace("-FE0F", ""), "image": f"{codes.lower()}.png"}
        skins = {
            tone: {"unified": toned(codes, tone), "non_qualified": None, "image": f"{toned(codes, tone).lower()}.png"}
            for tone in tones
        }
        about = {"category": category, "subcategory": subcategory, "sort_order": -order, "skin_variations": skins}
        table.append(one | about)
        for each in (codes, *(toned(codes, tone) for tone in tones)):
            noto[f"package/img/google/64/{each.lower()}.png"] = picture(0, each, "png")
            if each != "1F44B":  # which only one style has
                fluent[f"package/assets/{each.replace('-FE0F', '').lower()}.webp"] = picture(1, each, "webp")
    made = [
        archive(folder, FLUENT.archive, fluent),
        archive(folder, NOTO.archive, noto | {TABLE: json.dumps(table).encode()}),
        archive(folder, WORDS.archive, {LEXICON: json.dumps(NAMES).encode()}),
    ]
    pinned = [replace(p, sha256=sha256(path)) for p, path in zip(emoji.PACKAGES, made, strict=True)]
    monkeypatch.setattr(emoji, "PACKAGES", tuple(pinned))
    return folder


def test_both_styles_with_their_captions(archives):
    assert fetch.fetch("emoji", archives) == emoji.path()
    images = load("emoji", 64, captioned=True)
    assert images.captions is not None
    captions = dict(zip(images.names, images.captions, strict=True))
    assert captions["fluent/1F600"] == ("grinning face, 3D", "grinning face, smile, happy, joy, 3D")
    assert captions["noto/1F600"] == ("grinning face, flat", "grinning face, smile, happy, joy, flat")
    assert captions["noto/1F44B-1F3FF"][0] == "waving hand, dark skin tone, flat"
    assert captions["fluent/2764-FE0F"] == ("red heart, 3D",)  # "heart" says no more
    assert "fluent/1F44B" not in captions
    assert len(captions) == 2 * 10 - 2  # nor the hand in a tone that the package has under the name of another
    left_out = ("1F4BB", "1F1EB", "1F46A", "1F4CE")
    assert not [name for name in images.names if any(codes in name for codes in left_out)]
    for name, pixels in zip(images.names, images.pixels, strict=True):
        style, _, codes = name.partition("/")
        if "1F3FC" not in codes:  # the package has it under another name
            assert np.abs(pixels[:, 32, 32].astype(int) - colour(style == "fluent", codes)).max() <= 1
    first = images.pixels[images.names.index("noto/1F600"), :, 0, 0]
    assert first.tolist() == [255, 255, 255]  # what is transparent is white


def test_no_style_and_no_skin_tone_leaks(archives):
    fetch.fetch("emoji", archives)
    images = load("emoji", 64, captioned=True)
    for holdout in (0.2, 0.4, 0.6):
        split = images.split(holdout)
        assert len(split.held_out)
        sides = [{name.partition("/")[2] for name in part.names} for part in (split.train, split.held_out)]
        assert not sides[0] & sides[1]
        bases = [{codes.split("-")[0] if "1F680" not in codes else "astronaut" for codes in side} for side in sides]
        assert not bases[0] & bases[1]


def test_it_is_fetched_once(archives, monkeypatch):
    def download(package, folder):
        return archives / package.archive

    monkeypatch.setattr(fetch, "download", download)
    path = fetch.fetch("emoji")
    monkeypatch.setattr(fetch, "download", None)
    assert fetch.fetch("emoji") == path


def test_what_is_not_there_or_damaged(archives):
    with pytest.raises(DataError, match=r"run `gear fetch emoji`.* --from FOLDER"):
        load("emoji", 64)
    (archives / WORDS.archive).rename(archives / "elsewhere")
    with pytest.raises(FetchError, match=rf"must be a folder with .*it has no {WORDS.archive}"):
        fetch.fetch("emoji", archives)
    (archives / WORDS.archive).write_bytes(b"another")
    with pytest.raises(FetchError, match="is not the file expected"):
        fetch.fetch("emoji", archives)
    assert not emoji.path().exists()
    (archives / "elsewhere").rename(archives / WORDS.archive)
    data = bytearray(fetch.fetch("emoji", archives).read_bytes())
    data[-1] ^= 1
    emoji.path().write_bytes(data)
    with pytest.raises(DataError, match="is damaged: delete it"):
        load("emoji", 64)
    emoji.path().write_bytes(data[:-500])
    with pytest.raises(DataError, match="is damaged: delete it"):
        load("emoji", 64)


def test_keywords():
    said = ["grinning_face", "face", ":D", "big smile", "smile", "Happy", "a b c", "100"]
    assert keywords("grinning face", said) == "big smile, happy"
    assert keywords("name", ["name"]) == ""
