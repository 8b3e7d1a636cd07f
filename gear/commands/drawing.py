"""A run's samples as images to measure, drawn when they are asked for: the same ones for a seed, whatever the batch."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor

from gear import weights
from gear.commands.models import EVALUATIONS, called, digest, folder, model, place, slug, weights_sha256
from gear.data.crop import Interpolation
from gear.evaluate import images
from gear.evaluate.images import SETS, ImageSource
from gear.evaluate.results import Model, require_seed
from gear.generator.lighter import Precision, lighter
from gear.generator.sampling import LANES, Options, class_labels, generate
from gear.inference import label_numbers, require_classes, usual_batch
from gear.painting import decode_tokens, unusual_size
from gear.run import CONFIG, Pair, load
from gear.sharing import MODEL
from gear.train import state

LONGEST = 80  # letters of classes in the name of a folder, of which all may have 255
WEIGHTS = {".safetensors", ".pt", ".pth", ".ckpt", ".bin"}


class Drawn:
    """n samples of a generator and its tokenizer, classes balanced in any leading part. On every rank alike.

    classes: names or numbers of those to draw, in turn; none: all. options: of `generate`, in place of the run's.
    batch: images in one pass, `usual_batch` of the device; another may round differently. precision: as of `lighter`.
    Raises ValueError for a pair without generator, and for options that are out of range.
    """

    def __init__(
        self,
        pair: Pair,
        n: int,
        seed: int = 0,
        *,
        classes: tuple[str, ...] = (),
        batch: int | None = None,
        precision: Precision = "float32",
        **options: Any,
    ):
        require_seed(seed)
        self.pair, self.seed = pair, seed
        self.precision: Precision = precision
        self.generator = lighter(require_classes(pair), precision)
        self.options = asdict(Options(**asdict(pair.checkpoint.config.sampling) | options))
        given = label_numbers(classes, pair.checkpoint.classes) or None
        self.labels = class_labels(n, self.generator.null_label, given, seed)
        self.block = batch or usual_batch(pair)
        side = pair.resize or pair.checkpoint.config.data.resolution
        self.resolution: tuple[int, int] = (side, side)
        self.classes = classes

    def __len__(self) -> int:
        return len(self.labels)

    def about(self) -> dict[str, Any]:
        """The weights by the SHA-256 of their numbers."""
        checkpoint = self.pair.checkpoint
        found = {"kind": "samples", "path": str(checkpoint.path), "step": checkpoint.step, "n": len(self)}
        found |= {"resolution": list(self.resolution), "interpolation": None, "crop": "none", "seed": self.seed}
        found |= {"classes": list(self.classes), "weights_sha256": self._weights, **self.options}
        interval = self.options["cfg_interval"]
        found["cfg_interval"] = None if interval is None else list(interval)
        return found | unusual(self.pair, self.block, self.precision)

    @cached_property
    def _weights(self) -> str:
        """Asked for several times, and gigabytes to read."""
        return weights_sha256(self.pair.checkpoint, "tokenizer", "generator")

    def batches(self, start: int, stop: int, size: int) -> Iterator[UInt8[Tensor, "b 3 H W"]]:
        """Images of one block are drawn together, whichever of them are asked for."""
        left: list[Tensor] = []
        for first in range(start - start % self.block, stop, self.block):
            drawn = self._drawn(range(first, min(first + self.block, len(self))))
            left.append(drawn[max(start - first, 0) : stop - first])
            while sum(map(len, left)) >= size:
                whole = torch.cat(left)
                left = [whole[size:]]
                yield whole[:size]
        if any(len(part) for part in left):
            yield torch.cat(left)

    def model(self, name: str | None = None) -> Model:
        """What drew them, for results.json."""
        checkpoint = self.pair.checkpoint
        return model(checkpoint, name or called(checkpoint.path), require_classes(self.pair))

    @torch.no_grad()
    def _drawn(self, ids: range) -> UInt8[Tensor, "b 3 H W"]:
        labels = self.labels[ids.start : ids.stop]
        q = generate(self.generator, labels, seed=self.seed, image_ids=ids, batch=self.block, **self.options)
        return decode_tokens(self.pair, q)

    def label(self, but: str = "") -> str:
        """What tells these samples from others of the run, for the name of a folder. but: an option to leave out."""
        more = {"classes": _listed(self.classes)} | unusual_precision(self.precision)
        return label(self.pair, self.options, self.seed, but, **more)


def unusual(pair: Pair, batch: int, precision: Precision) -> dict[str, Any]:
    """What samples depend on beside their options, for `about`: the batch, by rounding, unless it is that of every
    CPU; a precision other than float32; a size that they are brought to."""
    same = pair.on.type == "cpu" and batch == LANES
    return ({} if same else {"batch": batch}) | unusual_precision(precision) | unusual_size(pair)


def unusual_precision(precision: Precision) -> dict[str, str]:
    return {} if precision == "float32" else {"precision": precision}


def label(pair: Pair, options: Mapping[str, Any], seed: int, but: str = "", **more: str) -> str:
    """What tells samples from others of a run, for the name of a folder. but: an option to leave out. more: what else
    was asked for, "" for what was not."""
    usual = asdict(Options())
    changed = {k: v for k, v in options.items() if k == "cfg_scale" or v != usual[k]}
    found = {"step": pair.checkpoint.step or None, **changed, "seed": seed or None, **unusual_size(pair)}
    found |= {name: value or None for name, value in more.items()}
    names = {"cfg_scale": "cfg", "cfg_interval": "interval"}
    return slug(*(f"{names.get(k, k)}-{_short(v)}" for k, v in found.items() if v is not None and k != but))


def _listed(classes: Sequence[str]) -> str:
    """Their names, or how many there are and a digest, where these would be long for a folder's."""
    names = "-".join(classes)
    return names if len(names) <= LONGEST else f"{len(classes)}-{digest(classes)}"


