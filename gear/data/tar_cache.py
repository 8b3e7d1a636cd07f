"""The indexes of a folder's tars in one file of the cache: arrays of all their images, one tar after the other.

A digest stands before them, so that what is cut short or damaged is taken for absent.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from gear.data.strings import Strings
from gear.data.tar_index import Index
from gear.store import cache

VERSION = 2  # of the index: another number indexes everything anew
ARRAYS = ("offsets", "sizes", "labels", "texts", "lengths", "kinds")  # of `Index`
PLAIN = ("said", "problems", "others", "cut")  # of `Index`


@dataclass(frozen=True, eq=False)
class Kept:
    state: list[int]  # size and time of the last change of the tar
    index: Index


def read(path: Path) -> dict[str, Kept]:
    """What `write` wrote, by the name of the tar; nothing where that is absent, damaged or of another version."""
    try:
        digest, _, data = path.read_bytes().partition(b"\n")
        if digest.decode() != hashlib.sha256(data).hexdigest():
            return {}
        arrays = safetensors.numpy.load(data)
        about = json.loads(arrays["about"].tobytes())
    except (OSError, ValueError, SafetensorError, KeyError):
        return {}
    if about["version"] != VERSION:
        return {}
    kept, start = {}, 0
    for tar in about["tars"]:
        part = slice(start, start + tar["count"])
        ends = arrays["ends"][start : start + tar["count"] + 1]
        names = Strings(arrays["names"][ends[0] : ends[-1]], ends - ends[0])
        index = Index(names, **{name: arrays[name][part] for name in ARRAYS}, **{name: tar[name] for name in PLAIN})
        kept[tar["name"]] = Kept(tar["state"], index)
        start = part.stop
    return kept


def write(path: Path, tars: Mapping[str, Kept]) -> None:
    """Raises `CacheError`."""
    found = [kept.index for kept in tars.values()]
    names = Strings.chained([index.names for index in found])
    about = [
        {"name": tar, "state": kept.state, "count": len(kept.index.names)}
        | {name: getattr(kept.index, name) for name in PLAIN}
        for tar, kept in tars.items()
    ]
    arrays = {name: np.concatenate([getattr(index, name) for index in found]) for name in ARRAYS}
    arrays |= {"names": names.data, "ends": names.ends}
    arrays["about"] = np.frombuffer(json.dumps({"version": VERSION, "tars": about}).encode(), np.uint8)
    data = safetensors.numpy.save(arrays)
    with cache.writing(path) as file:
        file.write(hashlib.sha256(data).hexdigest().encode() + b"\n")
        file.write(data)
