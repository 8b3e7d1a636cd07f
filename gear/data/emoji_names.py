"""What an emoji is called, what goes with it, and what is left out: for the built-in set and the larger one of
`gear fetch emoji`, both made from pinned npm packages.

Microsoft published its emoji under the MIT licence, but not all of them, and the package of images has the rest too:
245 country flags (by somebody else), families and couples, a black bird, and what shows a trademark: the paper clip
with eyes, the game controller, people at a laptop with the logo of Windows.

Two skin tones are exchanged in that package, medium and medium light (and all five in one picture); here they are
right.
"""

import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from gear.data.crop import square
from gear.store.packages import Package

SIDE = 64  # px
FLUENT = Package(
    client="npm",
    name="@lobehub/fluent-emoji-3d",
    version="1.1.0",
    archive="lobehub-fluent-emoji-3d-1.1.0.tgz",
    sha256="c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58",
    megabytes=15.8,
)
NOTO = Package(
    client="npm",
    name="emoji-datasource-google",
    version="16.0.0",
    archive="emoji-datasource-google-16.0.0.tgz",
    sha256="fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438",
    megabytes=74.3,
)
WORDS = Package(
    client="npm",
    name="emojilib",
    version="4.0.3",
    archive="emojilib-4.0.3.tgz",
    sha256="7f9a6b43cff31d18985b7d65d11faba5bd971cbcc60020cf6d09322fbaaaf303",
    megabytes=0.05,
)
NOT_MICROSOFTS = {"country-flag", "family"}  # sub-categories
NOR_THESE = {"1F46A", "1F426-200D-2B1B", "1F4CE", "1F3AE"}  # family, black bird, paper clip, game controller
AT_A_LAPTOP = "-200D-1F4BB"  # the end of the code points of the people at one
CLASSES = {
    "Activities": "activities",
    "Animals & Nature": "animals",
    "Flags": "symbols",  # the eight that are left
    "Food & Drink": "food",
    "Objects": "objects",
    "People & Body": "people",
    "Smileys & Emotion": "smileys",
    "Symbols": "symbols",
    "Travel & Places": "travel",
}
BODY = ("hand", "body-parts")  # starts of the sub-categories of "People & Body" that show no person
NAMES = {"#": "keycap hash", "*": "keycap asterisk"}  # where emojilib's name says only "keycap"
TONES = {
    "1F3FB": "light skin tone",
    "1F3FC": "medium light skin tone",
    "1F3FD": "medium skin tone",
    "1F3FE": "medium dark skin tone",
    "1F3FF": "dark skin tone",
}
STORED = {"1F3FC": "1F3FD", "1F3FD": "1F3FC"}  # skin tone -> under which the package has it
STORED_REVERSED = {  # the same for the person on a mountain bike
    "1F3FB": "1F3FF",
    "1F3FC": "1F3FE",
    "1F3FD": "1F3FC",
    "1F3FE": "1F3FD",
    "1F3FF": "1F3FB",
}
PERSON, GENDERED = "1F9D1", {"1F468", "1F469"}  # person; man, woman
JOINER = "200D"
IGNORED = {"FE0F", "2640", "2642", "27A1", *TONES}  # presentation, female, male, facing right, skin tones
TABLE, LEXICON = "package/emoji.json", "package/dist/emoji-en-US.json"  # in `NOTO`, in `WORDS`
KEYWORDS = 3  # of an emoji, at most


@dataclass(frozen=True)
class Emoji:
    codes: str  # "1F44B-1F3FF"
    class_name: str
    group: str  # of all that are nearly equal: skin tones, genders, directions
    name: str  # "waving hand, dark skin tone"
    keywords: str  # "wave, goodbye, hello", or ""
    fluent: tuple[str, ...]  # where the picture may lie in `FLUENT`
    noto: str  # and in `NOTO`


def emoji(table: bytes, lexicon: bytes) -> Iterator[Emoji]:
    """Each emoji and its skin tones, in the order of Unicode, from `TABLE` and `LEXICON`; what is left out aside."""
    words = {plain(character): several for character, several in json.loads(lexicon).items()}
    for entry in sorted(json.loads(table), key=lambda entry: entry["sort_order"]):
        base = entry["unified"]
        if entry["subcategory"] in NOT_MICROSOFTS or base in NOR_THESE or base.endswith(AT_A_LAPTOP):
            continue
        for one in (entry, *entry.get("skin_variations", {}).values()):
            codes = one["unified"]
            said = words.get(plain("".join(chr(int(code, 16)) for code in codes.split("-") if code not in TONES)))
            if said is None:  # a handshake in two skin tones
                continue
            called = name(codes, said[0])
            yield Emoji(
                codes,
                class_of(entry),
                group(base),
                called,
                keywords(called, said),
                tuple(fluent(base, each) for each in (codes, one["non_qualified"]) if each),
                f"package/img/google/64/{one['image']}",
            )


def fluent(base: str, codes: str) -> str:
    stored = STORED_REVERSED if base == "1F6B5" else STORED
    return f"package/assets/{'-'.join(stored.get(code, code) for code in codes.split('-')).lower()}.webp"


def class_of(entry: dict[str, Any]) -> str:
    is_body = entry["category"] == "People & Body" and entry["subcategory"].startswith(BODY)
    return "body" if is_body else CLASSES[entry["category"]]


def group(codes: str) -> str:
    """A base emoji's code points without gender and direction: near-equal pictures share a group, in all skin tones."""
    kept = [PERSON if code in GENDERED else code for code in codes.split("-") if code not in IGNORED]
    return "-".join(code for i, code in enumerate(kept) if code != JOINER or (0 < i < len(kept) - 1))


def name(codes: str, said: str) -> str:
    """emojilib's name in lower-case words, then the skin tones: "waving hand, dark skin tone"."""
    words = NAMES.get(chr(int(codes.partition("-")[0], 16))) or said.replace("_", " ").strip()
    words = re.sub(r"\b(\w+) s\b", r"\1's", words).replace(" o clock", " o'clock")
    return ", ".join([words.lower(), *(TONES[code] for code in codes.split("-") if code in TONES)])


def keywords(called: str, said: list[str]) -> str:
    """Up to `KEYWORDS` of emojilib's, of letters alone, that say more than what it is called does."""
    known, kept = set(re.split("[^a-z]+", called)), list[str]()
    for word in (word.replace("_", " ").strip().lower() for word in said[1:]):
        if re.fullmatch("[a-z]{2,}( [a-z]+)*", word) and not known.issuperset(word.split()) and len(kept) < KEYWORDS:
            kept.append(word)
            known.update(word.split())
    return ", ".join(kept)


def plain(emoji: str) -> str:
    """Without the invisible character that asks for a coloured picture."""
    return emoji.replace("\ufe0f", "")


def cell(file: bytes) -> UInt8[np.ndarray, "3 64 64"]:
    """A picture on white at SIDE x SIDE px."""
    with Image.open(io.BytesIO(file)) as picture:
        layer = picture.convert("RGBA")
    white = Image.new("RGB", layer.size, "white")
    white.paste(layer, mask=layer.getchannel("A"))
    return square(white, SIDE)
