"""Every pretrained network the project reads: where its file is, whether it is whole, and how to get it. It loads none.

`path(name)` finds the file, in this order: shipped with gear, inside an installed package, in the cache
(`gear fetch NAME` puts it there), in the Hugging Face cache. The registry itself is `gear.store.networks`.
"""

import os
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from gear.store import cache
from gear.store.networks import WEIGHTS, Beside, Hub, Url, Weight
from gear.store.packages import Package, sha256

__all__ = [
    "WEIGHTS",
    "Beside",
    "Hub",
    "MissingWeight",
    "Url",
    "Weight",
    "WeightStatus",
    "cached",
    "expected_sha256",
    "find",
    "note_path",
    "path",
    "status",
]

SHIPPED = Path(__file__).parent / "pretrained"


class MissingWeight(OSError):
    """A pretrained network that is not on this machine, or whose file is damaged: how to bring it."""


@dataclass(frozen=True)
class WeightStatus:
    name: str
    present: bool  # there, and its sha256 is right
    path: Path  # where it is, or where it would be looked for
    needed_for: str
    how: str  # the command that brings it; "" where it is present


def find(name: str) -> Weight:
    """The entry called `name`. Raises KeyError."""
    return {weight.name: weight for weight in WEIGHTS}[name]


def cached(weight: Weight) -> Path:
    """Where `gear fetch` puts a weight, and where its file may be put by hand."""
    return cache.directory() / "weights" / weight.name / weight.file


def path(name: str) -> Path:
    """The local file of a pretrained network. Raises `MissingWeight`, which says how to get it, and KeyError."""
    weight = find(name)
    files = [file for file in _places(weight) if file.is_file()]
    wrong: list[tuple[Path, str]] = []  # another file than the one expected; the sha256 expected
    for file in files:
        if (fault := _fault(weight, file)) is None:
            return file
        wrong.append(fault)
    if not wrong:
        fetch = f"gear fetch {name}"
        beside = f" with {', '.join(b.file for b in weight.beside)} beside it" if weight.beside else ""
        raise MissingWeight(
            f"The weights {name} are not on this machine; they are needed for {weight.needed_for}. "
            f"Run `{fetch}`, or `{fetch} --from FILE` with {_archive(weight)}, "
            f"or put {weight.file} at {cached(weight)}{beside} (GEAR_CACHE moves that folder)."
        )
    file, expected = wrong[0]
    if not file.is_file():
        raise MissingWeight(f"The weights {name} lack {file}: run `gear fetch {name}`.")
    raise MissingWeight(
        f"The weights {name} are damaged: the sha256 of {file} must be {expected} and is {sha256(file)}. "
        f"Delete that file and run `gear fetch {name}`."
    )


def status() -> list[WeightStatus]:
    """All weights in the order of the registry, present or not."""
    found = []
    for weight in WEIGHTS:
        try:
            file, how = path(weight.name), ""
        except MissingWeight:
            file, how = cached(weight), f"gear fetch {weight.name}"
        found.append(WeightStatus(weight.name, how == "", file, weight.needed_for, how))
    return found


def expected_sha256(weight: Weight, file: Path) -> str | None:
    """What the file's sha256 must be: the registry's, or else what `gear fetch` noted beside it, or else anything."""
    note = note_path(file)
    return weight.sha256 or (note.read_text().split()[0] if note.is_file() else None)


def note_path(file: Path) -> Path:
    """Where the sha256 of a file is noted, in the format of sha256sum."""
    return file.with_name(file.name + ".sha256")


def _fault(weight: Weight, file: Path) -> tuple[Path, str] | None:
    """The first of `file` and those that belong beside it that is not the one expected, and the sha256 expected."""
    wanted = [(file, expected_sha256(weight, file)), *((file.with_name(b.file), b.sha256) for b in weight.beside)]
    for one, expected in wanted:
        if expected is None:
            continue
        if not one.is_file() or expected != _sha256(one, one.stat().st_mtime_ns):
            return one, expected
    return None


def _places(weight: Weight) -> list[Path]:
    """Where a weight may lie, best first."""
    places = [SHIPPED / weight.file, cached(weight)]
    if isinstance(weight.source, Package) and weight.source.member.endswith("/" + weight.file):
        module, _, inside = weight.source.member.partition("/")
        spec = find_spec(module)  # finds a top-level package without importing it
        places[1:1] = [Path(folder) / inside for folder in (spec.submodule_search_locations or [])] if spec else []
    if isinstance(weight.source, Hub):
        places += _hub_copies(weight.source)
    return places


def _hub_copies(hub: Hub) -> list[Path]:
    """A file's copies in the Hugging Face cache, where timm too looks for it."""
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    root = Path(os.environ.get("HF_HUB_CACHE") or Path(home) / "hub").expanduser()
    return sorted((root / f"models--{hub.repository.replace('/', '--')}" / "snapshots").glob(f"*/{hub.file}"))


def _archive(weight: Weight) -> str:
    match weight.source:
        case Hub(repository, file):
            return f"{file} of the model {repository}"
        case Url(address):
            return f"{weight.source.file} ({address})"
        case Package():
            return f"{weight.source.archive} (`{weight.source.command}`)"


@lru_cache(maxsize=32)
def _sha256(file: Path, changed: int) -> str:
    """`changed`, the time of the last change, is part of the key: another file at the same place is read anew."""
    return sha256(file)
