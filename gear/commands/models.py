"""What was measured, as results.json tells it, and where its results go."""

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gear.evaluate.results import Model
from gear.recipes import name_of
from gear.train import state

EVALUATIONS = "evaluations"


def model(checkpoint: state.Checkpoint, name: str, *nets: nn.Module) -> Model:
    """params: of `nets`. Stage, steps and recipe are known of runs of ours only."""
    params = sum(p.numel() for net in nets for p in net.parameters())
    if not checkpoint.step:
        return Model(name, params=params)
    stage = type(checkpoint.config.stage).__name__.lower()
    return Model(name, name_of(checkpoint.config), stage, checkpoint.step, params)


def weights_sha256(checkpoint: state.Checkpoint, *parts: str) -> str:
    """Of the numbers of the averaged parts ("tokenizer", "generator"), in whatever file they lie."""
    digest = hashlib.sha256()
    for part in parts:
        for name, t in sorted(checkpoint.averaged(part).items()):
            digest.update(f"{part}.{name} {t.dtype} {tuple(t.shape)}".encode())
            digest.update(t.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def called(path: Path) -> str:
    """A checkpoint by its run's folder, another file by its name."""
    return path.parent.name if path.name == state.NAME else path.stem or "samples"


def folder(checkpoint: state.Checkpoint) -> Path:
    """In the run, or, for public files, to evaluations/ here."""
    return run_of(checkpoint) / EVALUATIONS if checkpoint.step else place(checkpoint.path)


def place(path: Path) -> Path:
    """Where evaluations of what lies in no run of ours go: below evaluations/ here, by its name, and by a digest of
    where it lies: two runs' samples have one name."""
    path = path.expanduser()
    return Path(EVALUATIONS) / f"{called(Path(os.path.abspath(path)))}-{digest(str(path.resolve()))}"


def run_of(checkpoint: state.Checkpoint) -> Path:
    """The folder of the run that wrote it."""
    folder = checkpoint.path.parent
    return Path(os.path.normpath(folder / "..")) if is_older(checkpoint) else folder


def is_older(checkpoint: state.Checkpoint) -> bool:
    """Whether a run wrote it, and it lies where those before the newest are kept."""
    path = checkpoint.path
    return checkpoint.step > 0 and path.name != state.NAME and path.absolute().parent.name == state.OLDER


def digest(what: Any) -> str:
    """A few letters for the name of a folder, of what JSON can hold."""
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:8]


def slug(*parts: str) -> str:
    """As the name of a folder: evaluations with other settings do not replace each other."""
    return "-".join(re.sub(r"[^\w.]+", "-", part).strip("-") for part in parts if part)
