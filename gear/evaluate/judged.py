"""What was found out about each of many images, a line each, so that an interruption costs only one image."""

import hashlib
import json
from pathlib import Path
from typing import Any

from gear.store.whole import explained, replacing


class Judged:
    """A file of JSON lines: first what the judgements depend on, then one an image. Those of other settings are kept in
    a file beside it, and are there again when their settings are.

    An image is known by its path, size and time of change.
    """

    def __init__(self, path: Path, about: dict[str, Any]):
        self.path, self.records = path, dict[str, Any]()
        head = json.dumps({"about": about}, sort_keys=True)
        lines = _lines(path)
        if lines[0] != head:
            if len(lines) > 2:  # a judgement and the end of its line
                with explained(path):
                    path.replace(_aside(path, lines[0]))
            lines = _lines(_aside(path, head))
        if lines[0] == head:
            whole = [json.loads(line) for line in lines[1:-1]]  # the last has no end: empty, or cut off by a kill
            self.records = {record["image"]: record for record in whole}
        with replacing(path) as partial:
            kept = [head, *(json.dumps(record) for record in self.records.values())]
            partial.write_text("\n".join(kept) + "\n")

    def get(self, image: Path) -> Any | None:
        """What `put` was given, or None."""
        record = self.records.get(_known(image))
        return None if record is None else record["found"]

    def put(self, image: Path, found: Any) -> None:
        record = {"image": _known(image), "found": found}
        self.records[record["image"]] = record
        with explained(self.path), self.path.open("a") as file:
            file.write(json.dumps(record) + "\n")


def _lines(path: Path) -> list[str]:
    """At least one, which is empty where there is no file."""
    return path.read_text().split("\n") if path.is_file() else [""]


def _aside(path: Path, head: str) -> Path:
    """Where judgements are kept while `path` holds those of another head."""
    return path.with_name(f"{path.stem}-{hashlib.sha256(head.encode()).hexdigest()[:8]}{path.suffix}")


def _known(image: Path) -> str:
    state = image.stat()
    return f"{image.resolve()} {state.st_size} {state.st_mtime_ns}"
