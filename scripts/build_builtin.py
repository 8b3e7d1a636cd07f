"""Makes the built-in images, gear/data/builtin/emoji.webp and emoji.tsv, from three pinned npm packages.

    python scripts/build_builtin.py [--from FOLDER]

Without --from the packages are downloaded with npm; FOLDER is where they already lie. Takes two minutes.

What is left out and why: Microsoft published its emoji under the MIT licence, but not all of them, and the package of
images has the rest too: 245 country flags (by somebody else), families and couples, a black bird, and what shows a
trademark: the paper clip with eyes, the game controller, people at a laptop with the logo of Windows.

Two skin tones are exchanged in the package, medium and medium light (and all five in one picture); here they are right.
"""

import argparse
import io
import json
import re
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from gear.data.builtin import FOLDER, SIDE
from gear.data.decode import square
from gear.store.cache import writing
from gear.store.packages import Package, check, download

IMAGES = Package(
    client="npm",
    name="@lobehub/fluent-emoji-3d",
    version="1.1.0",
    archive="lobehub-fluent-emoji-3d-1.1.0.tgz",
    sha256="c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58",
    megabytes=15.8,
)
CATEGORIES = Package(
    client="npm",
    name="emoji-datasource-google",  # only its emoji.json is read
    version="16.0.0",
    archive="emoji-datasource-google-16.0.0.tgz",
    sha256="fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438",
    megabytes=74.3,
)
CAPTIONS = Package(
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
HEADINGS = ("code points", "class", "group", "caption")
COLUMNS = 56  # of the mosaic
STEP = 5  # levels of a colour are this far apart: an error of at most 2 in 255, and half the bytes


def main() -> None:
    parser = argparse.ArgumentParser(description="Makes the built-in images from three npm packages.")
    parser.add_argument("--from", dest="folder", type=Path, help="where the packages' .tgz files already lie")
    given: Path | None = parser.parse_args().folder
    with tempfile.TemporaryDirectory() as scratch:
        files, table, words = (contents(p, given, Path(scratch)) for p in (IMAGES, CATEGORIES, CAPTIONS))
    captions = {plain(k): v[0] for k, v in json.loads(words["package/dist/emoji-en-US.json"]).items()}
    rows, cells = [], []
    for entry in sorted(json.loads(table["package/emoji.json"]), key=lambda entry: entry["sort_order"]):
        for codes, file in variants(entry, files):
            rows.append((codes, class_of(entry), group(entry["unified"]), caption(codes, captions)))
            cells.append(cell(file))
    pixels = quantised(np.stack(cells))
    with writing(FOLDER / "emoji.webp") as out:
        out.write(mosaic(pixels))
    with writing(FOLDER / "emoji.tsv") as out:
        out.write("".join("\t".join(row) + "\n" for row in [HEADINGS, *rows]).encode())
    error = (pixels.astype(np.float64) - np.stack(cells)) ** 2
    psnr = 10 * np.log10(255**2 / error.mean((1, 2, 3)))
    print(f"{len(rows)} images, {(FOLDER / 'emoji.webp').stat().st_size / 1e6:.2f} MB")
    print(f"{psnr.mean():.1f} dB against the unrounded images, {psnr.min():.1f} dB at worst")


def contents(package: Package, folder: Path | None, scratch: Path) -> dict[str, bytes]:
    """The files of a package that are read here, once its sha256 is right."""
    archive = folder / package.archive if folder else download(package, scratch)
    check(package, archive)
    with tarfile.open(archive) as bundle:
        wanted = [m for m in bundle if m.isfile() and m.name.endswith((".webp", "/emoji.json", "en-US.json"))]
        return {m.name: file.read() for m in wanted if (file := bundle.extractfile(m)) is not None}


def variants(entry: dict[str, Any], files: dict[str, bytes]) -> Iterator[tuple[str, bytes]]:
    """An emoji and its skin tones, as far as there are pictures of Microsoft's: code points, and the picture's file."""
    base = entry["unified"]
    if entry["subcategory"] in NOT_MICROSOFTS or base in NOR_THESE or base.endswith(AT_A_LAPTOP):
        return
    stored = STORED_REVERSED if base == "1F6B5" else STORED
    for one in (entry, *entry.get("skin_variations", {}).values()):
        for codes in (one["unified"], one["non_qualified"] or ""):
            name = "-".join(stored.get(code, code) for code in codes.split("-")).lower()
            if file := files.get(f"package/assets/{name}.webp"):
                yield one["unified"], file
                break


def class_of(entry: dict[str, Any]) -> str:
    is_body = entry["category"] == "People & Body" and entry["subcategory"].startswith(BODY)
    return "body" if is_body else CLASSES[entry["category"]]


def group(codes: str) -> str:
    """A base emoji's code points without gender and direction: near-equal pictures share a group, in all skin tones."""
    kept = [PERSON if code in GENDERED else code for code in codes.split("-") if code not in IGNORED]
    return "-".join(code for i, code in enumerate(kept) if code != JOINER or (0 < i < len(kept) - 1))


def caption(codes: str, captions: dict[str, str]) -> str:
    """emojilib's name in lower-case words, then the skin tones: "waving hand, dark skin tone"."""
    character = plain("".join(chr(int(code, 16)) for code in codes.split("-") if code not in TONES))
    name = NAMES.get(character[0]) or captions[character].replace("_", " ").strip()
    name = re.sub(r"\b(\w+) s\b", r"\1's", name).replace(" o clock", " o'clock")
    return ", ".join([name.lower(), *(TONES[code] for code in codes.split("-") if code in TONES)])


def plain(emoji: str) -> str:
    """Without the invisible character that asks for a coloured picture."""
    return emoji.replace("\ufe0f", "")


def cell(file: bytes) -> np.ndarray:
    """A picture on white at SIDE x SIDE px, as uint8 (SIDE, SIDE, 3)."""
    with Image.open(io.BytesIO(file)) as picture:
        layer = picture.convert("RGBA")
    white = Image.new("RGB", layer.size, "white")
    white.paste(layer, mask=layer.getchannel("A"))
    return square(white, SIDE).transpose(1, 2, 0)


def quantised(cells: np.ndarray) -> np.ndarray:
    """Each value rounded to a multiple of STEP below 255, so that white stays white."""
    return np.clip(255 - STEP * np.round((255.0 - cells) / STEP), 0, 255).astype(np.uint8)


def mosaic(cells: np.ndarray) -> bytes:
    """The cells row by row as one lossless WebP, white where the last row is short."""
    rows = -(-len(cells) // COLUMNS)
    padded = np.full((rows * COLUMNS, SIDE, SIDE, 3), 255, dtype=np.uint8)
    padded[: len(cells)] = cells
    sheet = padded.reshape(rows, COLUMNS, SIDE, SIDE, 3).swapaxes(1, 2).reshape(rows * SIDE, COLUMNS * SIDE, 3)
    out = io.BytesIO()
    Image.fromarray(sheet).save(out, format="WEBP", lossless=True, quality=100, method=6)
    return out.getvalue()


if __name__ == "__main__":
    main()
