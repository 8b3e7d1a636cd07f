"""What a run was trained on, kept in its folder as data.json: for people, and so that edited images are noticed."""

import hashlib
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from gear.config import ConfigError
from gear.data import Images
from gear.data.folder import Listing
from gear.data.images import Split
from gear.data.shards import Shards
from gear.store.whole import replacing

NAME = "data.json"
ALL = 1 << 28  # bytes of pixels, up to which all are compared, and beyond which `SOME` images are
SOME = 512
WHAT = {  # of a record, in the order in which a difference is told: how it is told
    "classes": "classes",
    "train": "images to train on",
    "held_out": "held-out images",
    "files": "names and classes of the images",
    "pixels": "pixels of the images",
    "captions": "captions of the images",
    "text_encoder": "files of the text encoder",
    "codes": "stored codes",
}


def of_images(images: Split[Images | Listing]) -> dict[str, Any]:
    """Counts, and digests of all names with their classes and, where they are prepared, of pixels and captions. Files
    that are decoded at each visit are not opened for this: a million of them would take hours."""
    train, held_out = images.train, images.held_out
    about = {"classes": list(train.classes), "train": len(train), "held_out": len(held_out), "skipped": train.skipped}
    about["files"] = names_digest(train)
    if isinstance(train, Images):
        about["pixels"] = pixels_digest(train)
        if train.captions is not None:
            about["captions"] = hashlib.sha256(json.dumps(train.captions).encode()).hexdigest()
    return about


def of_codes(shards: Shards) -> dict[str, Any]:
    about = {"classes": shards.about["classes"], "train": len(shards) - len(shards.broken)}
    return about | {"codes": hashlib.sha256(json.dumps(shards.about, sort_keys=True).encode()).hexdigest()}


def names_digest(train: Images | Listing) -> str:
    """The SHA-256 of all names and labels in their order."""
    digest, separator = hashlib.sha256(), ""
    for name, label in zip(train.names, train.labels, strict=True):  # of a hundred million, too
        digest.update(f"{separator}{label} {name}".encode("utf-8", "surrogateescape"))
        separator = "\n"
    return digest.hexdigest()


def pixels_digest(train: Images) -> str:
    """A checksum of all pixels in their order; of more than `ALL` bytes, of those of about `SOME` images."""
    every = 1 if train.pixels.nbytes <= ALL else max(1, len(train) // SOME)
    digest = 0
    for i in range(0, len(train), every):
        digest = zlib.crc32(np.ascontiguousarray(train.pixels[i]).data, digest)
    return f"crc32:{digest:08x}"


def write(run: Path, record: dict[str, Any]) -> None:
    with replacing(run / NAME) as temporary:
        temporary.write_text(json.dumps(record, indent=2) + "\n")


def require_same(run: Path, record: dict[str, Any]) -> None:
    """Raises `ConfigError` with each thing in which the data of a run that goes on are not those that it began with.
    What its record does not say, because an older version wrote it or it is lost, is not compared."""
    try:
        began = dict(json.loads((run / NAME).read_text()))
    except (OSError, ValueError, TypeError):
        return
    different = [_told(name, began[name], record[name]) for name in WHAT if _differ(began, record, name)]
    if different:
        raise ConfigError(
            f"the data of {run} have changed since it began ({'; '.join(different)}): restore them and give the same "
            f"command again, or train on them as they are now in another folder (--out), from these weights with "
            f"--tokenizer.init {run} --generator.init {run}."
        )


def _differ(began: dict[str, Any], now: dict[str, Any], name: str) -> bool:
    return name in began and name in now and began[name] != now[name]


def _told(name: str, began: Any, now: Any) -> str:
    if isinstance(began, list) and isinstance(now, list):
        gone, new = sorted(set(began) - set(now)), sorted(set(now) - set(began))
        parts = [f"{len(names)} {what}: {_few(names)}" for what, names in (("gone", gone), ("new", new)) if names]
        return f"{WHAT[name]}: {', '.join(parts) or 'another order'}"
    if isinstance(began, int):
        return f"{WHAT[name]}: {began} -> {now}"
    return f"{WHAT[name]} differ"


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
