"""Captions to draw from or to compare with, one an image: COCO's, GPIC's, or anybody's, in the formats they come in."""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import Any

from gear.evaluate.prompts import PromptError, json_lines, read

TEXTS = ("caption", "captions", "prompt", "text", "sentences")  # the column of captions, first found first
KEYS = ("key", "file_name", "filename", "image_id", "id", "index")  # the column of keys
FORMATS = (".json", ".jsonl", ".csv", ".tsv", ".parquet", ".txt")


@dataclass(frozen=True)
class Caption:
    """
    key: what the image is called, without folder and suffix. text: of several captions of an image, the first.
    """

    key: str
    text: str


def captions(path: Path) -> list[Caption]:
    """The captions of a file, in its order; of several with one key the first.

    .json: COCO's annotations ({"images", "annotations"}; the key is the image's file name), a list of objects or of
    texts, or an object {key: text}. .jsonl, .csv, .tsv, .parquet: a column named as in `TEXTS`, and as in `KEYS` where
    there is one; else the number of the row is the key, in six digits. .txt: a caption a line. Raises `PromptError`.
    """
    readers = {".json": _json, ".jsonl": _json_lines, ".parquet": _parquet, ".txt": _lines}
    if path.suffix.lower() not in FORMATS:
        raise PromptError(f"{path}: captions are read from {', '.join(FORMATS)}.")
    if not path.is_file():
        raise PromptError(f"{path} does not exist; it should hold captions.")
    try:
        rows = list(readers.get(path.suffix.lower(), _table)(path))
    except (json.JSONDecodeError, csv.Error) as error:
        raise PromptError(f"{path} cannot be read as {path.suffix}: {error}.") from error
    found: dict[str, str] = {}
    for i, row in enumerate(rows):
        caption = _caption(row, i, path)
        found.setdefault(caption.key, caption.text)
    if not found:
        raise PromptError(f"{path} holds no captions.")
    return [Caption(key, text) for key, text in found.items()]


def _caption(row: Any, i: int, path: Path) -> Caption:
    row = {"caption": row} if isinstance(row, str) else row
    if not isinstance(row, Mapping):
        raise PromptError(f"{path}, row {i + 1} must be a text or an object; it is a {type(row).__name__}.")
    text = next((row[name] for name in TEXTS if row.get(name) is not None), None)
    if isinstance(text, list | tuple) and text:
        text = text[0]
    if not isinstance(text, str) or not text.strip():
        raise PromptError(
            f"{path}, row {i + 1} has no text under {', '.join(TEXTS)}; it has {', '.join(map(str, row))}."
        )
    key = next((row[name] for name in KEYS if row.get(name) not in (None, "")), f"{i:06d}")
    return Caption(stem(str(key)), text.strip())


def stem(name: str) -> str:
    """A file's name without folder and the suffix of an image; a key that is no file's name stays as it is."""
    path = PurePosixPath(name.replace("\\", "/"))
    images = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
    return path.stem if path.suffix.lower() in images else path.name


def _json(path: Path) -> Iterable[Any]:
    contents = json.loads(read(path))
    if isinstance(contents, dict) and {"images", "annotations"} <= contents.keys():
        return _coco(contents, path)
    if isinstance(contents, dict):
        return [{"key": key, "caption": text} for key, text in contents.items()]
    return contents if isinstance(contents, list) else [contents]


def _coco(contents: dict[str, Any], path: Path) -> list[dict[str, Any]]:
    """By the number of the image; of an image's five captions that of the lowest number first."""
    try:
        names = {image["id"]: image["file_name"] for image in contents["images"]}
        notes = sorted(contents["annotations"], key=lambda note: (note["image_id"], note["id"]))
        return [{"key": names[note["image_id"]], "caption": note["caption"]} for note in notes]
    except (KeyError, TypeError) as error:
        raise PromptError(
            f"{path} is no file of COCO's captions (captions_val2017.json): it lacks {error} somewhere."
        ) from error


def _json_lines(path: Path) -> Iterator[Any]:
    return (record for _, record in json_lines(path))


def _lines(path: Path) -> list[Any]:
    return [line for line in read(path).splitlines() if line.strip()]


def _table(path: Path) -> Iterator[Any]:
    yield from csv.DictReader(
        io.StringIO(read(path), newline=""), delimiter="\t" if path.suffix.lower() == ".tsv" else ","
    )


def _parquet(path: Path) -> list[Any]:
    """Only the columns of captions and keys: images lie beside them."""
    try:
        parquet = import_module("pyarrow.parquet")
    except ImportError as error:
        raise PromptError(
            f"{path}: parquet needs the library pyarrow (pip install pyarrow); or write its captions as .jsonl."
        ) from error
    try:
        names = parquet.ParquetFile(path).schema_arrow.names
        return parquet.read_table(path, columns=[name for name in names if name in TEXTS + KEYS]).to_pylist()
    except (ValueError, OSError) as error:  # pyarrow's own are ValueErrors
        raise PromptError(f"{path} cannot be read as parquet: {str(error).splitlines()[0]}") from error
