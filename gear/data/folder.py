"""A folder of images, listed: class folders, one flat folder that is one class, or tars.

1.28 million names are listed in seconds, without a look into any file, so a listing is made anew at every start: one
that was kept could be out of date. Only what lies in tars is kept, as long as they do not change (`tars`).
"""

import logging
import os
import re
from collections import Counter
from pathlib import Path

import numpy as np

from gear.data import tables, tars
from gear.data.captions import MISSING, Beside
from gear.data.classes import class_list
from gear.data.decode import SUFFIXES, UNREAD
from gear.data.images import DataError
from gear.data.listing import Listing
from gear.data.strings import Strings
from gear.data.tar_headers import compressed

TAR = re.compile(r"\.(tar|tar\.(gz|bz2|xz|zst)|tgz)$", re.IGNORECASE)
PATTERN = re.compile(r"[*?\[{]")  # of a shell or of webdataset
ANNOTATIONS = "annotations"  # COCO's folder of lists
LIST = re.compile("caption|metadata", re.IGNORECASE)  # in the name of a list; metadata.jsonl is that of Hugging Face
SHOWN = 2  # lists in a sentence
PARTS = {"train", "training", "val", "valid", "validation", "test", "testing"}

log = logging.getLogger("gear")


def scan(path: Path, classes: str | None = "folders", progress: bool = True, captioned: bool = False) -> Listing:
    """All images below `path` in the order of their names, hidden files and folders aside.

    Sub-folders that hold images are classes, labelled as `class_list` says; images beside class folders are left out.
    Without such sub-folders the folder is one class. Links are followed, each folder once. Where there are no images
    but tars, it is theirs (`tars.read`). progress: whether a bar may be shown on stderr while tars are indexed.
    classes: None where they do not matter: all images are of one.

    captioned: those that have captions, in one class: in a .txt beside each (a caption a line), or in .txt or .json
    members of tars; or `path` is a .csv, a .jsonl or COCO's .json (`tables.read`). Raises `DataError`, and `CacheError`
    for the index of tars.
    """
    folder = path.expanduser()
    if folder.is_file() and folder.suffix.lower() in tables.SUFFIXES:
        if captioned:
            return tables.read(folder)
        raise DataError(
            f"{path} lists captions, and this run has classes: set generator.text, or give a folder of images."
        )
    if not folder.exists():
        if PATTERN.search(str(path)):
            raise DataError(
                f"There is no folder {path}, and patterns are not read: give data.path the folder that holds the tars "
                f"or images, such as {_before_pattern(path)}."
            )
        raise DataError(
            f'There is no folder {path}. data.path must be "builtin", "cifar10" or a folder of images; where captions '
            'say what is drawn, "emoji", a .csv, a .jsonl or COCO\'s .json, too.'
        )
    if not folder.is_dir():
        raise DataError(
            f"{path} is a file; data.path must be a folder of images. A tar can be used as it is in "
            "a folder of tars; any other archive has to be unpacked first."
        )
    walk = _Walk(folder.resolve())
    if not walk.found and (walk.tars or walk.compressed):
        return _tarred(path, walk, classes, progress, captioned)
    if walk.tars:
        log.warning("%s holds images and tars (%s, ...): the tars are not read.", path, walk.tars[0])
    top = [name.partition("/")[0] if "/" in name else "" for name in walk.found]
    tops = sorted({*top} - {""})
    if len(PARTS.intersection(t.lower() for t in tops)) > 1:
        parts = " and ".join(tops)
        raise DataError(f"{path} holds {parts}: parts of a data set, not classes. Give one, such as {path / tops[0]}.")
    if captioned:
        return _captioned(path, walk)
    names, problems = walk.found, walk.problems
    if classes is None:
        return Listing(
            folder=walk.root,
            classes=(walk.root.name,),
            names=tuple(names),
            labels=np.zeros(len(names), dtype=np.int64),
            problems=tuple(problems),
            others=dict(walk.others),
        )
    if tops:
        problems += [("beside the class folders", name) for name, t in zip(names, top, strict=True) if not t]
        names = [name for name, t in zip(names, top, strict=True) if t]
    listed = class_list(classes, tops) or (walk.root.name,)
    number = {name: label for label, name in enumerate(listed)}
    labels = np.array([number[t] for t in top if t] if tops else [0] * len(names), dtype=np.int64)
    return Listing(walk.root, listed, tuple(names), labels, tuple(problems), dict(walk.others))


def _captioned(path: Path, walk: "_Walk") -> Listing:
    """The images with a .txt of the same stem beside them."""
    texts = {name.rpartition(".")[0]: name for name in walk.texts}
    beside = [texts.get(name.rpartition(".")[0]) for name in walk.found]
    names = tuple(name for name, text in zip(walk.found, beside, strict=True) if text is not None)
    if walk.found and not names:
        lists = _lists(walk.root)
        shown = " or ".join(map(str, lists[:SHOWN])) + (f", or another of {len(lists)}" if len(lists) > SHOWN else "")
        cure = (
            f"give data.path the list of captions itself, {shown}."
            if lists
            else "put a .txt beside each, of the same name, or give data.path a .csv or .jsonl with paths and "
            "captions, or COCO's captions_....json."
        )
        raise DataError(f"{path} has {len(walk.found)} images and a caption for none: {cure}")
    problems = [(MISSING, name) for name, text in zip(walk.found, beside, strict=True) if text is None]
    return Listing(
        folder=walk.root,
        classes=(walk.root.name,),
        names=names,
        labels=np.zeros(len(names), dtype=np.int64),
        problems=(*walk.problems, *problems),
        others=dict(walk.others),
        captions=Beside(walk.root, Strings.of(text for text in beside if text is not None)),
    )


def _lists(root: Path) -> list[Path]:
    """Files that may list the captions of the images in a folder: in it, or where COCO has them."""
    places = (root, root / ANNOTATIONS, root.parent / ANNOTATIONS)
    files = [file for place in places if place.is_dir() for file in sorted(place.iterdir())]
    return [file for file in files if file.suffix.lower() in tables.SUFFIXES and LIST.search(file.stem)]


def _before_pattern(path: Path) -> Path:
    """The folder down to which a path has no pattern."""
    return next(parent for parent in path.parents if not PATTERN.search(str(parent)))


def _tarred(path: Path, walk: "_Walk", classes: str | None, progress: bool, captioned: bool) -> Listing:
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
    t = tars.read(walk.root, walk.tars, classes, progress, captioned)
    others = dict(Counter(t.others) + walk.others - Counter({".tar": len(walk.tars)}))
    return Listing(
        walk.root, t.classes, t.names, t.labels, (*walk.problems, *t.problems), others, t.members, t.captions
    )


class _Walk:
    """The regular files below a folder, in the order of their names."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.found: list[str] = []
        self.texts: list[str] = []  # .txt, which may be captions
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
                if suffix == ".txt":
                    self.texts.append(name)
                if TAR.search(entry.name) and entry.is_file():
                    (self.tars if suffix == ".tar" else self.compressed).append(name)
            elif entry.is_file():  # of a link asks where it leads; else costs nothing
                self.found.append(name)
            else:  # a link to nothing, a pipe, a socket
                self.problems.append(("not readable", name))
        except OSError:
            self.problems.append(("not readable", name))
