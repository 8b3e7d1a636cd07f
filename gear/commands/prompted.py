"""Images of prompts, drawn by a text-to-image model: the same ones for a seed, whatever the batch."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from jaxtyping import UInt8
from torch import Tensor

from gear import ranks, text
from gear.commands import models
from gear.commands.drawing import is_model, label, unusual, unusual_precision, usual_batch
from gear.evaluate import layouts, pictures
from gear.evaluate.captions import Caption, captions, rows
from gear.evaluate.images import Decoded
from gear.evaluate.prompts import dpg
from gear.evaluate.results import Model, require_seed
from gear.generator.lighter import Precision
from gear.generator.sampling import Options
from gear.inference import check_prompts, in_precision, paint, require_texts
from gear.run import Pair, load
from gear.text.wording import require_whole
from gear.train import distributed

IMAGES = "images"  # folder of what was drawn, in that of an evaluation


@dataclass(frozen=True, eq=False)
class Artist:
    """`artist(texts, numbers)` draws an image a text, as `gear.evaluate.layouts` asks for them.

    options: of `generate`, all of them. batch: images in one pass. digests: of the weights, by their parts. precision:
    as of `lighter`.
    """

    pair: Pair
    seed: int
    negative: str | None
    options: Mapping[str, Any]
    batch: int
    digests: Mapping[str, str]
    precision: Precision = "float32"

    @cached_property
    def drawing(self) -> Pair:
        """The pair in the precision that it draws in."""
        return in_precision(self.pair, self.precision)

    def __call__(self, texts: Sequence[str], numbers: Sequence[int]) -> UInt8[Tensor, "b 3 H W"]:
        options = {"negative": self.negative, "batch": self.batch, **self.options}
        return paint(self.drawing, texts, self.seed, image_ids=numbers, **options)

    def at(self, scale: float) -> "Artist":
        """With another scale of guidance, drawing with the same networks."""
        other = replace(self, options={**self.options, "cfg_scale": scale})
        vars(other)["drawing"] = self.drawing
        return other

    def check(self, texts: Sequence[str]) -> None:
        """Raises ValueError for one without words; says what is not read, and of a negative one that does nothing."""
        check_prompts(self.pair, texts, self.negative, Options(**self.options).guided)

    def about(self) -> dict[str, Any]:
        """What the images depend on beside the prompts."""
        interval = self.options["cfg_interval"]
        found = {"seed": self.seed, "negative": self.negative, **self.digests, **self.options}
        found["cfg_interval"] = None if interval is None else list(interval)
        return found | unusual(self.pair, self.batch, self.precision)

    def source(self) -> dict[str, Any]:
        """For results.json."""
        checkpoint = self.pair.checkpoint
        return {"kind": "samples", "path": str(checkpoint.path), "step": checkpoint.step, **self.about()}

    def folder(self, what: str, but: str = "") -> Path:
        """Where an evaluation of these images goes by default. but: an option that its name leaves out."""
        negative = hashlib.sha256(self.negative.encode()).hexdigest()[:8] if self.negative else ""
        told = label(self.pair, self.options, self.seed, but, negative=negative, **unusual_precision(self.precision))
        return models.folder(self.pair.checkpoint) / models.slug(what, told)

    def model(self) -> Model:
        checkpoint, (generator, _) = self.pair.checkpoint, require_texts(self.pair)
        return models.model(checkpoint, models.called(checkpoint.path), generator)

    def whose(self) -> dict[str, Any]:
        """For the note beside images."""
        return {"run": str(self.pair.checkpoint.path), "model": asdict(self.model())}


def artist(
    pair: Pair,
    seed: int = 0,
    negative: str | None = None,
    batch: int | None = None,
    precision: Precision = "float32",
    **options: Any,
) -> Artist:
    """options: of `generate`, in place of the run's. Raises ValueError for a pair that draws classes, and for options
    that are out of range."""
    require_seed(seed)
    require_texts(pair)
    said = pair.checkpoint.config.generator.text
    assert said is not None
    digests = {"weights_sha256": models.weights_sha256(pair.checkpoint, "tokenizer", "generator")}
    digests |= {"text_encoder": said.encoder, "text_encoder_sha256": text.digests(said)}
    whole = asdict(Options(**asdict(pair.checkpoint.config.sampling) | options))
    return Artist(pair, seed, negative or None, whole, batch or usual_batch(pair), digests, precision)


def opened(
    source: str,
    prompts: Path | None,
    *,
    seed: int,
    device: str,
    tokenizer: str | None = None,
    resolution: int | None = None,
    negative: str | None = None,
    wanted: str = "a file of them",
    **options: Any,
) -> Artist | None:
    """The model called `source`, which is to draw `prompts`; None where `source` is images.

    options: of `generate`, those that are not None. wanted: which prompts the command takes, for messages. Raises
    ValueError for a model without prompts, and for images with what only a model has.
    """
    given = {name: value for name, value in options.items() if value is not None}
    require_whole("--negative", [negative or ""])
    if is_model(source):
        if prompts is None:
            raise ValueError(f"{source} is a model: say what it should draw with --prompts, {wanted}.")
        pair = load(source, device, tokenizer=tokenizer, resolution=resolution)
        return artist(pair, seed, negative, **given)
    given |= {"prompts": prompts, "tokenizer": tokenizer, "negative": negative}
    given.pop("cfg_scale", None)  # which images were drawn with, for the tables
    if kept := [f"--{name.replace('_', '-')}" for name, value in given.items() if value is not None]:
        raise ValueError(f"{source} is no model, so that {', '.join(kept)} cannot be given for it.")
    return None


class Painted(Decoded):
    """An image a caption, in a flat folder that all ranks draw together when this is made; what is there is kept."""

    def __init__(self, artist: Artist, asked: Sequence[Caption], folder: Path):
        self.artist = artist
        artist.check([caption.text for caption in asked])
        layouts.write_flat(asked, artist, folder, about=artist.about(), whose=artist.whose(), batch=artist.batch)
        super().__init__(folder.absolute(), pictures.in_folder(folder.absolute()), None, "bicubic")

    def about(self) -> dict[str, Any]:
        whose = self.artist.whose()
        found = {name: value for name, value in super().about().items() if name not in whose}
        return found | self.artist.source() | {"images": str(self.path)}

    def model(self) -> Model:
        return self.artist.model()


def draw_only(artist: Artist, asked: Sequence[Caption], folder: Path) -> None:
    """Into FOLDER/images, by all ranks; says where."""
    painted = Painted(artist, asked, folder / IMAGES)
    if ranks.rank() == 0:
        print(painted.path)
    distributed.together()


def require_model(source: str, draw_only: bool) -> None:
    """Raises ValueError for images that are only to be drawn."""
    if draw_only and not is_model(source):
        raise ValueError(f"--draw-only is for a run; {source} is none.")


def require_alone(source: str, protocol: str, draw_only: bool) -> None:
    """Raises ValueError for a folder of images, which is judged alone, with what only drawing has."""
    require_model(source, draw_only)
    if not is_model(source) and distributed.launch().size > 1:
        raise ValueError(f"gear evaluate {protocol} judges in one process: start it without torchrun.")


def texts(path: Path) -> list[Caption]:
    """All prompts of a file of `rows` (GenEval's metadata is one), or of a folder as DPG-Bench's, each with its key.
    Raises `PromptError`."""
    return _of_folder(path) if path.is_dir() else rows(path, "prompts")


def named(path: Path) -> list[Caption]:
    """The same for images that are called by the keys: of several prompts with one key the first."""
    return _of_folder(path) if path.is_dir() else captions(path, "prompts")


def _of_folder(path: Path) -> list[Caption]:
    return [Caption(key, text) for key, text in dpg(path).items()]
