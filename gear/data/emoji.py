"""Emoji in two styles, Microsoft's Fluent in 3D and Google's Noto, after `gear fetch emoji`: 6,153 pictures of 64
px (Noto's size) on white, with captions that say the style.

`convert` reads three archives: of npm's @lobehub/fluent-emoji-3d (MIT), emoji-datasource-google (pictures Apache-2.0,
table MIT) and emojilib (MIT). What is left out and why is said in `gear.data.emoji_names`.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from gear.data.emoji_names import FLUENT, LEXICON, NOTO, TABLE, WORDS, Emoji, cell, emoji
from gear.data.images import DataError, Images
from gear.store import cache
from gear.store.packages import FetchError, members

PACKAGES = (FLUENT, NOTO, WORDS)
LIMIT = 1 << 24  # bytes of a file in the archives
STYLES = {"fluent": "3D", "noto": "flat"}  # how a caption calls the style


def path() -> Path:
    """Where `convert` leaves the pictures and `images` looks for them."""
    return cache.directory() / "data" / "emoji.safetensors"


def images() -> Images:
    """All pictures at 64 x 64, with captions such as "grinning face, 3D" and "grinning face, smile, happy, joy, 3D".

    A group is an emoji in both styles, in all skin tones and genders. Raises `DataError` if they are absent or damaged.
    """
    if not path().is_file():
        raise DataError(
            "The larger set of emoji is not on this machine: run `gear fetch emoji`, or, with a folder that holds "
            f"{', '.join(p.archive for p in PACKAGES)}, `gear fetch emoji --from FOLDER`."
        )
    try:
        arrays = safetensors.numpy.load(path().read_bytes())
        pixels, table = arrays["pixels"], arrays["table"].tobytes()
        if arrays["sha256"].tobytes() != _digest(pixels, table):
            raise ValueError("another checksum")
        names, labels, groups, captions = zip(*json.loads(table), strict=True)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path()} is damaged: delete it and run `gear fetch emoji` again.") from error
    classes = tuple(sorted(set(labels)))
    return Images(
        pixels=pixels,
        labels=np.array([classes.index(label) for label in labels], dtype=np.int64),
        classes=classes,
        names=names,
        groups=groups,
        captions=tuple(map(tuple, captions)),
    )


def convert(archives: Sequence[Path]) -> Path:
    """Reads the archives of `PACKAGES`, in their order, and leaves the pictures at `path()`. Raises `FetchError` for
    others."""
    fluent, noto, words = archives
    table, lexicon = (_one(archive, name) for archive, name in ((noto, TABLE), (words, LEXICON)))
    try:
        listed = list(emoji(table, lexicon))
    except (ValueError, KeyError, TypeError) as error:
        raise FetchError(
            f"{noto} and {words} are not {NOTO.archive} and {WORDS.archive} as expected: {error}"
        ) from error
    files = members(fluent, {name for one in listed for name in one.fluent}, LIMIT)
    files |= members(noto, {one.noto for one in listed}, LIMIT)
    if not files:
        raise FetchError(f"{fluent} and {noto} hold no pictures: they must be {FLUENT.archive} and {NOTO.archive}.")
    rows, cells = [], []
    for one in listed:
        for style, file in _pictures(one, files):
            said = STYLES[style]
            captions = [f"{one.name}, {said}"] + [f"{one.name}, {one.keywords}, {said}"] * bool(one.keywords)
            rows.append((f"{style}/{one.codes}", one.class_name, one.group, captions))
            try:
                cells.append(cell(file))
            except (OSError, ValueError) as error:
                raise FetchError(f"the picture of {one.codes} in {style} cannot be decoded: {error}") from error
    pixels, text = np.stack(cells), json.dumps(rows).encode()
    arrays = {
        name: np.frombuffer(data, np.uint8) for name, data in (("table", text), ("sha256", _digest(pixels, text)))
    }
    with cache.writing(path()) as out:
        out.write(safetensors.numpy.save({"pixels": pixels, **arrays}))
    return path()


def _pictures(one: Emoji, files: dict[str, bytes]) -> Iterator[tuple[str, bytes]]:
    if found := next((files[name] for name in one.fluent if name in files), None):
        yield "fluent", found
    if one.noto in files:
        yield "noto", files[one.noto]


def _one(archive: Path, name: str) -> bytes:
    found = members(archive, {name}, LIMIT)
    if name not in found:
        raise FetchError(f"{archive} has no {name}: it is another archive than the one expected.")
    return found[name]


def _digest(pixels: np.ndarray, table: bytes) -> bytes:
    return hashlib.sha256(pixels.tobytes() + table).digest()
