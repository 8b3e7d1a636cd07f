"""IMAGES.json beside images that `gear sample` saved: which model drew them and how, so that results say whose they
are."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

from gear.evaluate import npz
from gear.evaluate.results import Model
from gear.store.whole import replacing

MOST = 1 << 20  # bytes of a note; a larger file of that name is something else
TOLD = (
    *("run", "model", "weights_sha256", "seed", "precision", "cfg_scale", "cfg_interval"),
    *("temperature", "top_k", "top_p", "resize"),
)


def beside(images: Path) -> Path:
    """Of a folder or an .npz."""
    whole = images.resolve()
    return whole.with_name(f"{whole.name}.json")


def write(images: Path, told: dict[str, Any]) -> None:
    with replacing(beside(images)) as partial:
        partial.write_text(json.dumps(told | _content(images), indent=2))


def read(images: Path, n: int) -> dict[str, Any]:
    """What the note beside these n images says, of `TOLD`; nothing where there is none or it is of other images."""
    file = beside(images)
    try:
        found = json.loads(file.read_text()) if file.stat().st_size <= MOST else None
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(found, dict) or "cfg_scale" not in found or found.get("n", n) != n:
        return {}
    if any(found.get(name) != value for name, value in _content(images).items()):
        return {}
    model = found.get("model")
    if model is not None and (not isinstance(model, dict) or model.keys() != {f.name for f in fields(Model)}):
        return {}
    return {name: found[name] for name in TOLD if name in found}


def model(about: dict[str, Any]) -> Model | None:
    """Takes the model out of what is told of images, for which results have a place; None where none is known."""
    said = about.pop("model", None)
    return None if said is None else Model(**said)


def _content(images: Path) -> dict[str, int]:
    """What tells the pixels of an .npz from others; of a folder their number does."""
    return {"crc32": npz.crc32(images)} if images.is_file() else {}
