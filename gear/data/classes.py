"""Which label a class folder has: its place among the folders that are there, or in a list that they are held to."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from gear.data.images import DataError

WNID = re.compile(r"n\d{8}")  # WordNet's number of a synset, which ImageNet's folders are called by
NAMED_AT_MOST = 5


def class_list(choice: str, folders: Sequence[str]) -> tuple[str, ...]:
    """The classes in the order of their labels.

    choice: "folders": the names of `folders`, sorted, as they come; "imagenet": the 1,000 wnids of ILSVRC 2012 in their
        standard order; else a text file with the name of one folder a line. With a list, labels do not depend on which
        folders are there; one that is not in the list is a `DataError`.
    """
    if choice == "folders":
        return tuple(folders)
    classes = imagenet() if choice == "imagenet" else _lines(Path(choice).expanduser())
    if not folders:
        raise DataError(
            f'data.classes is "{choice}", but the images lie in no class folders: give data.path a folder of class '
            'folders, or data.classes "folders".'
        )
    if others := sorted(set(folders) - set(classes)):
        said = ", ".join(others[:NAMED_AT_MOST]) + (", ..." if len(others) > NAMED_AT_MOST else "")
        raise DataError(
            f'data.classes is "{choice}", whose {len(classes)} classes do not include {len(others)} of the '
            f'{len(folders)} folders: {said}. Remove them, or give data.classes another list or "folders".'
        )
    return classes


def imagenet() -> tuple[str, ...]:
    """The wnids of ImageNet's 1,000 classes; label 0 is n01440764, the tench."""
    from timm.data.imagenet_info import ImageNetInfo  # late: it takes seconds, and few data sets need it

    return tuple(ImageNetInfo("imagenet-1k").label_names())


def class_names(classes: Sequence[str]) -> tuple[str, ...]:
    """For display: a wnid as the first of its English words ("tench"; of two with the same, each with its wnid too:
    "crane (n02012849)"), anything else as it is."""
    if not any(WNID.fullmatch(name) for name in classes):
        return tuple(classes)
    from timm.data.imagenet_info import ImageNetInfo

    info = ImageNetInfo()

    def english(name: str) -> str:
        try:
            return info.label_name_to_description(name).partition(",")[0]
        except KeyError:
            return name

    names = Counter(map(english, classes))
    return tuple(english(c) if names[english(c)] == 1 else f"{english(c)} ({c})" for c in classes)


def _lines(path: Path) -> tuple[str, ...]:
    try:
        classes = tuple(line.strip() for line in path.read_text("utf-8").rstrip().split("\n"))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f'data.classes must be "folders", "imagenet" or a text file with one class name a line; {path} cannot be '
            f"read as one ({getattr(error, 'strerror', None) or 'not UTF-8'})."
        ) from error
    if twice := {name for name in classes if not name or classes.count(name) > 1}:
        raise DataError(
            f"{path} must have one class name a line, each once; {min(twice) or 'an empty line'!r} breaks that."
        )
    return classes
