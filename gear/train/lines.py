"""The JSON lines that a run writes, read without torch: what only looks at a run need not wait for it."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gear.store.whole import explained, replacing

NAME = "log.jsonl"
SMALLER = ("fid", "lpips", "ntp", "loss", "l1", "mse", "distance")  # parts of names: the smaller, the better
LARGER = ("psnr", "ssim", "inception", "precision", "recall", "accuracy")


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of a log, up to one that is damaged, as the last one that a kill cut short."""
    lines = []
    for text in path.read_bytes().split(b"\n") if path.exists() else []:
        try:
            line = dict(json.loads(text))
        except (ValueError, TypeError, RecursionError):
            break
        if not isinstance(line.get("step"), int):
            break
        lines.append(line)
    return lines


def every(path: Path) -> list[dict[str, Any]]:
    """All lines that are JSON objects, whatever stands between them; none where there is no such file. Raises OSError
    for one that may not be read."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    lines = []
    for text in content.split(b"\n"):
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            continue
        if isinstance(line, dict):
            lines.append(line)
    return lines


def number(value: Any) -> float | None:
    """Of JSON; may be infinite or not a number."""
    return float(value) if isinstance(value, float) or (type(value) is int and abs(value) < 2**53) else None


def whole_number(value: Any) -> int | None:
    """From 0, exact as a float64."""
    return value if type(value) is int and 0 <= value < 2**53 else None


def pace(log: list[dict[str, Any]]) -> float | None:
    """Seconds a step, of the last ten lines; their `step` must be a `whole_number` here and below."""
    timed = [(0, 0.0)] + [(line["step"], s) for line in log if (s := number(line.get("seconds"))) is not None]
    (first, begun), (last, ended) = timed[-min(10, len(timed))], timed[-1]
    return (ended - begun) / (last - first) if last > first and 0 < ended - begun < math.inf else None


def interval(log: list[dict[str, Any]]) -> float:
    """Seconds between the last two lines, at that pace; 0 where it is not known."""
    per_step = pace(log)
    return per_step * max(0, log[-1]["step"] - (log[-2]["step"] if len(log) > 1 else 0)) if per_step else 0.0


def skipped(log: list[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """Group -> updates that were left out, and the step of the last line that tells of any (0: none does). A line's
    skipped_GROUP is their number since the line before."""
    told: dict[str, dict[str, int]] = {}
    for line in log:
        for name in line:
            if name.startswith("skipped_") and (count := whole_number(line[name])) is not None:
                group = told.setdefault(name.removeprefix("skipped_"), {"updates": 0, "last_step": 0})
                group["updates"] += count
                group["last_step"] = line["step"] if count else group["last_step"]
    return told


def evaluations(read: list[dict[str, Any]]) -> dict[str, Any]:
    """The numbers of the last one (None without any), and of every measure that is known to be `better` when smaller or
    larger the best, with its step."""
    kept = [e for e in read if whole_number(e.get("step")) is not None]
    best: dict[str, dict[str, Any]] = {}
    for evaluation in kept:
        for name in evaluation:
            value, sign = number(evaluation[name]), better(name)
            if value is None or not sign or not math.isfinite(value):
                continue
            if name not in best or sign * value > sign * best[name]["value"]:
                best[name] = {"value": value, "step": evaluation["step"]}
    numbers = {name: value for name, value in kept[-1].items() if number(value) is not None} if kept else None
    return {"last": numbers, "best": best}


def better(name: str) -> int:
    """1: the larger, -1: the smaller, 0: not known."""
    if any(part in name.lower() for part in LARGER):
        return 1
    return -1 if any(part in name.lower() for part in SMALLER) else 0


def append(path: Path, line: Mapping[str, Any]) -> None:
    """One more line, in one write. Raises `WriteError`."""
    with explained(path), path.open("a") as file:
        file.write(json.dumps(line) + "\n")


def cut(path: Path, step: int) -> list[dict[str, Any]]:
    """Drops the lines after `step`, where a run goes on that will write them again, and gives those that stay. A file
    that is not there is not made. Raises `WriteError`."""
    kept = [line for line in read(path) if line["step"] <= step]
    if path.exists():
        with replacing(path) as temporary:
            temporary.write_text("".join(json.dumps(line) + "\n" for line in kept))
    return kept
