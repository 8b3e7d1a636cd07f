"""Scales of guidance on GenEval and DPG-Bench: each benchmark drawn and judged at each scale (Table 19)."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from gear import build, ranks
from gear.commands.benchmarks import Benchmark, Dpg, DpgJudge, Geneval, GenevalJudge, drawn_and_judged
from gear.commands.drawing import changed_from, is_model, within
from gear.commands.evaluate_sweep import sweep
from gear.commands.prompted import Artist, opened
from gear.config import Config
from gear.evaluate import prompts, results
from gear.evaluate.results import Results
from gear.train import distributed

BY_SCALE = {"source": ("cfg_scale", "pixels_sha256", "path"), "settings": ("cfg_scale", "scales")}  # free in a sweep


@dataclass(frozen=True)
class Asked:
    """Which benchmarks, by their files: evaluation_metadata.jsonl; a longer prompt for each of its lines; DPG-Bench's
    folder of prompts, and dpg_bench.csv. And their judges. Raises ValueError for one that lacks another."""

    geneval: Path | None
    rewritten: Path | None
    dpg: Path | None
    questions: Path | None
    detector: str
    clip: str
    judge: str

    def __post_init__(self) -> None:
        if self.rewritten is not None and self.geneval is None:
            raise ValueError("--rewritten goes with --geneval, evaluation_metadata.jsonl, which says what to look for.")
        if (self.dpg is None) != (self.questions is None):
            raise ValueError("--dpg, the folder of prompts, and --questions, dpg_bench.csv, go together: give both.")

    def given(self) -> list[str]:
        """The options that name files."""
        return [f"--{name}" for name in ("geneval", "rewritten", "dpg", "questions") if getattr(self, name) is not None]

    def benchmarks(self, on: torch.device) -> list[Benchmark]:
        """GenEval short, long, and DPG-Bench, those that were asked for; judges on rank 0 alone. Raises what
        reading the files and opening the judges raises."""
        first, found = ranks.rank() == 0, list[Benchmark]()
        if self.geneval is not None:
            asked = prompts.geneval(self.geneval)
            longer = None if self.rewritten is None else prompts.geneval(self.geneval, self.rewritten)
            judge = GenevalJudge(self.detector, self.clip, on) if first else None
            found.append(Geneval(asked, "short", judge))
            found += [] if longer is None else [Geneval(longer, "long", judge)]
        if self.dpg is not None and self.questions is not None:
            texts = prompts.dpg(self.dpg)
            answering = DpgJudge(self.questions, self.judge, 4, 16, on) if first else None
            if answering is not None:
                answering.require(texts)
            found.append(Dpg(texts, answering))
        return found

    def changed(self, benchmark: Benchmark) -> dict[str, str]:
        """Its judges, where they are not the usual ones."""
        by = {"judge": self.judge} if isinstance(benchmark, Dpg) else {"detector": self.detector, "clip": self.clip}
        return changed_from(sweep, **by)


def sweep_prompts(
    artist: Artist, asked: Asked, on: torch.device, scales: Sequence[float], seed: int, out: Path | None
) -> list[Path]:
    """For each benchmark a folder with one of each scale in it, and results.json of all its points, written after each
    scale; by other judges than usual, in a folder beside those of the scales. Returns the folders, on every rank."""
    benchmarks = asked.benchmarks(on)
    for benchmark in benchmarks:
        artist.at(max(scales)).check(benchmark.texts())
    folders = []
    for benchmark in benchmarks:
        home = artist.folder(f"sweep-{benchmark.name}", but="cfg_scale") if out is None else out / benchmark.name
        folder = home if out is not None else within(home, **asked.changed(benchmark))
        points = []
        for scale in sorted(scales):
            if ranks.rank() == 0:
                print(f"{benchmark.name}, guidance {scale:g}:")
            drawn, into = (each / f"cfg-{scale:g}" for each in (home, folder))
            told = drawn_and_judged(benchmark, artist.at(scale), drawn, seed, into)
            if told is not None:
                results.report(into, told)
                points.append(point(told, scale))
                write_points(folder, told, points, scales)
        folders.append(folder)
    return folders


def sweep_texts(
    source: str, asked: Asked, scales: Sequence[float], seed: int, out: Path | None, device: str, **options: Any
) -> list[tuple[Path, str]]:
    """The folder of each benchmark and the model's name; none on ranks beside the first. options: of
    `prompted.opened`. Raises ValueError for a source that is no model."""
    results.require_seed(seed)
    if not is_model(source):
        raise ValueError(f"{source} is no model, whose guidance could be changed: give a run, checkpoint or generator.")
    on = distributed.own_device(build.device(Config(device=device)))
    with distributed.joined(on):
        artist = opened(source, asked.geneval or asked.dpg, seed=seed, device=str(on), **options)
        assert artist is not None
        folders = sweep_prompts(artist, asked, on, scales, seed, out)
        return [(folder, artist.model().name) for folder in folders] if ranks.rank() == 0 else []


def point(told: Results, scale: float) -> dict[str, Any]:
    return {"cfg_scale": scale, "metrics": {name: asdict(metric) for name, metric in told.metrics.items()}}


def write_points(folder: Path, last: Results, points: Sequence[dict[str, Any]], scales: Sequence[float]) -> None:
    """results.json of a sweep, of the points there are so far, and of those at other scales that one of the same
    settings has left there. last: of its latest."""
    settings = last.settings | {"protocol": last.protocol, "cfg_scale": None, "scales": sorted(scales)}
    whole = replace(last, protocol="sweep", metrics={}, settings=settings)
    measured = {each["cfg_scale"] for each in points}
    kept = [each for each in _left(folder, whole) if each["cfg_scale"] not in measured]
    settings |= {"scales": sorted({*scales, *(each["cfg_scale"] for each in kept)})}
    every = sorted([*kept, *points], key=lambda each: each["cfg_scale"])
    results.write(folder, replace(whole, settings=settings, more={"points": every}))


def _left(folder: Path, of: Results) -> list[dict[str, Any]]:
    """The points of the results.json there, where it is of the same weights, reference, detectors and settings."""
    try:
        before = json.loads((folder / results.NAME).read_text())
    except (OSError, ValueError):
        return []
    fits = isinstance(before, dict) and "points" in before and _fixed(before) == _fixed(of.as_json())
    return before["points"] if fits else []


def _fixed(whole: Mapping[str, Any]) -> dict[str, Any]:
    """What two sweeps must share for their points to make one curve."""
    parts = {name: whole.get(name) or {} for name in ("source", "reference", "settings", "weights")}
    kept = {name: {k: v for k, v in of.items() if k not in BY_SCALE.get(name, ())} for name, of in parts.items()}
    return json.loads(json.dumps(kept))
