"""What was found out about each of many images, a line each, so that an interruption costs only one image."""

import json
from pathlib import Path
from typing import Any

from gear.store.whole import explained


class Judged:
    """A file of JSON lines: first what the judgements depend on, then one an image. Of other settings it starts anew.

    An image is known by its path, size and time of change.
    """

    def __init__(self, path: Path, about: dict[str, Any]):
        self.path, self.records = path, dict[str, Any]()
        head = json.dumps({"about": about}, sort_keys=True)
        lines = path.read_text().split("\n") if path.is_file() else []
        if lines[:1] == [head]:
            whole = [json.loads(line) for line in lines[1:-1]]  # the last has no end: empty, or cut off by a kill
            self.records = {record["image"]: record for record in whole}
        with explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            kept = [head, *(json.dumps(record) for record in self.records.values())]
            path.write_text("\n".join(kept) + "\n")

    def get(self, image: Path) -> Any | None:
        """What `put` was given, or None."""
        record = self.records.get(_known(image))
        return None if record is None else record["found"]

    def put(self, image: Path, found: Any) -> None:
        record = {"image": _known(image), "found": found}
        self.records[record["image"]] = record
        with explained(self.path), self.path.open("a") as file:
            file.write(json.dumps(record) + "\n")


def _known(image: Path) -> str:
    state = image.stat()
    return f"{image.resolve()} {state.st_size} {state.st_mtime_ns}"
