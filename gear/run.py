"""A run: a folder with its whole configuration, its log and its checkpoints."""

import dataclasses
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from rich.console import Console
from torch import Tensor

from gear import build, codes, data, provenance, ranks, sources, text
from gear.config import LABELS, NAMED, Config, ConfigError, Frozen, flips, grid
from gear.config_check import check
from gear.config_json import differences, plain, read, to_json
from gear.data import Images
from gear.data.crop import Cropping
from gear.data.images import Split
from gear.data.listing import Listing
from gear.data.streaming import Stream, in_order
from gear.generator import Generator
from gear.sharing import no_larger_than
from gear.step import Batch, Encoded, Step
from gear.store.whole import replacing
from gear.targets import Target
from gear.text import TextEncoder, TextError
from gear.tokenizer.tokenizer import Tokenizer
from gear.train import distributed, state, stopping, track
from gear.train.batches import Batches, Features, Stored, Streamed
from gear.train.lock import locked
from gear.train.loop import fit
from gear.train.reader import Reader
from gear.train.stopping import Interrupted
from gear.update import Trained
from gear.watching import Watcher

CONFIG = "config.json"
SOME = 512  # images that a target's channels are standardised over
TUNABLE = (  # a run may go on with others: what was done stays the same
    *("device", "log_every", "save_every", "steps", "keep_last", "keep_every", "engine", "guards", "watch"),
)


@dataclass(frozen=True)
class Prepared:
    """Images and their target encoders, which several runs on the same data can share.

    train, held_out: prepared images, or the files that are decoded at each visit. features: of prepared images. reader:
    of captions, where they are the condition.
    """

    train: Images | Listing
    held_out: Images | Listing
    targets: tuple[Target, ...]
    features: Mapping[str, Features]
    reader: Reader | None = None


