"""A folder of images, listed: class folders, one flat folder that is one class, or tars.

1.28 million names are listed in seconds, without a look into any file, so a listing is made anew at every start: one
that was kept could be out of date. Only what lies in tars is kept, as long as they do not change (`tars`).
"""

import logging
import os
import re
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from gear.data import tars
from gear.data.classes import class_list
from gear.data.decode import SUFFIXES, UNREAD
from gear.data.images import DataError, Split, count, describe, held_out
from gear.data.members import Member, Members
from gear.data.tar_headers import compressed

TAR = re.compile(r"\.(tar|tar\.(gz|bz2|xz|zst)|tgz)$", re.IGNORECASE)
PARTS = {"train", "training", "val", "valid", "validation", "test", "testing"}

log = logging.getLogger("gear")


@dataclass(frozen=True, eq=False)
class Listing:
    """N images, in files of their own or in tars, none of them opened yet."""

    folder: Path  # resolved
    classes: tuple[str, ...]
    names: tuple[str, ...]  # relative to the folder, with /; in tars shard-000.tar/0001.jpg
    labels: Int64[np.ndarray, "N"]  # indices into `classes`
    problems: tuple[tuple[str, str], ...]  # (reason, name) of what is left out unopened
    others: dict[str, int]  # suffix -> how many files that are no images by their suffix
    members: Members | None = None  # where the images lie in tars; None: in files of their own

    def __len__(self) -> int:
        return len(self.names)

    @property
    def skipped(self) -> dict[str, int]:
        """Reason -> how many were left out unopened."""
        return count(self.problems)[0]

    def file(self, i: int) -> Path | Member:
        """Where image i is to be read."""
        return self.folder / self.names[i] if self.members is None else self.members[i]

    def report(self) -> str:
        """As `Images.report`; files are opened later, so broken ones are not among them."""
        return f"Left out: {describe(*count(self.problems))}." if self.problems else ""

    @property
    def groups(self) -> tuple[str, ...]:
        """Names without their suffixes: a.png and a.jpg are held to be one picture."""
        return tuple(name.rpartition(".")[0] for name in self.names)

    def split(self, holdout: float) -> "Split[Listing]":
        """As `Images.split`: the same images are held out of a folder whether it is prepared or streamed."""
        out = held_out(self.groups, holdout)
        return Split(train=self.rows(np.flatnonzero(~out).tolist()), held_out=self.rows(np.flatnonzero(out).tolist()))

    def rows(self, index: list[int]) -> "Listing":
        members = None if self.members is None else self.members.rows(index)
        return replace(self, names=tuple(self.names[i] for i in index), labels=self.labels[index], members=members)


def scan(path: Path, classes: str = "folders", progress: bool = True) -> Listing:
    """All images below `path` in the order of their names, hidden files and folders aside.

    Sub-folders that hold images are classes, labelled as `class_list` says; images beside class folders are left out.
    Without such sub-folders the folder is one class. Links are followed, each folder once. Where there are no images
    but tars, it is theirs (`tars.read`). progress: whether a bar may be shown on stderr while tars are indexed. Raises
    `DataError`, and `CacheError` for the index of tars.
    """
    folder = path.expanduser()
    if not folder.exists():
        raise DataError(f'There is no folder {path}. data.path must be "builtin", "cifar10" or a folder of images.')
    if not folder.is_dir():
        raise DataError(
            f"{path} is a file; data.path must be a folder of images. A tar can be used as it is in "
            "a folder of tars; any other archive has to be unpacked first."
        )
    walk = _Walk(folder.resolve())
    if not walk.found and (walk.tars or walk.compressed):
        return _tarred(path, walk, classes, progress)
    if walk.tars:
        log.warning("%s holds images and tars (%s, ...): the tars are not read.", path, walk.tars[0])
    top = [name.partition("/")[0] if "/" in name else "" for name in walk.found]
    tops = sorted({*top} - {""})
    if len(PARTS.intersection(t.lower() for t in tops)) > 1:
        parts = " and ".join(tops)
        raise DataError(f"{path} holds {parts}: parts of a data set, not classes. Give one, such as {path / tops[0]}.")
    names, problems = walk.found, walk.problems
    if tops:
        problems += [("beside the class folders", name) for name, t in zip(names, top, strict=True) if not t]
        names = [name for name, t in zip(names, top, strict=True) if t]
    listed = class_list(classes, tops) or (walk.root.name,)
    number = {name: label for label, name in enumerate(listed)}
    labels = np.array([number[t] for t in top if t] if tops else [0] * len(names), dtype=np.int64)
    return Listing(walk.root, listed, tuple(names), labels, tuple(problems), dict(walk.others))


def _tarred(path: Path, walk: "_Walk", classes: str, progress: bool) -> Listing:
    if walk.compressed:
        raise DataError(compressed(walk.root / walk.compressed[0]))
    parts = {tar: {word[:2] for word in PARTS.intersection(re.split("[^a-z]+", tar.lower()))} for tar in walk.tars}
    named = [tar for tar in walk.tars if parts[tar]]
    for tar in named:
        if parts[tar] != parts[named[0]]:
            raise DataError(
                f"{path} holds {named[0]} and {tar}: parts of a data set, not one. Give a folder with the tars of one "
                "part, or with links to them."
            )
    t = tars.read(walk.root, walk.tars, classes, progress)
    others = dict(Counter(t.others) + walk.others - Counter({".tar": len(walk.tars)}))
    return Listing(walk.root, t.classes, t.names, t.labels, (*walk.problems, *t.problems), others, t.members)


class _Walk:
    """The regular files below a folder, in the order of their names."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.found: list[str] = []
        self.tars: list[str] = []
        self.compressed: list[str] = []  # tars, too
        self.problems: list[tuple[str, str]] = []
        self.others: Counter[str] = Counter()
        self.seen: set[tuple[int, int]] = set()
        self._visit(str(root), "")

    def _visit(self, folder: str, prefix: str) -> None:
        try:
            at = os.stat(folder)
            if (at.st_dev, at.st_ino) in self.seen:  # a link that leads back
                return
            self.seen.add((at.st_dev, at.st_ino))
            with os.scandir(folder) as entries:
                listed = sorted(entries, key=lambda entry: entry.name)
        except OSError:
            self.problems.append(("not readable", prefix or "."))
            return
        for entry in listed:
            if not entry.name.startswith("."):
                self._take(entry, prefix + entry.name)

    def _take(self, entry: os.DirEntry[str], name: str) -> None:
        try:
            if entry.is_dir():
                return self._visit(entry.path, name + "/")
            suffix = os.path.splitext(entry.name)[1].lower()
            if suffix in UNREAD:
                self.problems.append((f"{suffix}, a format that is not read", name))
            elif suffix not in SUFFIXES:
                self.others[suffix or "no suffix"] += 1
                if TAR.search(entry.name) and entry.is_file():
                    (self.tars if suffix == ".tar" else self.compressed).append(name)
            elif entry.is_file():  # of a link asks where it leads; else costs nothing
                self.found.append(name)
            else:  # a link to nothing, a pipe, a socket
                self.problems.append(("not readable", name))
        except OSError:
            self.problems.append(("not readable", name))
