"""Which label a class has that a folder, or a label beside an image, names: its place among all that are there, or in a
list that they are held to."""

import re
from collections import Counter
from collections.abc import Collection, Sequence, Sized
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
    classes = _listed(choice)
    if not folders:
        raise DataError(
            f'data.classes is "{choice}", but the images lie in no class folders: give data.path a folder of class '
            'folders, or data.classes "folders".'
        )
    _require_listed(choice, classes, folders, set(folders) - set(classes), "folders")
    return classes


def label_list(choice: str, said: Collection[str]) -> tuple[tuple[str, ...], dict[str, int]]:
    """The classes in the order of their labels, and the label of each of the distinct texts `said`, which stand beside
    images.

    choice: as of `class_list`. With "folders" the texts are the classes, sorted; as numbers if all consist of digits.
        With a list, a text of digits is a label, counted from 0, and any other the name of a class; what is not in the
        list is a `DataError`.
    """
    if choice == "folders":
        classes = tuple(sorted(said, key=int if all(map(_is_number, said)) else None))
        return classes, {text: label for label, text in enumerate(classes)}
    classes = _listed(choice)
    if not said:
        raise DataError(
            f'data.classes is "{choice}", but no image has a label beside it (.cls, or "label" or "class" in .json): '
            'give data.path a folder of labelled images, or data.classes "folders".'
        )
    place = {name: label for label, name in enumerate(classes)}
    number = {text: int(text) if _is_number(text) else place.get(text, len(classes)) for text in said}
    others = {text for text, label in number.items() if label >= len(classes)}
    _require_listed(choice, classes, said, others, "labels")
    return classes, number


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


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 19  # longer ones, no label anywhere, may not fit int()


def _listed(choice: str) -> tuple[str, ...]:
    return imagenet() if choice == "imagenet" else _lines(Path(choice).expanduser())


def _require_listed(choice: str, classes: Sequence[str], names: Sized, others: Collection[str], what: str) -> None:
    if others:
        said = ", ".join(sorted(others)[:NAMED_AT_MOST]) + (", ..." if len(others) > NAMED_AT_MOST else "")
        raise DataError(
            f'data.classes is "{choice}", whose {len(classes)} classes do not include {len(others)} of the '
            f'{len(names)} {what}: {said}. Remove them, or give data.classes another list or "folders".'
        )


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
