"""A folder of tars as one set of images. Each tar is indexed once; the index is kept in the cache until it changes."""

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Int64
from rich.console import Console

from gear.data import tar_cache
from gear.data.captions import KEYS, MISSING, InTars
from gear.data.classes import label_list
from gear.data.images import DataError
from gear.data.members import Members
from gear.data.strings import Strings
from gear.data.tar_index import Index, index, unreadable
from gear.progress import bars
from gear.store import cache

LONG = 1 << 30  # bytes of tars to index, from which on a bar is shown
MB = 1_000_000
NAMED = 3  # tars in a warning

log = logging.getLogger("gear")


@dataclass(frozen=True, eq=False)
class Tarred:
    """The N images of a folder of tars; see `Listing`."""

    classes: tuple[str, ...]
    names: Strings  # of the tar and in the tar: shard-000.tar/0001.jpg
    labels: Int64[np.ndarray, "N"]
    problems: tuple[tuple[str, str], ...]
    others: dict[str, int]
    members: Members
    captions: InTars | None  # None: not asked for


def read(
    root: Path, tars: Sequence[str], classes: str | None, progress: bool = True, captioned: bool = False
) -> Tarred:
    """The images of `tars`, files below `root`, tar by tar.

    Classes are as `label_list` says; without any label, or with None, all images are of one class, called as `root` is;
    else those without one are left out. captioned: those with a caption, in one class whatever their labels. A tar that
    ends too early gives what is whole in it, and a warning. progress: whether a bar may be shown on stderr. Raises
    `DataError`, and `CacheError` where the index cannot be kept.
    """
    found = _indexes(root, tars, progress)
    _warn(root, {tar: f.cut for tar, f in zip(tars, found, strict=True) if f.cut})
    names = Strings.chained([f.names.prefixed(f"{tar}/") for tar, f in zip(tars, found, strict=True)])
    problems = [(r, f"{tar}/{n}" if n else tar) for tar, f in zip(tars, found, strict=True) for r, n in f.problems]
    members = Members(
        tars=tuple(root / tar for tar in tars),
        tar=np.repeat(np.arange(len(tars), dtype=np.int64), [len(f.names) for f in found]),
        offsets=np.concatenate([f.offsets for f in found]),
        sizes=np.concatenate([f.sizes for f in found]),
    )
    others = dict(sum((Counter(f.others) for f in found), Counter()))
    if captioned:
        return _captioned(root, found, names, problems, others, members)
    if classes is None:
        return Tarred((root.name,), names, np.zeros(len(names), np.int64), tuple(problems), others, members, None)
    words = sorted({label for f in found for label in f.said})
    place = {label: i for i, label in enumerate(words)}
    numbers = [np.array([*(place[label] for label in f.said), -1], dtype=np.int64)[f.labels] for f in found]
    said = np.concatenate(numbers)  # indices into words, -1 without a label
    kept = said >= 0
    if kept.any() and not kept.all():
        problems += [("without a label", names[i]) for i in np.flatnonzero(~kept).tolist()]
        index = np.flatnonzero(kept)
        names, members, said = names.rows(index), members.rows(index), said[index]
    listed, number = label_list(classes, words)
    labels = np.array([number[word] for word in words], dtype=np.int64)[said] if words else np.zeros_like(said)
    return Tarred(listed or (root.name,), names, labels, tuple(problems), others, members, None)


def _captioned(
    root: Path,
    found: Sequence[Index],
    names: Strings,
    problems: list[tuple[str, str]],
    others: dict[str, int],
    members: Members,
) -> Tarred:
    texts = np.concatenate([f.texts for f in found])
    if len(names) and (texts < 0).all():
        raise DataError(
            f"{root} has {len(names)} images and a caption for none: a tar needs a .txt beside each, of the same name, "
            f"or a .json with one of {', '.join(KEYS)}."
        )
    problems = [*problems, *((MISSING, names[i]) for i in np.flatnonzero(texts < 0).tolist())]
    sizes, kinds = (np.concatenate([getattr(f, part) for f in found]) for part in ("lengths", "kinds"))
    captions = InTars(Members(members.tars, members.tar, texts, sizes.astype(np.int64)), kinds)
    if (texts < 0).any():
        index = np.flatnonzero(texts >= 0)
        names, members, captions = names.rows(index), members.rows(index), captions.rows(index)
    labels = np.zeros(len(names), dtype=np.int64)
    return Tarred((root.name,), names, labels, tuple(problems), others, members, captions)


def _indexes(root: Path, tars: Sequence[str], progress: bool) -> list[Index]:
    """Of each tar, from the cache where its size and the time of its last change are those of then."""
    digest = hashlib.sha256(json.dumps(str(root)).encode()).hexdigest()
    cached = cache.directory() / "data" / f"{root.name}-{digest[:12]}-tars.safetensors"
    states = {tar: _state(root / tar) for tar in tars}
    there = tar_cache.read(cached)
    known = {tar: there[tar].index for tar in tars if tar in there and there[tar].state == states[tar]}
    if missing := [tar for tar in tars if tar not in known]:
        cache.require_space(cached, 0)
        sizes = [states[tar][0] for tar in missing]
        try:
            with _bar(f"Indexing {root.name}, MB", sum(sizes), progress) as reached:
                for i, tar in enumerate(missing):
                    known[tar] = index(root / tar, partial(reached, sum(sizes[:i])))
        finally:  # of tens of thousands it takes hours, which Ctrl-C and a damaged one should not cost
            if known:
                kept = {tar: tar_cache.Kept(states[tar], known[tar]) for tar in tars if tar in known}
                tar_cache.write(cached, kept)
    return [known[tar] for tar in tars]


@contextmanager
def _bar(what: str, size: int, progress: bool) -> Iterator[Callable[[int, int], None]]:
    """Gives what is told the bytes of the tars that are done and those of the next one so far."""
    with bars(Console(stderr=True, quiet=not progress or size < LONG)) as shown:
        bar = shown.add_task(what, total=size // MB, note="")
        yield lambda before, at: shown.update(bar, completed=(before + at) // MB)
        shown.update(bar, completed=size // MB)


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
