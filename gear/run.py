"""A run: a folder with its whole configuration, its log and its checkpoint."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from rich.console import Console
from torch import Tensor

from gear import build, codes, data, sources
from gear.config import NAMED, Config, ConfigError, grid
from gear.config_check import check
from gear.config_json import differences, plain, read, to_json
from gear.data import Images
from gear.data.crop import Cropping
from gear.data.folder import Listing, scan
from gear.data.images import Split
from gear.data.streaming import Stream, in_order
from gear.generator import Generator
from gear.sharing import no_larger_than
from gear.step import Batch, Encoded
from gear.store.whole import replacing
from gear.targets import Target
from gear.tokenizer.tokenizer import Tokenizer
from gear.train import state
from gear.train.batches import Batches, Features, Stored, Streamed
from gear.train.loop import fit

CONFIG, DATA = "config.json", "data.json"
SOME = 512  # images that a target's channels are standardised over
TUNABLE = (  # a run may go on with others: what was done stays the same, up to rounding
    *("device", "log_every", "save_every", "steps", "keep_last", "keep_every", "engine", "guards", "watch"),
)


@dataclass(frozen=True)
class Prepared:
    """Images and their target encoders, which several runs on the same data can share.

    train, held_out: prepared images, or the files that are decoded at each visit. features: of prepared images.
    """

    train: Images | Listing
    held_out: Images | Listing
    targets: tuple[Target, ...]
    features: Mapping[str, Features]


def prepare(config: Config, on: torch.device) -> Prepared:
    """Loads what may fail late: the targets' weights, which are quickly seen to be right or wrong, then images."""
    d, side = config.data, (grid(config), grid(config))
    if d.crop == "random":
        files = scan(Path(d.path), d.classes).split(d.holdout)
        targets = build.targets(config, lambda: _some(files.train, config), on)
        return Prepared(files.train, files.held_out, targets, {})

    @cache
    def images() -> Split[Images]:
        return data.load(d.path, d.resolution, interpolation=d.interpolation, classes=d.classes).split(d.holdout)

    def some() -> UInt8[Tensor, "M 3 H W"]:
        pixels = images().train.pixels
        return torch.from_numpy(np.ascontiguousarray(pixels[:: max(1, len(pixels) // SOME)]))

    targets, train = build.targets(config, some, on), images().train
    features = {t.name: Features(t, len(train), side, on, d.flip, config.precision) for t in targets}
    return Prepared(train, images().held_out, targets, features)


def _some(files: Listing, config: Config) -> UInt8[Tensor, "M 3 H W"]:
    """The middles of some images, for what is measured over the data."""
    d, rows = config.data, list(range(0, len(files), max(1, len(files) // SOME)))
    blocks = in_order(files.rows(rows), Cropping(d.resolution), 64, workers=d.workers)
    return torch.cat([block.pixels[block.labels >= 0, 0] for block in blocks])


@dataclass(frozen=True)
class Supply:
    """What a run trains on: its classes, the channels of its targets, the batch of each step, what to say about it."""

    classes: tuple[str, ...]
    dims: dict[str, int]
    batches: Callable[[int], Batch | Encoded]
    left_out: str
    record: dict[str, Any]


def supply(config: Config, prepared: Prepared | None, on: torch.device) -> Supply:
    """From images, or from codes with images for the targets that were not stored, or from codes alone."""
    if config.data.codes is None:
        p = prepared or prepare(config, on)
        return _from_images(config, p, _live(config, p, on))
    shards, c = codes.opened(config), config
    if not codes.features_stored(config, shards):
        p = prepared or prepare(config, on)
        codes.require_same_files(config, shards, p.train)
        return _from_images(config, p, Stored(shards, c.batch, c.seed, c.data.flip, (), _live(config, p, on), on))
    dims = {t.name: shards.shape.features[t.name] for t in build.chosen_targets(config)}
    record = {"classes": shards.about["classes"], "train": len(shards) - len(shards.broken)}
    batches = Stored(shards, c.batch, c.seed, c.data.flip, dims, None, on)
    return Supply(tuple(shards.about["classes"]), dims, batches, "", record)


def _from_images(config: Config, p: Prepared, batches: Callable[[int], Batch | Encoded]) -> Supply:
    dims, train = {t.name: t.channels for t in p.targets}, p.train
    sizes = {"train": len(train), "held_out": len(p.held_out), "skipped": train.skipped}
    return Supply(train.classes, dims, batches, train.report(), {"classes": train.classes, **sizes})


def _live(config: Config, p: Prepared, on: torch.device) -> Callable[[int], Batch]:
    d, side = config.data, (grid(config), grid(config))
    if isinstance(p.train, Images):
        return Batches(p.train, p.features, config.batch, config.seed, d.flip, on)
    size, pin = codes.cropping(config), on.type == "cuda"
    stream = Stream(p.train, size, config.batch, config.seed, flip=d.flip, workers=d.workers, pin=pin)
    return Streamed(stream, p.targets, side, on, config.precision)


def train(config: Config, run: Path, *, prepared: Prepared | None = None, console: Console | None = None) -> None:
    """Trains `config` in the folder `run`, or goes on with what is there.

    Refuses, before any long work: an impossible configuration, a folder that holds another run, too few images, a
    missing weight.
    """
    config = in_full(check(config))
    claim(config, run)
    on = build.device(config)
    started = (run / state.NAME).exists()  # with all weights: what it began with need not be there still
    build_from = _without_init(config) if started else config
    build.require(build_from)
    fed = supply(config, prepared, on)
    if config.generator.classes not in (None, len(fed.classes)):
        raise ConfigError(
            f"generator.classes is {config.generator.classes}, but {config.data.path} has {len(fed.classes)}."
        )
    training = build.training(build_from, len(fed.classes), fed.dims, on)
    console = console or Console()
    if fed.left_out:
        console.print(fed.left_out, style="yellow", highlight=False, markup=False)
    with replacing(run / CONFIG) as temporary:
        temporary.write_text(to_json(config) + "\n")
    if not started:
        record = fed.record | {"weights": build.weights_used(config)}
        with replacing(run / DATA) as temporary:
            temporary.write_text(json.dumps(record, indent=2) + "\n")
    title = run.resolve().name
    fit(config, run, training.groups, training.step, fed.batches, fed.classes, on, title, console)


def _without_init(config: Config) -> Config:
    tokenizer, generator = (dataclasses.replace(part, init=None) for part in (config.tokenizer, config.generator))
    return dataclasses.replace(config, tokenizer=tokenizer, generator=generator)


def in_full(config: Config) -> Config:
    """A folder by its whole path, so that the run can go on from elsewhere."""
    if config.data.path in NAMED:
        return config
    path = str(Path(config.data.path).expanduser().absolute())
    return dataclasses.replace(config, data=dataclasses.replace(config.data, path=path))


def claim(config: Config, run: Path) -> None:
    """Raises `ConfigError` if `run` is the folder of another configuration, naming each field that differs, or if it
    has made more steps than `config` asks for."""
    file, checkpoint = run / CONFIG, run / state.NAME
    if not checkpoint.exists():  # a start that failed has nothing to lose
        return
    there = read(file) if file.exists() else state.load(checkpoint, ()).config
    same = dataclasses.replace(there, **{name: getattr(config, name) for name in TUNABLE})
    if different := differences(same, config):
        raise ConfigError(
            f"{run} already holds a run with another configuration ({'; '.join(different)}). "
            "Choose another folder with --out, or delete this one"
            + (f", or go on with it as it was: gear train {file}" if file.exists() else ".")
        )
    if config.steps < there.steps and (done := state.load(checkpoint, ()).step) > config.steps:
        raise ConfigError(f"{run} has made {done} steps already; steps must be at least that. It is {config.steps}.")


@dataclass(frozen=True)
class Pair:
    """The averaged tokenizer and generator of a run, in eval mode, for sampling and reconstruction."""

    tokenizer: Tokenizer
    generator: Generator | None
    checkpoint: state.Checkpoint
    on: torch.device


def load(
    source: Path | str, device: str = "auto", *, tokenizer: Path | str | None = None, resolution: int | None = None
) -> Pair:
    """A run folder, a checkpoint, a model of `save_pretrained`, or a public file of LlamaGen, GEAR, Open-MAGVIT2, IBQ.

    `generator` is None where there is none, as after a warm-up. tokenizer: where to take it from, instead of `source`,
    which may hold a generator only. resolution: px, where `source` does not tell; 256 by default. Raises
    `CheckpointError`.
    """
    checkpoint = sources.read(str(source))
    if tokenizer is not None or not checkpoint.averaged("tokenizer"):
        checkpoint = _joined(checkpoint, tokenizer)
    config = dataclasses.replace(checkpoint.config, device=device)
    if resolution is not None:
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, resolution=resolution))
    on, checkpoint = build.device(check(config)), dataclasses.replace(checkpoint, config=config)
    net = tokenizer_of(checkpoint).to(on)
    generator = generator_of(checkpoint).to(on) if checkpoint.averaged("generator") else None
    return Pair(net, generator, checkpoint, on)


def tokenizer_of(checkpoint: state.Checkpoint) -> Tokenizer:
    """The averaged tokenizer, in eval mode."""
    weights = checkpoint.averaged("tokenizer")
    if not weights:
        raise state.CheckpointError(f"{checkpoint.path} has no tokenizer, but a generator only.")
    with no_larger_than(weights, plain(checkpoint.config.tokenizer), checkpoint.path):
        net = build.tokenizer(checkpoint.config)
    state.load_strictly(net, weights, f"the tokenizer of {checkpoint.path}")
    return net.eval().requires_grad_(False)


def generator_of(checkpoint: state.Checkpoint) -> Generator:
    """The averaged generator, in eval mode."""
    weights = checkpoint.averaged("generator")
    if not weights:
        raise state.CheckpointError(f"{checkpoint.path} has no generator; a run after a warm-up has one.")
    # The projectors serve only the alignment; their sizes are read off, so that no target need be at hand.
    ends = {k: t for k, t in weights.items() if k.startswith("projectors.") and k.endswith(".4.bias")}
    dims = {key.split(".")[1]: len(bias) for key, bias in ends.items()}
    with no_larger_than(weights, plain(checkpoint.config.generator), checkpoint.path):
        net = build.generator(checkpoint.config, len(checkpoint.classes), dims)
    state.load_strictly(net, weights, f"the generator of {checkpoint.path}")
    net.class_names = checkpoint.classes
    return net.eval().requires_grad_(False)


def _joined(generator: state.Checkpoint, tokenizer: Path | str | None) -> state.Checkpoint:
    """A generator with a tokenizer from elsewhere, whatever was beside it."""
    if tokenizer is None:
        raise state.CheckpointError(
            f"{generator.path} holds a generator and no tokenizer: say with --tokenizer which one draws its tokens "
            "(gear sample), or give a tokenizer instead."
        )
    other = sources.read(str(tokenizer), ("tokenizer", "tokenizer_ema"))
    config = dataclasses.replace(generator.config, tokenizer=other.config.tokenizer)
    tensors = {f"tokenizer.{name}": t for name, t in other.averaged("tokenizer").items()}
    kept = {name: t for name, t in generator.tensors.items() if not name.startswith(("tokenizer.", "tokenizer_ema."))}
    return dataclasses.replace(generator, config=config, tensors=kept | tensors)
