"""results.json: what an evaluation measured, of what, against what, and with which settings; enough to do it again."""

import json
import platform
import shlex
import sys
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import torch

from gear.store.whole import replacing

NAME, FORMAT = "results.json", 1
VERSIONS = (
    *("gear", "torch", "torchvision", "numpy", "scipy", "pillow"),
    *("torch-fidelity", "timm", "transformers", "lpips"),
)

Protocol = Literal["adm", "reconstruction", "gpic", "coco", "geneval", "dpg", "sweep", "probe"]


class ResultsError(ValueError):
    """A file that holds no results: which, what is wrong, what to do."""


@dataclass(frozen=True)
class Metric:
    """
    value: finite. interval: 95 %, where it was estimated. n: images behind it. note: how it was made, if that varies.
    """

    value: float
    n: int
    interval: tuple[float, float] | None = None
    note: str = ""


@dataclass(frozen=True)
class Model:
    """What drew or rebuilt the images. `recipe`, `stage`, `steps` and `params` where they are known."""

    name: str
    recipe: str | None = None
    stage: str | None = None
    steps: int | None = None
    params: int | None = None


@dataclass(frozen=True)
class Results:
    """
    metrics: by their names, such as gfid. source, reference: of the images, as `ImageSource.about` tells.
    settings: all that may change a number. weights: of the detectors, file or name to SHA-256. warnings: sentences.
    seconds: it took. more: what only this protocol has, such as "points" of a sweep.
    """

    protocol: Protocol
    metrics: dict[str, Metric]
    source: dict[str, Any]
    reference: dict[str, Any]
    settings: dict[str, Any]
    weights: dict[str, str]
    warnings: list[str]
    seconds: float
    model: Model | None = None
    more: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """With the versions, the hardware, the time and the command of this process."""
        found = asdict(self)
        more = found.pop("more")
        return {
            "format": FORMAT,
            **found,
            "seconds": round(self.seconds, 3),
            "versions": versions(),
            "command": command(),
            "hardware": hardware(),
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            **more,
        }


def require_seed(seed: int) -> None:
    """Before anything is drawn. Raises ValueError."""
    if not 0 <= seed < 2**63:
        raise ValueError(f"seed must be from 0 to 2^63 - 1; it is {seed}.")


def write(folder: Path, results: Results, name: str = NAME) -> Path:
    """Writes FOLDER/results.json, whole or not at all, and returns it. Raises ValueError for numbers that are not
    finite, and `WriteError`."""
    with replacing(folder / name) as temporary:
        temporary.write_text(json.dumps(results.as_json(), indent=2, allow_nan=False) + "\n")
    return folder / name


def report(folder: Path, results: Results) -> Path:
    """`write`, and the same on the terminal."""
    path = write(folder, results)
    print(table(results.metrics))
    print(*(f"warning: {line}" for line in results.warnings), f"written: {path}", sep="\n")
    return path


def read(path: Path) -> dict[str, Any]:
    """The contents of a results.json, given the file or its folder. Raises `ResultsError`."""
    file = path / NAME if path.is_dir() else path
    try:
        found = json.loads(file.read_text())
    except FileNotFoundError:
        raise ResultsError(f"there is no {file}: `gear evaluate` writes it.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ResultsError(f"{file} cannot be read as results ({error}): give the evaluation again.") from error
    came = found.get("format") if isinstance(found, dict) else None
    if came != FORMAT:
        raise ResultsError(f'{file} must be results of format {FORMAT}, under "format"; it says {came!r:.40}.')
    metrics = found.get("metrics")
    if not isinstance(metrics, dict) or not all(isinstance(m, dict) and "value" in m for m in metrics.values()):
        raise ResultsError(f'{file} must name its numbers under "metrics", each with a "value"; it does not.')
    return found


def table(metrics: dict[str, Metric]) -> str:
    """A line for each: its name, value, interval and note."""
    lines = []
    for name, metric in metrics.items():
        span = "" if metric.interval is None else f"  [{metric.interval[0]:.4g}, {metric.interval[1]:.4g}]"
        lines.append(f"{name:<16} {metric.value:>10.4f}{span}  n = {metric.n:,}{'; ' * bool(metric.note)}{metric.note}")
    return "\n".join(lines)


def versions() -> dict[str, str]:
    """Of Python and of the packages that numbers depend on, as far as they are installed."""
    found = {"python": platform.python_version()}
    for name in VERSIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def hardware() -> str:
    """The GPU, or the processor with its threads."""
    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
    return f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"


def command() -> str:
    """As it was typed, after `python -m` or the name of the program."""
    program = Path(sys.argv[0]).name
    return shlex.join(["gear" if program in ("gear", "__main__.py") else program, *sys.argv[1:]])
