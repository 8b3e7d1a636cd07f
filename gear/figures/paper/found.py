"""What the files of a run say, for figures and tables: its log, evaluations while it trained, results and probes.

JSON alone is read, with the standard library. Files are those of `gear.train.log`, `gear.watching` and
`gear.evaluate.results`; a field that is missing or of another kind is as one that was not measured.
"""

import json
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gear.train import lines

LOG, WATCHED, RESULTS, PROBE, CONFIG = "log.jsonl", "evaluations.jsonl", "results.json", "probe.json", "config.json"
MOST = 64 << 20  # bytes of a results file; larger ones are something else
HOW = {  # what makes each kind of file, for messages
    "log": "`gear train RECIPE --out {run}` writes one",
    "watched": "`gear train` writes them with --watch.evaluate-every 1000",
    "adm": "`gear evaluate adm {run} --reference REFERENCE` makes one",
    "probe": "`gear probe {run} --data IMAGES` makes one",
    "sweep": "`gear evaluate sweep {run} --reference REFERENCE` makes one",
}


class NothingToDraw(ValueError):
    """Runs that lack what a figure shows: what, in which of them, and the command that makes it."""


@dataclass(frozen=True)
class Result:
    """One results.json, or one point of a sweep.

    metrics: name -> value, finite ones alone. n: images behind the first of them. cfg_scale: 1 where none is said.
    steps, params, recipe, stage, name: of the model; None where it is not known, as for a folder of images.
    whole: the file, as it is.
    """

    path: Path
    protocol: str
    metrics: Mapping[str, float]
    n: int | None
    cfg_scale: float
    steps: int | None
    params: int | None
    recipe: str | None
    stage: str | None
    name: str | None
    whole: Mapping[str, Any] = field(repr=False)

    def setting(self, *names: str) -> Any:
        """The first of the names that the settings, the source or the reference have; None where none has."""
        parts = [_mapping(self.whole.get(part)) for part in ("settings", "source", "reference")]
        return next((part[name] for part in parts for name in names if part.get(name) is not None), None)


