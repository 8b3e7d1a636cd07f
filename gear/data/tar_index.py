"""One tar of images as webdataset has them ({key}.jpg beside {key}.cls, {key}.txt or {key}.json), indexed: where each
image and its caption lie and which label it has, from the headers and the labels alone.

A key is a name up to the first dot after its last slash, as in webdataset.
"""

import json
import re
import tarfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import Int32, Int64, UInt8

from gear.data.captions import KINDS, LONGEST, of_object
from gear.data.decode import SUFFIXES, UNREAD
from gear.data.images import DataError
from gear.data.strings import Strings
from gear.data.tar_headers import Headers

EVERY = 256  # members between two reports of progress
TEXT, JSON = KINDS.index("text"), KINDS.index("json")
NUMBER = re.compile(r"-?[0-9]{1,18}")


@dataclass(frozen=True, eq=False)
class Index:
    """The n images of one tar in the order of their names."""

    names: Strings  # in the tar
    offsets: Int64[np.ndarray, "n"]  # bytes
    sizes: Int64[np.ndarray, "n"]  # bytes
    said: list[str]  # the labels that occur: class names, or numbers in digits
    labels: Int32[np.ndarray, "n"]  # indices into `said`; -1 without a label
    texts: Int64[np.ndarray, "n"]  # byte where the caption lies; -1 without a caption
    lengths: Int32[np.ndarray, "n"]  # bytes of it
    kinds: UInt8[np.ndarray, "n"]  # of it: indices into `KINDS`
    problems: list[list[str]]  # [reason, name] of the images that are left out; the name "" where it is not known
    others: dict[str, int]  # suffix -> how many members that are neither images nor labels
    cut: str  # where the tar ends too early, such as "within 0001.jpg"; "" if it is whole


def index(path: Path, at: Callable[[int], None]) -> Index:
    """Reads the headers of `path` and seeks over the images. at: is told the byte that was reached, now and then.

    A tar that ends too early is indexed as far as it goes. Raises `DataError` for a file that is no plain tar.
    """
    try:
        with path.open("rb") as file:
            return _index(Headers(path, file), at)
    except OSError as error:
        raise DataError(unreadable(path, error)) from error


def _index(headers: Headers, at: Callable[[int], None]) -> Index:
    images: dict[str, tuple[str, int, int]] = {}
    labels: dict[str, str] = {}
    captions: dict[str, tuple[int, int, int]] = {}
    problems: list[list[str]] = []
    others: Counter[str] = Counter()
    for count, member in enumerate(headers):
        if not count % EVERY:
            at(member.offset)
        name = member.name
        if member.isdir() or _hidden(name):
            continue
        kind = name.rpartition("/")[2].partition(".")[2].lower()
        key = name[: len(name) - len(kind)]
        last = "." + kind.rpartition(".")[2]
        plain = member.isreg() and not member.issparse()
        if kind in ("cls", "json"):
            said = _said(headers.file, member, kind) if plain else None
            if (kind == "cls" or key not in labels) and (label := _label(said, kind)):
                labels[key] = label
            if isinstance(said, dict) and of_object(said) is not None:
                captions.setdefault(key, (member.offset_data, member.size, JSON))
        elif last in UNREAD:
            problems.append([f"{last}, a format that is not read", name])
        elif last not in SUFFIXES:
            others[last if kind else "no suffix"] += 1
            if kind == "txt" and plain:
                captions[key] = (member.offset_data, member.size, TEXT)
        elif not plain:
            problems.append(["no plain file in its tar", name])
        elif last != f".{kind}":  # of webdataset's samples such as 0001.seg.png, which shows no image
            problems.append(["with two suffixes", name])
        elif key in images:
            problems.append(["with the key of an earlier one", name])
        else:
            images[key] = (name, member.offset_data, member.size)
    if headers.lost is not None:
        problems.append(["cut off where its tar ends", headers.lost])
    found = sorted(images.items(), key=lambda item: item[1][0].split("/"))  # as in folders
    number = {label: i for i, label in enumerate(sorted({labels[key] for key, _ in found if key in labels}))}
    texts = np.array([captions.get(key, (-1, 0, 0)) for key, _ in found], dtype=np.int64).reshape(-1, 3)
    return Index(
        names=Strings.of(name for _, (name, _, _) in found),
        offsets=np.array([offset for _, (_, offset, _) in found], dtype=np.int64),
        sizes=np.array([size for _, (_, _, size) in found], dtype=np.int64),
        said=list(number),
        labels=np.array([number[labels[key]] if key in labels else -1 for key, _ in found], dtype=np.int32),
        texts=texts[:, 0].copy(),
        lengths=np.minimum(texts[:, 1], LONGEST + 1).astype(np.int32),
        kinds=texts[:, 2].astype(np.uint8),
        problems=problems,
        others=dict(others),
        cut=headers.cut,
    )


def unreadable(path: Path, error: OSError) -> str:
    """What to say of it."""
    return (
        f"{path} must be a tar that can be read ({error.strerror}): check its permissions and the disk, or remove it."
    )


def _hidden(name: str) -> bool:
    return "/." in f"/{name}" and any(part[:1] == "." and part not in (".", "..") for part in name.split("/"))


def _said(file: BinaryIO, member: tarfile.TarInfo, kind: str) -> Any:
    """The text of a .cls, or what a .json holds; None where it cannot be read."""
    if member.size > LONGEST:  # none
        return None
    file.seek(member.offset_data)
    data = file.read(member.size)
    try:
        return data.decode() if kind == "cls" else json.loads(data)
    except (ValueError, RecursionError):
        return None


def _label(said: Any, kind: str) -> str | None:
    """The class that a .cls or .json says; None if it says none."""
    if kind == "cls":
        return _class(said)
    return (_class(said.get("label")) or _class(said.get("class"))) if isinstance(said, dict) else None


def _class(value: object) -> str | None:
    """A number in digits, or a name of one line; None for anything else, and for -1, which stands for no label."""
    if not isinstance(value, int | str) or isinstance(value, bool):
        return None
    text = str(value).strip()
    if NUMBER.fullmatch(text):
        return str(int(text)) if int(text) >= 0 else None
    return text if len(text.splitlines()) == 1 else None
