"""A run: a folder with its whole configuration, its log and its checkpoint."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from gear import build, data
from gear.config import Config, ConfigError, check, grid
from gear.config_json import differences, read, to_json
from gear.data import Images
from gear.generator import Generator
from gear.store.whole import replacing
from gear.tokenizer.tokenizer import Tokenizer
from gear.train import state
from gear.train.batches import Batches, Features
from gear.train.loop import fit

CONFIG, DATA = "config.json", "data.json"
TUNABLE = ("device", "log_every", "save_every", "steps")  # a run may go on with others: what was done stays the same


@dataclass(frozen=True)
class Prepared:
    """Images and their target features, which several runs on the same data can share."""

    train: Images
    held_out: Images
    features: Mapping[str, Features]


def prepare(config: Config, on: torch.device) -> Prepared:
    """Loads what may fail late: images, then the target's weights."""
    split = data.load(config.data.path, config.data.resolution).split(config.data.holdout)
    side, images = (grid(config), grid(config)), split.train
    some = torch.from_numpy(np.ascontiguousarray(images.pixels[:: max(1, len(images) // 512)]))
    features = {t.name: Features(t, len(images), side, on, config.data.flip) for t in build.targets(config, some, on)}
    return Prepared(images, split.held_out, features)


def train(config: Config, run: Path, *, prepared: Prepared | None = None, console: Console | None = None) -> None:
    """Trains `config` in the folder `run`, or goes on with what is there.

    Refuses, before any long work: an impossible configuration, a folder that holds another run, too few images, a
    missing weight.
    """
    config = in_full(check(config))
    claim(config, run)
    on = build.device(config)
    started = (run / state.NAME).exists()  # then it holds the tokenizer too, and tokenizer.init need not be there still
    if started:
        build_from = dataclasses.replace(config, tokenizer=dataclasses.replace(config.tokenizer, init=None))
    else:
        build_from = config
    build.require(build_from)
    p = prepared or prepare(config, on)
    classes = p.train.classes
    if config.generator.classes not in (None, len(classes)):
        raise ConfigError(
            f"generator.classes is {config.generator.classes}, but {config.data.path} has {len(classes)}."
        )
    dims = {name: f.target.channels for name, f in p.features.items()}
    training = build.training(build_from, len(classes), dims, on)
    console = console or Console()
    if left_out := p.train.report():
        console.print(left_out, style="yellow", highlight=False, markup=False)
    with replacing(run / CONFIG) as temporary:
        temporary.write_text(to_json(config) + "\n")
    if not started:
        about = {"classes": classes, "train": len(p.train), "held_out": len(p.held_out), "skipped": p.train.skipped}
        with replacing(run / DATA) as temporary:
            temporary.write_text(json.dumps(about, indent=2) + "\n")
    batches = Batches(p.train, p.features, config.batch, config.seed, config.data.flip, on)
    fit(config, run, training.groups, training.step, batches, classes, on, run.resolve().name, console)


def in_full(config: Config) -> Config:
    """A folder by its whole path, so that the run can go on from elsewhere."""
    if config.data.path in data.NAMED:
        return config
    path = str(Path(config.data.path).expanduser().absolute())
    return dataclasses.replace(config, data=dataclasses.replace(config.data, path=path))


def claim(config: Config, run: Path) -> None:
    """Raises `ConfigError` if `run` is the folder of another configuration, naming each field that differs, or if it
    has made more steps than `config` asks for."""
    file, checkpoint = run / CONFIG, run / state.NAME
    if not checkpoint.exists():  # a start that failed has nothing to lose
        return
    there = read(file) if file.exists() else state.load(checkpoint).config
    same = dataclasses.replace(there, **{name: getattr(config, name) for name in TUNABLE})
    if different := differences(same, config):
        raise ConfigError(
            f"{run} already holds a run with another configuration ({'; '.join(different)}). "
            "Choose another folder with --out, or delete this one"
            + (f", or go on with it as it was: gear train {file}" if file.exists() else ".")
        )
    if config.steps < there.steps and (done := state.load(checkpoint).step) > config.steps:
        raise ConfigError(f"{run} has made {done} steps already; steps must be at least that. It is {config.steps}.")


@dataclass(frozen=True)
class Pair:
    """The averaged tokenizer and generator of a run, in eval mode, for sampling and reconstruction."""

    tokenizer: Tokenizer
    generator: Generator | None
    checkpoint: state.Checkpoint
    on: torch.device


def load(run: Path, device: str = "auto") -> Pair:
    """`run` is a run folder or a checkpoint file. `generator` is None after a warm-up."""
    checkpoint = state.load(run)
    config = dataclasses.replace(checkpoint.config, device=device)
    on = build.device(config)
    tokenizer = build.tokenizer(config)
    state.load_strictly(tokenizer, checkpoint.averaged("tokenizer"), f"the tokenizer of {checkpoint.path}")
    generator = None
    if weights := checkpoint.averaged("generator"):
        # The projectors serve only the alignment; their sizes are read off, so that no target need be at hand.
        last = {
            k.split(".")[1]: t.shape[0]
            for k, t in weights.items()
            if k.startswith("projectors.") and k.endswith("4.bias")
        }
        generator = build.generator(config, len(checkpoint.classes), last)
        state.load_strictly(generator, weights, f"the generator of {checkpoint.path}")
        generator.to(on).eval().requires_grad_(False)
    return Pair(tokenizer.to(on).eval().requires_grad_(False), generator, checkpoint, on)
