"""What was measured, as results.json tells it, and where its results go."""

import hashlib
import re
from pathlib import Path

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
    path = checkpoint.path
    if not checkpoint.step:
        return Path(EVALUATIONS) / called(path)
    run = path if path.is_dir() else path.parent
    return (run.parent if run.name == state.OLDER else run) / EVALUATIONS


def slug(*parts: str) -> str:
    """As the name of a folder: evaluations with other settings do not replace each other."""
    return "-".join(re.sub(r"[^\w.]+", "-", part).strip("-") for part in parts if part)
