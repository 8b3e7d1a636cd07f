"""Folders of runs with the files that training, evaluations and probes leave, their numbers made up."""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from gear.figures.paper.style import look

Written = Callable[..., Path]
Made = Callable[..., dict[str, Any]]


def header(protocol: str, recipe: str, **more: Any) -> dict[str, Any]:
    """What every results file has. more: over it; cfg_scale, n, interpolation go to the settings, the rest on top."""
    settings = {"seed": 0, "n": 50_000, "interpolation": "bicubic", "cfg_scale": 1.0}
    model = {"name": recipe, "recipe": recipe, "stage": "gear", "steps": 400_000, "params": 342_910_976}
    for name in list(more):
        place = settings if name in (*settings, "prompts") else model if name in model else None
        if place is not None:
            place[name] = more.pop(name)
    return {
        "format": 1, "protocol": protocol, "metrics": {}, "source": {"kind": "run"},
        "reference": {"kind": "npz", "path": "reference.npz"}, "settings": settings, "weights": {}, "versions": {},
        "warnings": [], "command": f"gear evaluate {protocol} runs/{recipe}", "hardware": "a machine",
        "date": "2026-01-01T00:00:00+00:00", "seconds": 1.5, "model": model,
    } | more  # fmt: skip


def metrics(n: int = 50_000, **values: float) -> dict[str, Any]:
    return {name: {"value": v, "interval": [v - 0.5, v + 0.5], "n": n, "note": ""} for name, v in values.items()}


def probe(recipe: str, layers: int = 12, scale: float = 1.0, **more: Any) -> dict[str, Any]:
    """Similarity at layer i is i / 100 for images and scale * i / 50 for patches."""
    similarity = [
        {"layer": i, "image": {"cka": i / 100, "cknna": i / 200}, "patch": {"cka": scale * i / 50, "cknna": i / 400}}
        for i in range(layers + 1)
    ]
    spatial = [
        {"layer": i, "moran": {"mean": 0.1 + i / 50, "sd": 0.05}, "fft_high": {"mean": 0.6 - i / 50, "sd": 0.02}}
        for i in range(layers + 1)
    ]
    levels = {"image": {"cka": 0.18, "cknna": 0.24}, "patch": {"cka": 0.10, "cknna": 0.08}}
    used = {"top1": 0.01, "top10": 0.05, "top100": 0.2, "top1000": 0.6, "entropy": 8.0, "effective_size": 2981.0}
    return header("probe", recipe, **more) | {
        "similarity": {"target": "dinov2-b", "k": 10, "tokenizer": {"pre": levels, "post": levels},
                       "generator": similarity},
        "spatial": {"target": {"moran": {"mean": 0.7, "sd": 0.1}, "fft_high": {"mean": 0.25, "sd": 0.1}},
                    "generator": spatial},
        "codebook": {"K": 16384, "natural": used | {"dead": 0.0}, "soft": {"tau": 0.1, **used}},
    }  # fmt: skip


def sweep(recipe: str) -> dict[str, Any]:
    scores = {1.0: (10.0, 90.0), 1.5: (4.0, 200.0), 2.0: (6.0, 300.0)}
    points = [{"cfg_scale": s, "metrics": metrics(gfid=g, inception_score=i)} for s, (g, i) in scores.items()]
    return header("sweep", recipe) | {"points": points}


@pytest.fixture
def head() -> Made:
    return header


@pytest.fixture
def scores() -> Made:
    return metrics


@pytest.fixture
def swept() -> Made:
    return sweep


@pytest.fixture
def write(tmp_path: Path) -> Written:
    """write("gear-l/adm", {...}) puts a results.json or, of a probe, a probe.json into a folder of runs."""

    def written(where: str, whole: Mapping[str, Any]) -> Path:
        folder = tmp_path / "runs" / where
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ("probe.json" if whole.get("protocol") == "probe" else "results.json")).write_text(json.dumps(whole))
        return folder

    return written


@pytest.fixture
def runs(tmp_path: Path, write: Written) -> Path:
    """Three runs: gear-l is at the baseline's end, 1,000 steps, after 250; warmup-vq has a codebook alone."""
    for name, stage, rate in (("gear-l", "Gear", 400.0), ("llamagen-repa-l", "Frozen", 100.0)):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        config = {"kind": "Config", "stage": {"kind": stage}, "generator": {"layers": 12, "tap": None}}
        (folder / "config.json").write_text(json.dumps(config))
        with (folder / "log.jsonl").open("w") as file:
            for step in range(10, 1001, 10):
                loss = math.exp(-step * rate / 1e5)
                line = {"step": step, "ntp": 5 + loss, "align_hard": -0.5 + loss / 2, "codebook_entropy": 8.5 + loss}
                file.write(json.dumps(line | {"effective_size": math.exp(8.5 + loss), "L_VQ": None}) + "\n")
        with (folder / "evaluations.jsonl").open("w") as file:
            for step in range(50, 1001, 50):
                gfid = 10 + 50 * math.exp(-step * rate / 1e5)
                file.write(
                    json.dumps({"step": step, "gfid": gfid, "rfid": 1.0, "network": "efficientnet_lite1"}) + "\n"
                )
        write(f"{name}/probe", probe(name, scale=2.0 if stage == "Gear" else 1.0, stage=stage.lower(), steps=1000))
        write(f"{name}/sweep", sweep(name))
    for method, better in (("gear", 0.8), ("llamagen-repa", 1.0)):
        for size, params, gfid in (("b", 111e6, 20.0), ("l", 343e6, 12.0)):
            for s, factor in ((1.0, 1.0), (1.5, 0.3)):
                scored = metrics(gfid=better * factor * gfid)
                found = header("adm", f"{method}-{size}", cfg_scale=s, params=int(params)) | {"metrics": scored}
                write(f"{method}-{size}/adm-{s}", found)
    warm = write("warmup-vq/probe", probe("warmup-vq", layers=-1, stage="warmup")).parent
    (warm / "config.json").write_text(json.dumps({"stage": {"kind": "Warmup"}}))
    return tmp_path / "runs"


@pytest.fixture
def drawn() -> Iterator[None]:
    """Inside the look of all figures."""
    with look():
        yield
