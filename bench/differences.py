"""What differs between two finished runs of one configuration: bit for bit, but for `CLOCK`."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from gear.train import lines, lock, state

CLOCK = {"seconds", "images_per_s", "memory_gib"}  # of a line: what a killed run may differ in


def differences(a: Path, b: Path) -> list[str]:
    """Of two finished runs of one configuration, a sentence each; bit for bit, but for `CLOCK`."""
    files = [{str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()} for run in (a, b)]
    found = [f"{name} is there" for name in sorted(files[1] - files[0])]
    found += [f"{name} is missing" for name in sorted(files[0] - files[1])]
    for name in sorted(files[0] & files[1] - {lock.NAME}):
        x, y = a / name, b / name
        match x.suffix:
            case ".safetensors":
                found += [f"{name}: {what}" for what in _of_checkpoints(x, y)]
            case ".jsonl":
                found += [f"{name}: {what}" for what in _of_lines(x, y)]
            case ".png":
                with Image.open(x) as p, Image.open(y) as q:
                    found += [f"{name}: other pixels"] * (not np.array_equal(np.asarray(p), np.asarray(q)))
            case _:
                found += [f"{name}: other content"] * (x.read_bytes() != y.read_bytes())
    return found


def _of_checkpoints(a: Path, b: Path) -> Iterator[str]:
    x, y = state.load(a), state.load(b)
    if (x.step, x.config, x.classes) != (y.step, y.config, y.classes):
        yield f"step {y.step} and not {x.step}, or another configuration"
    for key in sorted(x.tensors.keys() ^ y.tensors.keys()):
        yield f"{key} is in one only"
    for key in sorted((x.tensors.keys() & y.tensors.keys()) - {"log.seconds"}):
        s, t = x.tensors[key], y.tensors[key]
        if s.dtype != t.dtype or not torch.equal(s, t):
            yield f"{key} differs"


def _of_lines(a: Path, b: Path) -> Iterator[str]:
    x, y = ([_timeless(json.loads(line)) for line in path.read_text().splitlines()] for path in (a, b))
    if len(x) != len(y):
        yield f"{len(y)} lines and not {len(x)}"
    for number, (s, t) in enumerate(zip(x, y, strict=False), 1):
        if s != t:
            yield f"line {number}: {', '.join(sorted(k for k in s.keys() | t.keys() if s.get(k) != t.get(k)))} differ"


def _timeless(line: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in line.items() if name not in CLOCK}


def drift(a: Path, b: Path) -> list[tuple[int, float, str]]:
    """Of each line of two logs: its step, the largest relative difference of a number, and whose it is; nothing where
    their steps are not the same."""
    x, y = (lines.read(run / lines.NAME) for run in (a, b))
    if [line["step"] for line in x] != [line["step"] for line in y]:
        return []
    found = []
    for s, t in zip(x, y, strict=True):
        names = [name for name in s if name not in CLOCK | {"step", "ranks"} and None not in (s[name], t[name])]
        largest = max((abs(s[n] - t[n]) / max(abs(s[n]), abs(t[n]), 1e-12), n) for n in names)
        found.append((s["step"], *largest))
    return found
