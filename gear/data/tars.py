"""A folder of tars as one set of images. Each tar is indexed once; the index is kept in the cache until it changes."""

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64
from rich.console import Console

from gear.data.classes import label_list
from gear.data.images import DataError
from gear.data.members import Members
from gear.data.tar_index import Index, index, unreadable
from gear.progress import bars
from gear.store import cache

VERSION = 1  # of the index: another number indexes everything anew
LONG = 1 << 30  # bytes of tars to index, from which on a bar is shown
MB = 1_000_000
NAMED = 3  # tars in a warning

log = logging.getLogger("gear")


@dataclass(frozen=True, eq=False)
class Tarred:
    """The N images of a folder of tars; see `Listing`."""

    classes: tuple[str, ...]
    names: tuple[str, ...]  # of the tar and in the tar: shard-000.tar/0001.jpg
    labels: Int64[np.ndarray, "N"]
    problems: tuple[tuple[str, str], ...]
    others: dict[str, int]
    members: Members


def read(root: Path, tars: Sequence[str], classes: str, progress: bool = True) -> Tarred:
    """The images of `tars`, files below `root`, tar by tar.

    Classes are as `label_list` says; without any label all images are of one class, called as `root` is; else those
    without one are left out. A tar that ends too early gives what is whole in it, and a warning. progress: whether a
    bar may be shown on stderr. Raises `DataError`, and `CacheError` where the index cannot be kept.
    """
    found = _indexes(root, tars, progress)
    _warn(root, {tar: f.cut for tar, f in zip(tars, found, strict=True) if f.cut})
    names = [f"{tar}/{name}" for tar, f in zip(tars, found, strict=True) for name in f.names]
    problems = [(r, f"{tar}/{n}" if n else tar) for tar, f in zip(tars, found, strict=True) for r, n in f.problems]
    members = Members(
        tars=tuple(root / tar for tar in tars),
        tar=np.repeat(np.arange(len(tars), dtype=np.int64), [len(f.names) for f in found]),
        offsets=np.array([offset for f in found for offset in f.offsets], dtype=np.int64),
        sizes=np.array([size for f in found for size in f.sizes], dtype=np.int64),
    )
    said = [label for f in found for label in f.labels]
    kept = [i for i, label in enumerate(said) if label is not None]
    if kept and len(kept) < len(said):
        problems += [("without a label", name) for name, label in zip(names, said, strict=True) if label is None]
        names, members = [names[i] for i in kept], members.rows(kept)
    listed, number = label_list(classes, {label for label in said if label is not None})
    labels = [number[label] for label in said if label is not None] if kept else [0] * len(names)
    return Tarred(
        classes=listed or (root.name,),
        names=tuple(names),
        labels=np.array(labels, dtype=np.int64),
        problems=tuple(problems),
        others=dict(sum((Counter(f.others) for f in found), Counter())),
        members=members,
    )


def _indexes(root: Path, tars: Sequence[str], progress: bool) -> list[Index]:
    """Of each tar, from the cache where its size and the time of its last change are those of then."""
    digest = hashlib.sha256(json.dumps(str(root)).encode()).hexdigest()
    cached = cache.directory() / "data" / f"{root.name}-{digest[:12]}-tars.json"
    states = {tar: _state(root / tar) for tar in tars}
    there = _kept(cached)
    known = {tar: Index(**there[tar]["index"]) for tar in tars if tar in there and there[tar]["state"] == states[tar]}
    if missing := [tar for tar in tars if tar not in known]:
        cache.require_space(cached, 0)
        sizes = [states[tar][0] for tar in missing]
        with _bar(f"Indexing {root.name}, MB", sum(sizes), progress) as reached:
            for i, tar in enumerate(missing):
                known[tar] = index(root / tar, partial(reached, sum(sizes[:i])))
        _keep(cached, {tar: {"state": states[tar], "index": asdict(known[tar])} for tar in tars})
    return [known[tar] for tar in tars]


@contextmanager
def _bar(what: str, size: int, progress: bool) -> Iterator[Callable[[int, int], None]]:
    """Gives what is told the bytes of the tars that are done and those of the next one so far."""
    with bars(Console(stderr=True, quiet=not progress or size < LONG)) as shown:
        bar = shown.add_task(what, total=size // MB, note="")
        yield lambda before, at: shown.update(bar, completed=(before + at) // MB)
        shown.update(bar, completed=size // MB)


def _kept(path: Path) -> dict[str, Any]:
    """What `_keep` wrote, by the name of the tar; nothing where that is absent, damaged or of another version."""
    try:
        digest, _, text = path.read_text().partition("\n")
        kept = json.loads(text) if digest == hashlib.sha256(text.encode()).hexdigest() else {}
    except (OSError, ValueError):
        return {}
    return kept["tars"] if kept.get("version") == VERSION else {}


def _keep(path: Path, tars: Mapping[str, Any]) -> None:
    text = json.dumps({"version": VERSION, "tars": tars})
    with cache.writing(path) as file:
        file.write(f"{hashlib.sha256(text.encode()).hexdigest()}\n{text}".encode())


def _state(path: Path) -> list[int]:
    """Size and time of the last change."""
    try:
        at = path.stat()
    except OSError as error:
        raise DataError(unreadable(path, error)) from error
    return [at.st_size, at.st_mtime_ns]


def _warn(root: Path, cut: Mapping[str, str]) -> None:
    if cut:
        told = [f"{tar} ends {where}" for tar, where in cut.items()]
        told = "; ".join(told[:NAMED] + ["..."] * (len(told) > NAMED))
        log.warning(
            "Cut short or damaged in %s: %d of its tars (%s). What is whole in them is used; copy them for the rest.",
            *(root, len(cut), told),
        )
