"""What the files of a run say, for figures and tables: its log, evaluations while it trained, results and probes.

JSON alone is read, with the standard library. Files are those of `gear.train.log`, `gear.watching` and
`gear.evaluate.results`; a field that is missing or of another kind is as one that was not measured.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gear.figures.paper.result import Result, finite, loaded, mapping, results
from gear.train import lines

LOG, WATCHED, RESULTS, PROBE, CONFIG = "log.jsonl", "evaluations.jsonl", "results.json", "probe.json", "config.json"
DATA = "data.json"
HOW = {  # what makes each kind of file, for messages
    "log": "`gear train {config}` writes one",
    "watched": "`gear train {config} --watch.evaluate-every 1000` writes them",
    "adm": "`gear evaluate adm {run} --reference REFERENCE` makes one",
    "reconstruction": "`gear evaluate reconstruction {run} --data IMAGES` makes one",
    "probe": "`gear probe {run} --data IMAGES` makes one",
    "usage": "`gear train {config}` writes it",
    "layers": "`gear probe {run} --data IMAGES` makes one",
    "sweep": "`gear evaluate sweep {run} --reference REFERENCE` makes one",
}
OF_A_TOKENIZER = ("probe", "usage", "reconstruction")  # the others are of a generator


class NothingToDraw(ValueError):
    """Runs that lack what a figure shows: what, in which of them, and the command that makes it."""


@dataclass(frozen=True)
class Run:
    """A folder, or one file. name: in captions. results: of its folder and all below, points of sweeps included.
    data: what data.json says of the images that it trains on."""

    path: Path
    name: str
    config: Mapping[str, Any]
    log: Sequence[Mapping[str, Any]]
    watched: Sequence[Mapping[str, Any]]
    results: tuple[Result, ...]
    data: Mapping[str, Any] = field(default_factory=dict)

    @property
    def stage(self) -> str | None:
        """ "gear", "frozen", "naive" or "warmup"; None where nothing says."""
        kind = mapping(self.config.get("stage")).get("kind")
        said = kind or next((result.stage for result in self.results if result.stage), None)
        return said.lower() if isinstance(said, str) else None

    @property
    def aligned(self) -> bool:
        """Whether its generator is aligned to a target, as far as is known."""
        return mapping(self.config.get("stage")).get("lam") != 0

    @property
    def guided(self) -> bool:
        """Whether it is on a frozen tokenizer that GEAR made, as the text-to-image runs of Table 2: by the
        configuration of the run that it is of, else by its name."""
        init = mapping(self.config.get("tokenizer")).get("init")
        if self.stage != "frozen" or not isinstance(init, str):
            return False
        try:
            stage = mapping(mapping(loaded(Path(init) / CONFIG)).get("stage")).get("kind")
        except (OSError, ValueError):
            stage = None
        return stage.lower() == "gear" if isinstance(stage, str) else "gear" in Path(init).name.lower()

    @property
    def tap(self) -> int | None:
        """The block that is aligned: of the configuration, else of a probe's settings."""
        generator = mapping(self.config.get("generator"))
        if type(tap := generator.get("tap")) is int:
            return tap
        if type(layers := generator.get("layers")) is int:
            return max(1, layers // 3)
        taps = (result.setting("tap", "aligned_block") for result in self.of("probe"))
        return next((tap for tap in taps if type(tap) is int), None)

    def of(self, *protocols: str) -> list[Result]:
        """The results of the protocols, by step, those without one first."""
        kept = [result for result in self.results if result.protocol in protocols]
        return sorted(kept, key=lambda result: (result.steps or 0, str(result.path)))

    @property
    def steps(self) -> int | None:
        """That it is to train; None where nothing says."""
        return lines.whole_number(self.config.get("steps"))

    @property
    def generated(self) -> list[Result]:
        """Results of the ADM protocol, points of sweeps included, by step."""
        return [r for r in self.of("adm", "point") if r.protocol == "adm" or "gfid" in r.metrics]

    def lacks(self, kind: str, what: str) -> str:
        """A sentence on what it does not have, and what makes it."""
        if self.stage == "warmup" and kind not in OF_A_TOKENIZER:
            return f"{self.name} is a warm-up: it trains no generator."
        config = shlex.quote(str(self.path / CONFIG)) if self.config else "RECIPE"
        return f"{self.name} has no {what}: {HOW[kind].format(run=shlex.quote(str(self.path)), config=config)}."

    def curve(self, *keys: str, watched: bool = False, **like: Any) -> list[tuple[float, float]]:
        """(step, value) of each log line that has a finite value under the first of the keys that any line has. like:
        what such a line has, too."""
        source = self.watched if watched else self.log
        source = [line for line in source if all(line.get(name) == value for name, value in like.items())]
        for key in keys:
            points = [(finite(line.get("step")), finite(line.get(key))) for line in source]
            if found := [(x, y) for x, y in points if x is not None and y is not None]:
                return sorted(dict(found).items())  # of a step that is there twice, the later line
        return []


def opened(paths: Sequence[Path], labels: Sequence[str] = ()) -> list[Run]:
    """Reads the runs, in their order; a folder of runs stands for all in it. labels: names in legends, one each; by
    default the folders' own. What is given twice is there once.

    Raises ValueError for a path that is not there or holds nothing, another number of labels, and a damaged file.
    """
    if not paths:
        raise ValueError("no run was given: name one or more run folders, such as runs/gear-l.")
    paths = list({inner.resolve(): inner for path in paths for inner in runs_in(path)}.values())
    if labels and len(labels) != len(paths):
        given = ", ".join(map(str, paths))
        raise ValueError(
            f"--labels needs one name for each of {len(paths)} runs; there are {len(labels)}. The runs are {given}."
        )
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
    data = loaded(folder / DATA) if path.is_dir() and (folder / DATA).is_file() else {}
    found = Run(path, name, config, log, watched, _once([r for file in files for r in results(file)]), data)
    if not (found.log or found.watched or found.results):
        raise NothingToDraw(
            f"{path} holds no {LOG}, {WATCHED}, {RESULTS} or {PROBE}: give the folder of a run that has trained, or of "
            "an evaluation."
        )
    return found


def _once(found: Sequence[Result]) -> tuple[Result, ...]:
    """Without the results.json that a sweep leaves of each of its points."""
    points = [(r.cfg_scale, r.n, dict(r.metrics)) for r in found if r.protocol == "point"]
    swept = ("adm", "geneval", "dpg")
    return tuple(r for r in found if r.protocol not in swept or (r.cfg_scale, r.n, dict(r.metrics)) not in points)


def names(paths: Sequence[Path]) -> list[str]:
    """The folders' names, with as many of their parents' as tell them apart."""
    parts = [path.resolve().parts if path.is_dir() else path.resolve().parts[:-1] for path in paths]
    for depth in range(1, max(len(p) for p in parts) + 1):
        short = ["/".join(p[-depth:]) for p in parts]
        if len(set(short)) == len(short):
            return short
    return [str(path) for path in paths]