def prepare(config: Config, on: torch.device) -> Prepared:
    """Loads what may fail late: the targets' weights, which are quickly seen to be right or wrong, then images."""
    d, side, captioned = config.data, (grid(config), grid(config)), build.captioned(config)
    if d.crop == "random" or not d.prepare:
        files = data.listed(d, captioned)
        targets, reader = build.targets(config, lambda: _some(files.train, config), on), build.reader(config, on, None)
        return Prepared(files.train, files.held_out, targets, {}, reader)

    @cache
    def images() -> Split[Images]:
        return data.loaded(d, captioned)

    def some() -> UInt8[Tensor, "M 3 H W"]:
        pixels = images().train.pixels
        return torch.from_numpy(np.ascontiguousarray(pixels[:: max(1, len(pixels) // SOME)]))

    targets, train, held_out = build.targets(config, some, on), images().train, images().held_out
    features = {t.name: Features(t, len(train), side, on, flips(config), config.precision) for t in targets}
    texts = {text for part in (train, held_out) for several in part.captions or () for text in several}
    return Prepared(train, held_out, targets, features, build.reader(config, on, len(texts)))


def _some(files: Listing, config: Config) -> UInt8[Tensor, "M 3 H W"]:
    """The middles of some images, for what is measured over the data."""
    d, rows = config.data, list(range(0, len(files), max(1, len(files) // SOME)))
    blocks = in_order(files.rows(rows), Cropping(d.resolution), 64, workers=d.workers)
    return torch.cat([block.pixels[block.labels >= 0, 0] for block in blocks])


@dataclass(frozen=True)
class Supply:
    """What a run trains on: its classes, the channels of its targets, this rank's share of the batch of each step,
    what to say about it."""

    classes: tuple[str, ...]
    dims: dict[str, int]
    batches: Callable[[int], Batch | Encoded]
    left_out: str
    record: dict[str, Any]
    images: Split[Images | Listing] | None  # where no codes take their place
    reader: Reader | None = None
    null: Float[Tensor, "1 C"] | None = None  # the unconditional input, where captions are the condition


def supply(config: Config, prepared: Prepared | None, on: torch.device) -> Supply:
    """From images, or from codes with images for the targets that were not stored, or from codes alone."""
    if config.data.codes is None:
        p = prepared or prepare(config, on)
        return _from_images(config, p, _live(config, p, on))
    shards, c, captioned = codes.opened(config), config, build.captioned(config)
    mixture = codes.mixture(config, shards)
    if not codes.features_stored(config, shards):
        p = prepared or prepare(config, on)
        codes.require_same_files(config, shards, p.train)
        live = _live(config, p, on)
        stored = Stored(shards, c.batch, c.seed, flips(c), (), live, on, captioned, mixture)
        fed = _from_images(config, p, stored)
        return dataclasses.replace(fed, record=provenance.of_codes(shards) | fed.record)
    dims = {t.name: shards.shape.features[t.name] for t in build.chosen_targets(config)}
    batches = Stored(shards, c.batch, c.seed, flips(c), dims, None, on, captioned, mixture)
    null = torch.tensor(shards.about["null"]) if captioned else None
    classes = () if captioned else tuple(shards.about["classes"])
    return Supply(classes, dims, batches, "", provenance.of_codes(shards), None, None, null)


def _from_images(config: Config, p: Prepared, batches: Callable[[int], Batch | Encoded]) -> Supply:
    dims, images = {t.name: t.channels for t in p.targets}, Split(p.train, p.held_out)
    record = provenance.of_images(images)
    if p.reader is not None and config.generator.text is not None:
        record["text_encoder"] = text.digests(config.generator.text)
    classes, null = (p.train.classes, None) if p.reader is None else ((), p.reader.null.cpu())
    return Supply(classes, dims, batches, p.train.report(), record, images, p.reader, null)


def _live(config: Config, p: Prepared, on: torch.device) -> Callable[[int], Batch]:
    d, side = config.data, (grid(config), grid(config))
    if isinstance(p.train, Images):
        return Batches(p.train, p.features, config.batch, config.seed, flips(config), on, p.reader)
    size, pin = codes.cropping(config), on.type == "cuda"
    stream = Stream(p.train, size, config.batch, config.seed, flip=flips(config), workers=d.workers, pin=pin)
    return Streamed(stream, p.targets, side, on, config.precision, p.reader)


def train(config: Config, run: Path, *, prepared: Prepared | None = None, console: Console | None = None) -> None:
    """Trains `config` in the folder `run`, or goes on with what is there; each of the processes that a launcher started
    calls it.

    Refuses, before any long work: an impossible configuration, a folder that holds another run or is being trained in,
    too few images, images that are not those it began with, a missing weight.
    """
    config = in_full(check(config))
    distributed.check_share(config)
    track.require(config.watch.trackers)
    on = distributed.own_device(build.device(config))
    with distributed.joined(on), locked(run) if ranks.rank() == 0 else nullcontext(), stopping.Stop() as stop:
        made: list[Ready] = []
        said = console or Console(quiet=ranks.rank() > 0)
        stop.leaving(lambda: made.append(_ready(config, run, prepared, on, said)))
        if stop.asked:
            raise Interrupted("stopped before the first step; the same command begins again", stop.code)
        (ready,) = made
        try:
            fit(config, run, stopping=stop, **vars(ready))
        finally:
            for group in ready.groups:  # before the ranks part
                group.alone()


@dataclass(frozen=True)
class Ready:
    """What `fit` takes besides the configuration and the folder."""

    groups: tuple[Trained, ...]
    step: Callable[[Any], Step]
    batches: Callable[[int], Batch | Encoded]
    classes: tuple[str, ...]
    on: torch.device
    title: str
    console: Console
    watch: Watcher | None


def _ready(config: Config, run: Path, prepared: Prepared | None, on: torch.device, console: Console) -> Ready:
    # With all weights: what it began with need not be there still.
    started = distributed.told(claim(config, run) if ranks.rank() == 0 else None)
    build_from = _without_init(config) if started else config
    with distributed.first_here():
        build.require(build_from)
        fed = supply(build_from, prepared, on)
    if config.generator.classes not in (None, len(fed.classes)):
        raise ConfigError(
            f"generator.classes is {config.generator.classes}, but {config.data.path} has {len(fed.classes)}."
        )
    if started:
        provenance.require_same(run, fed.record)
    build.set_tf32(config.engine.tf32, on)
    training = build.training(build_from, len(fed.classes), fed.dims, on, null=fed.null)
    watched = config.watch.sample_every or config.watch.evaluate_every
    watch = Watcher(config, fed.images, fed.classes, on, run, fed.reader) if watched else None
    if fed.left_out:
        console.print(fed.left_out, style="yellow", highlight=False, markup=False)
    if build.captioned(config) and flips(config):
        console.print(
            'Half of the images are flipped, and their captions are not: "left" is drawn on the right.', style="yellow"
        )
    if ranks.rank() == 0:
        with replacing(run / CONFIG) as temporary:
            temporary.write_text(to_json(config) + "\n")
        if not started:
            provenance.write(run, fed.record | {"weights": build.weights_used(config)})
        elif not isinstance(config.stage, Frozen):
            before = state.newest(run, ())
            if before and before.config.engine.accumulate != config.engine.accumulate:
                console.print(
                    f"engine.accumulate is {config.engine.accumulate}, and was {before.config.engine.accumulate}: the "
                    "tokenizer's batch statistics are of a part, so that what is learnt from here on differs a little.",
                    style="yellow",
                )
    title = run.resolve().name
    return Ready(training.groups, training.step, fed.batches, fed.classes, on, title, console, watch)


def _without_init(config: Config) -> Config:
    tokenizer, generator = (dataclasses.replace(part, init=None) for part in (config.tokenizer, config.generator))
    return dataclasses.replace(config, tokenizer=tokenizer, generator=generator)


def in_full(config: Config) -> Config:
    """Files and folders by their whole paths, so that the run can go on from elsewhere, and whether images are
    flipped. What it begins with may be named, too, and stays as it is: its weights are in the run."""

    def whole(path: str) -> str:
        return path if path in NAMED else str(Path(path).expanduser().absolute())

    parts = tuple(dataclasses.replace(part, path=whole(part.path)) for part in config.data.mixture)
    d = config.data
    more = {"codes": d.codes and whole(d.codes), "classes": d.classes if d.classes in LABELS else whole(d.classes)}
    d = dataclasses.replace(d, path=whole(d.path), mixture=parts, flip=flips(config), **more)
    own = tuple(dataclasses.replace(t, weights=t.weights and whole(t.weights)) for t in config.targets)
    return dataclasses.replace(config, data=d, targets=own)


def claim(config: Config, run: Path) -> bool:
    """Whether `run` has a checkpoint that `config` goes on from. Raises `ConfigError` if it is the folder of another
    configuration, naming each field that differs, or if it has made more steps than `config` asks for."""
    file, newest = run / CONFIG, state.newest(run, ())
    if newest is None:  # a start that failed has nothing to lose
        return False
    config, there = in_full(config), in_full(newest.config)  # not by the file, which may have been edited
    whole = file.exists() and _tuned(in_full(read(file)), there) == there
    if different := differences(_tuned(there, config), config):
        raise ConfigError(
            f"{run} already holds a run with another configuration ({'; '.join(different)}). "
            "Choose another folder with --out, or delete this one"
            + (f", or go on with it as it was: gear train {file}" if whole else ", or give what it began with.")
        )
    if (done := newest.step) > config.steps:
        raise ConfigError(f"{run} has made {done} steps already; steps must be at least that. It is {config.steps}.")
    return True


def _tuned(config: Config, other: Config) -> Config:
    """With what a run may go on with from the other one."""
    tuned = dataclasses.replace(config, **{name: getattr(other, name) for name in TUNABLE})
    return dataclasses.replace(tuned, data=dataclasses.replace(tuned.data, workers=other.data.workers))


@dataclass(frozen=True)
class Pair:
    """The averaged tokenizer and generator of a run, in eval mode, for sampling and reconstruction.

    trained_at: px along a side of the images that the generator was trained to draw; None where nothing tells, or they
    are no squares. resize: px that drawn images are brought to, see `gear.painting`; None: as they are.
    """

    tokenizer: Tokenizer
    generator: Generator | None
    checkpoint: state.Checkpoint
    on: torch.device
    trained_at: int | None = None
    resize: int | None = None

    @cached_property
    def text(self) -> TextEncoder | None:
        """What reads prompts for the generator, loaded when first asked for; None where it draws classes. Raises
        `gear.text.TextError`."""
        config = self.checkpoint.config
        if self.generator is None or config.generator.text is None:
            return None
        text.require(config.generator.text)
        encoder = text.load(config.generator.text, self.on, "float32")  # as all that is sampled
        require_same_encoder(encoder, self.generator, self.checkpoint.path)
        return encoder


def require_same_encoder(encoder: TextEncoder, generator: Generator, source: Path) -> None:
    """Raises `TextError` unless the encoder says of no text what that of training said, which the generator keeps; up
    to the rounding of bfloat16. Nothing tells where padding lies behind: then no text is nothing."""
    kept, now = generator.cls_embedding.null, encoder.null()
    if kept.shape != now.shape or (kept - now).norm() > 0.05 * kept.norm():
        raise TextError(
            f"{source} was trained with another text encoder than {encoder.name} is now (of no text it says something "
            f"else, in {now.shape[1]} channels): bring that one, or train on this one."
        )


def load(
    source: Path | str,
    device: str = "auto",
    *,
    tokenizer: Path | str | None = None,
    resolution: int | None = None,
    resize: int | None = None,
) -> Pair:
    """A run folder, a checkpoint, a model of `save_pretrained`, or a public file of LlamaGen, GEAR, Open-MAGVIT2, IBQ.

    `generator` is None where there is none, as after a warm-up. tokenizer: where to take it from, instead of `source`,
    which may hold a generator only. resolution: px; by default what `source` tells, or 256. A tokenizer takes any; a
    generator refuses to draw one that it was not trained at. resize: as of `Pair`. Raises `CheckpointError`, and
    ValueError for a resize below 1.
    """
    if resize is not None and resize < 1:
        raise ValueError(f"resize must be at least 1 px; it is {resize}.")
    checkpoint = sources.read(str(source))
    if tokenizer is not None or not checkpoint.averaged("tokenizer"):
        checkpoint = _joined(checkpoint, tokenizer)
    trained_at = _trained_at(checkpoint)
    if resolution is None and checkpoint.grid is not None:
        h, w = checkpoint.grid
        if h != w:
            raise state.CheckpointError(
                f"{checkpoint.path} draws {h} x {w} tokens, and only squares are drawn here: use it with "
                "Generator.from_pretrained, or give --resolution for a square, which it was not trained on."
            )
        resolution = trained_at
    if resolution is not None:
        checkpoint = sized(checkpoint, resolution)
    config = dataclasses.replace(checkpoint.config, device=device)
    on, checkpoint = build.device(check(config)), dataclasses.replace(checkpoint, config=config)
    net = tokenizer_of(checkpoint).to(on)
    generator = generator_of(checkpoint).to(on) if checkpoint.averaged("generator") else None
    return Pair(net, generator, checkpoint, on, trained_at, None if resize == config.data.resolution else resize)


def _trained_at(checkpoint: state.Checkpoint) -> int | None:
    if checkpoint.grid is None:
        return checkpoint.config.data.resolution if checkpoint.step else None
    h, w = checkpoint.grid
    return h * checkpoint.config.tokenizer.backbone.downsample if h == w else None


def sized(checkpoint: state.Checkpoint, resolution: int) -> state.Checkpoint:
    """For images of so many pixels along a side, whatever it says of itself. Raises `ConfigError`."""
    config = checkpoint.config
    config = check(dataclasses.replace(config, data=dataclasses.replace(config.data, resolution=resolution)))
    return dataclasses.replace(checkpoint, config=config, grid=None)


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
    null, config = weights.get("cls_embedding.null"), checkpoint.config
    with no_larger_than(weights, plain(config.generator), checkpoint.path):
        net = build.generator(config, len(checkpoint.classes), dims, null, checkpoint.grid)
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
    if not other.averaged("tokenizer"):
        alone = not generator.averaged("generator")
        swapped = f"; {generator.path} has no generator: swap the two" if alone else ""
        raise state.CheckpointError(
            f"{other.path}, given as --tokenizer, has no tokenizer, but a generator only{swapped}."
        )
    config = dataclasses.replace(generator.config, tokenizer=other.config.tokenizer)
    tensors = {f"tokenizer.{name}": t for name, t in other.averaged("tokenizer").items()}
    kept = {name: t for name, t in generator.tensors.items() if not name.startswith(("tokenizer.", "tokenizer_ema."))}
    return dataclasses.replace(generator, config=config, tensors=kept | tensors)
