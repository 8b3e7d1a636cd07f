"""Captions of images: texts in memory, or where they lie, to be read by the process that decodes the image.

A caption is text in UTF-8, its blank space aside; an image may have several. One without any is left out.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int64, UInt8

from gear.data.decode import Skip
from gear.data.members import File, Members, open_file
from gear.data.strings import Rows, Strings
from gear.prompts import single_spaced

KEYS = ("caption", "captions", "text", "prompt")  # of a JSON object or a table, the first one that is there
LONGEST = 1 << 20  # bytes of a caption's file
KINDS = ("lines", "text", "json")

MISSING = "without a caption"
UNREADABLE = "with a caption that is not readable"  # now; it may be at another time
EMPTY = "with an empty caption"
NOT_UTF8 = "with a caption that is not UTF-8"
NOT_JSON = "with a caption's JSON that cannot be read"
TOO_LONG = f"with a caption of more than {LONGEST} bytes"


@dataclass(frozen=True)
class CaptionFile:
    """Where the captions of one image are to be read, and how: a caption in each line, one in all (as webdataset has
    them), or a JSON object with one of `KEYS`."""

    file: File
    kind: Literal["lines", "text", "json"]


Source = tuple[str, ...] | CaptionFile  # of one image: its captions, or where they lie


@runtime_checkable
class Captions(Protocol):
    """Of N images. `captions[i]` is the `Source` of image i."""

    def __getitem__(self, i: int) -> Source: ...
    def rows(self, index: Rows) -> "Captions": ...


@dataclass(frozen=True, eq=False)
class Texts:
    """In memory."""

    texts: Strings
    starts: Int64[np.ndarray, "N"]  # of the first caption of each image in `texts`
    counts: Int64[np.ndarray, "N"]  # captions of each image

    @staticmethod
    def of(captions: Sequence[tuple[str, ...]]) -> "Texts":
        counts = np.array([len(several) for several in captions], dtype=np.int64)
        return Texts(Strings.of(text for several in captions for text in several), np.cumsum(counts) - counts, counts)

    def __getitem__(self, i: int) -> Source:
        start = int(self.starts[i])
        return tuple(self.texts[j] for j in range(start, start + int(self.counts[i])))

    def rows(self, index: Rows) -> "Texts":
        rows = np.asarray(index, dtype=np.int64)
        return Texts(self.texts, self.starts[rows], self.counts[rows])


@dataclass(frozen=True, eq=False)
class Beside:
    """In text files of their own, a caption a line."""

    folder: Path
    names: Strings  # relative to the folder

    def __getitem__(self, i: int) -> Source:
        return CaptionFile(self.folder / self.names[i], "lines")

    def rows(self, index: Rows) -> "Beside":
        return Beside(self.folder, self.names.rows(index))


@dataclass(frozen=True, eq=False)
class InTars:
    """In members of tars."""

    members: Members
    kinds: UInt8[np.ndarray, "N"]  # indices into `KINDS`

    def __getitem__(self, i: int) -> Source:
        return CaptionFile(self.members[i], KINDS[self.kinds[i]])

    def rows(self, index: Rows) -> "InTars":
        return InTars(self.members.rows(index), self.kinds[np.asarray(index, dtype=np.int64)])


def read(source: Source) -> tuple[str, ...]:
    """The captions of one image, at least one. Raises `Skip` with the reason where there is none."""
    if not isinstance(source, CaptionFile):
        return source
    try:
        with open_file(source.file) as file:
            data = file.read(LONGEST + 1)
    except (OSError, EOFError) as error:
        raise Skip(UNREADABLE) from error
    if len(data) > LONGEST:
        raise Skip(TOO_LONG)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Skip(NOT_UTF8) from error
    match source.kind:
        case "lines":
            return cleaned(text.splitlines())
        case "text":
            return cleaned([text])
        case "json":
            return cleaned(said(text))


def said(text: str) -> Any:
    """What a JSON object gives as captions: a text or a list; None if nothing. Raises `Skip` for anything else."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Skip(NOT_JSON) from error
    return of_object(found) if isinstance(found, dict) else None


def of_object(found: dict[str, Any]) -> Any:
    """The first of `KEYS` that says something."""
    return next((found[key] for key in KEYS if found.get(key)), found.get(KEYS[0]))


def cleaned(given: Any) -> tuple[str, ...]:
    """Texts, or one, each without blank space around it and with single spaces in it; empty ones are left out.

    Raises `Skip` where nothing is left, or where what is there is no text that UTF-8 can hold.
    """
    if given is None:
        raise Skip(MISSING)
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise Skip("with a caption that is no text")
    kept = tuple(plain for text in texts if (plain := single_spaced(text)))
    if not kept:
        raise Skip(EMPTY)
    try:
        "".join(kept).encode()
    except UnicodeEncodeError as error:  # half of a pair of surrogates
        raise Skip(NOT_UTF8) from error
    return kept
