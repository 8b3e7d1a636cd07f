"""A folder of images, listed: class folders, or one flat folder that is one class."""

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from gear.data.decode import SUFFIXES
from gear.data.images import DataError

PARTS = {"train", "training", "val", "valid", "validation", "test", "testing"}

UNREAD = {".heic", ".heif", ".avif", ".jxl", ".dng", ".cr2", ".nef", ".arw"}  # photographs that need other decoders


@dataclass(frozen=True)
class File:
    path: Path
    name: str  # relative to the folder, with /
    label: int
    size: int  # bytes
    changed: int  # ns


@dataclass(frozen=True)
class Listing:
    folder: Path  # resolved
    classes: tuple[str, ...]
    files: tuple[File, ...]
    problems: tuple[tuple[str, str], ...]  # (reason, name) of what is left out unopened
    others: dict[str, int]  # suffix -> how many files that are no images by their suffix


def scan(path: Path) -> Listing:
    """All images below `path`, hidden files and folders aside.

    Sub-folders that hold images are classes, in the order of their names; images beside class folders are left out.
    Without such sub-folders the folder is one class. Links are followed, each folder once. Raises `DataError`.
    """
    folder = path.expanduser()
    if not folder.exists():
        raise DataError(f'There is no folder {path}. data.path must be "builtin", "cifar10" or a folder of images.')
    if not folder.is_dir():
        raise DataError(f"{path} is a file; data.path must be a folder of images. An archive has to be unpacked first.")
    walk = _Walk(folder.resolve())
    tops = sorted({name.split("/")[0] for name, _, _ in walk.found if "/" in name})
    if len(PARTS.intersection(t.lower() for t in tops)) > 1:
        parts = " and ".join(tops)
        raise DataError(f"{path} holds {parts}: parts of a data set, not classes. Give one, such as {path / tops[0]}.")
    label = {top: i for i, top in enumerate(tops)}
    files, problems = [], list(walk.problems)
    for name, size, changed in walk.found:
        top = name.split("/")[0]
        if tops and "/" not in name:
            problems.append(("beside the class folders", name))
            continue
        files.append(File(walk.root / name, name, label.get(top, 0) if tops else 0, size, changed))
    return Listing(walk.root, tuple(tops) or (walk.root.name,), tuple(files), tuple(problems), dict(walk.others))


class _Walk:
    """The regular files below a folder, in the order of their names."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.found: list[tuple[str, int, int]] = []  # name, size, changed
        self.problems: list[tuple[str, str]] = []
        self.others: Counter[str] = Counter()
        self.seen: set[tuple[int, int]] = set()
        self._visit(root, "")

    def _visit(self, folder: Path, prefix: str) -> None:
        try:
            at = folder.stat()
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
                return self._visit(Path(entry.path), name + "/")
            suffix = os.path.splitext(entry.name)[1].lower()
            if suffix in UNREAD:
                self.problems.append((f"{suffix}, a format that is not read", name))
            elif suffix not in SUFFIXES:
                self.others[suffix or "no suffix"] += 1
            elif entry.is_file():
                at = entry.stat()
                self.found.append((name, at.st_size, at.st_mtime_ns))
            else:  # a link to nothing, a pipe, a socket
                self.problems.append(("not readable", name))
        except OSError:
            self.problems.append(("not readable", name))