def _short(value: Any) -> str:
    if isinstance(value, tuple):
        return "-".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def is_model(where: str) -> bool:
    """Whether `gear sample` would take it, rather than images."""
    path = Path(where).expanduser()
    if path.is_dir():
        return any((path / name).exists() for name in (CONFIG, MODEL, state.NAME, state.OLDER))
    return path.suffix.lower() in WEIGHTS or (not path.exists() and where in {w.name for w in weights.WEIGHTS})


def opened(
    where: str,
    n: int,
    *,
    device: str = "auto",
    tokenizer: str | None = None,
    resolution: int | None = None,
    resize: int | None = None,
    interpolation: Interpolation = "bicubic",
    seed: int = 0,
    of_texts: str | None = None,
    **options: Any,
) -> ImageSource:
    """n samples of the model called `where`, or at most n images at a place that `images.opened` knows.

    of_texts: what to do with a model that draws texts, for its refusal. options: of `generate`, given only for a model.
    Raises ValueError for a model that draws texts, and for options that images do not have.
    """
    if is_model(where) and where not in SETS:
        pair = load(where, device, tokenizer=tokenizer, resolution=resolution, resize=resize)
        require_classes(pair, of_texts)
        return Drawn(pair, n, seed, **options)
    if resize is not None:
        raise ValueError(f"{where} holds images, not a model: they are resized by --resolution, not by --resize.")
    if given := [name for name, value in {**options, "tokenizer": tokenizer}.items() if value is not None]:
        raise ValueError(f"{where} holds images, not a model: {', '.join(given)} cannot be given for it.")
    return images.opened(where, resolution, interpolation, what="samples")


def folder_of(source: ImageSource, where: str, protocol: str, *against: str, **changed: Any) -> Path:
    """Where an evaluation goes by default: into the run, or, for images and public files, to evaluations/ here. Its
    name says what it was measured against and which samples these are.
    """
    if isinstance(source, Drawn):
        return folder(source.pair.checkpoint) / named(protocol, against, source.label(), **changed)
    home = Path(EVALUATIONS) / where if where in SETS else place(Path(where))
    return home / named(protocol, against, **changed)


def within(drawn: Path, *against: str, **changed: Any) -> Path:
    """Where results go of images that lie in DRAWN/images: to `drawn`, or to a folder in it, where they are measured
    against something or otherwise than by default. So images are drawn once, however many ways they are measured."""
    return drawn / named("", against, **changed)


def named(protocol: str, against: Sequence[str], label: str = "", **changed: Any) -> str:
    """The name of that folder. It ends with a digest of what it does not spell out and the numbers depend on: in which
    folder `against` lies, and `changed`, as of `changed_from`."""
    places = [_whole(where) for where in against if _is_there(where)]
    unsaid = {name: _whole(value) if isinstance(value, str) else value for name, value in sorted(changed.items())}
    return slug(protocol, *map(stem, against), label, digest([places, unsaid]) if places or unsaid else "")


def changed_from(command: Callable[..., Any], **given: Any) -> dict[str, Any]:
    """Those of its arguments that are not as by default."""
    usual = signature(command).parameters
    return {name: value for name, value in given.items() if value != usual[name].default}


def _whole(where: str) -> str:
    """Of a path that is there, from the root; of a data set or another word, itself."""
    return str(Path(where).expanduser().resolve()) if _is_there(where) else where


def _is_there(where: str) -> bool:
    return Path(where).expanduser().exists()


def stem(where: str) -> str:
    """Images by the name of their folder or file, or of their data set."""
    return Path(_whole(where)).stem if _is_there(where) else where