@dataclass(frozen=True)
class Run:
    """A folder, or one file. name: in legends. results: of its folder and all below, points of sweeps included."""

    path: Path
    name: str
    config: Mapping[str, Any]
    log: Sequence[Mapping[str, Any]]
    watched: Sequence[Mapping[str, Any]]
    results: tuple[Result, ...]

    @property
    def stage(self) -> str | None:
        """ "gear", "frozen", "naive" or "warmup"; None where nothing says."""
        kind = _mapping(self.config.get("stage")).get("kind")
        said = kind or next((result.stage for result in self.results if result.stage), None)
        return said.lower() if isinstance(said, str) else None

    @property
    def aligned(self) -> bool:
        """Whether its generator is aligned to a target, as far as is known."""
        return _mapping(self.config.get("stage")).get("lam") != 0

    @property
    def tap(self) -> int | None:
        """The block that is aligned: of the configuration, else of a probe's settings."""
        generator = _mapping(self.config.get("generator"))
        if type(tap := generator.get("tap")) is int:
            return tap
        if type(layers := generator.get("layers")) is int:
            return max(1, layers // 3)
        taps = (result.setting("tap", "aligned_block") for result in self.of("probe"))
        return next((tap for tap in taps if type(tap) is int), None)

    def of(self, protocol: str) -> list[Result]:
        """The results of a protocol, by step, those without one first."""
        kept = [result for result in self.results if result.protocol == protocol]
        return sorted(kept, key=lambda result: (result.steps or 0, str(result.path)))

    def lacks(self, kind: str, what: str) -> str:
        """A sentence on what it does not have, and what makes it."""
        return f"{self.name} has no {what}: {HOW[kind].format(run=shlex.quote(str(self.path)))}."

    def curve(self, *keys: str, watched: bool = False) -> list[tuple[float, float]]:
        """(step, value) of each log line that has a finite value under the first of the keys that any line has."""
        source = self.watched if watched else self.log
        for key in keys:
            points = [(finite(line.get("step")), finite(line.get(key))) for line in source]
            if found := [(x, y) for x, y in points if x is not None and y is not None]:
                return sorted(dict(found).items())  # of a step that is there twice, the later line
        return []


def opened(paths: Sequence[Path], labels: Sequence[str] = ()) -> list[Run]:
    """Reads the runs, in their order; a folder of runs stands for all in it. labels: names in legends, one each; by
    default the folders' own.

    Raises ValueError for a path that is not there or holds nothing, another number of labels, and a damaged file.
    """
    if not paths:
        raise ValueError("no run was given: name one or more run folders, such as runs/gear-l.")
    paths = [inner for path in paths for inner in runs_in(path)]
    if labels and len(labels) != len(paths):
        raise ValueError(f"--labels needs one name for each of {len(paths)} runs; there are {len(labels)}.")
    if len(set(labels)) < len(labels):
        raise ValueError(f"--labels needs names that differ; they are {', '.join(labels)}.")
    return [run(path, name) for path, name in zip(paths, labels or names(paths), strict=True)]


def runs_in(path: Path) -> list[Path]:
    """The path itself; of a folder that is no run, but has some in it, all in it that have something to show, in the
    order of their names."""
    own = (LOG, WATCHED, RESULTS, PROBE, CONFIG)
    if not path.is_dir() or any((path / name).is_file() for name in own):
        return [path]
    inner = [p for p in sorted(path.iterdir()) if p.is_dir()]
    if not any((p / name).is_file() for p in inner for name in (LOG, CONFIG)):
        return [path]
    return [p for p in inner if any(next(p.rglob(name), None) for name in own[:-1])] or [path]


def run(path: Path, name: str) -> Run:
    """One run; a results.json, probe.json or log.jsonl by itself is one, too."""
    if not path.exists():
        raise ValueError(f"{path} is not there: give the folder of a run, or a results.json.")
    folder = path if path.is_dir() else path.parent
    if path.is_file():
        files, logs = ([path] if path.suffix == ".json" else []), path.suffix == ".jsonl"
        config, log, watched = {}, lines.read(path) if logs and path.name != WATCHED else [], []
    else:
        files = sorted({*path.rglob(RESULTS), *path.rglob(PROBE)})
        log, watched = lines.read(folder / LOG), lines.read(folder / WATCHED)
        config = loaded(folder / CONFIG) if (folder / CONFIG).is_file() else {}
    found = Run(path, name, config, log, watched, tuple(r for file in files for r in results(file)))
    if not (found.log or found.watched or found.results):
        raise NothingToDraw(
            f"{path} holds no {LOG}, {WATCHED}, {RESULTS} or {PROBE}: give the folder of a run that has trained, or of "
            "an evaluation."
        )
    return found


def names(paths: Sequence[Path]) -> list[str]:
    """The folders' names, with as many of their parents' as tell them apart."""
    parts = [path.resolve().parts if path.is_dir() else path.resolve().parts[:-1] for path in paths]
    for depth in range(1, max(len(p) for p in parts) + 1):
        short = ["/".join(p[-depth:]) for p in parts]
        if len(set(short)) == len(short):
            return short
    return [str(path) for path in paths]


def results(file: Path) -> list[Result]:
    """Of one file: itself, where it has metrics or is a probe, then the points of a sweep."""
    whole = loaded(file)
    protocol, model = whole.get("protocol"), _mapping(whole.get("model"))
    if not isinstance(protocol, str):
        raise ValueError(f'{file} is no results file of gear: it has no "protocol".')
    settings = _mapping(whole.get("settings"))
    found = []
    for part in (whole, *(p for p in _list(whole.get("points")) if isinstance(p, Mapping))):
        metrics = {name: _mapping(entry) for name, entry in _mapping(part.get("metrics")).items()}
        values = {name: v for name, m in metrics.items() if (v := finite(m.get("value"))) is not None}
        scale = finite(part.get("cfg_scale", settings.get("cfg_scale")))
        counts = [m["n"] for m in metrics.values() if type(m.get("n")) is int]
        kind = "point" if part is not whole else protocol
        found.append(
            Result(
                file,
                kind,
                values,
                n=counts[0] if counts else lines.whole_number(settings.get("n")),
                cfg_scale=1.0 if scale is None else scale,
                steps=lines.whole_number(model.get("steps")),
                params=lines.whole_number(model.get("params")),
                recipe=_text(model.get("recipe")),
                stage=_text(model.get("stage")),
                name=_text(model.get("name")),
                whole=whole,
            )
        )
    return found


def loaded(file: Path) -> dict[str, Any]:
    """A JSON object. Raises ValueError, which names the file, for anything else."""
    if file.stat().st_size > MOST:
        raise ValueError(f"{file} has {file.stat().st_size:,} bytes, and is none of gear's.")
    try:
        whole = json.loads(file.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is damaged ({error}): make it again, or move it away.") from None
    if not isinstance(whole, dict):
        raise ValueError(f"{file} should hold a JSON object; it holds a {type(whole).__name__}.")
    return whole


def finite(value: Any) -> float | None:
    """A number of JSON that is one; else None."""
    kept = lines.number(value)
    return kept if kept is not None and math.isfinite(kept) else None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
