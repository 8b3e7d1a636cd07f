"""What a trained run can do: draw images of classes or of texts, and encode and decode given ones."""

import logging
import shlex
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from gear.commands import models
from gear.data import DataError
from gear.data.classes import class_names
from gear.data.crop import Interpolation
from gear.data.decode import Skip, any_size, decode
from gear.data.folder import scan
from gear.data.members import File
from gear.data.writing import png, save_grid, save_npz, save_pngs
from gear.evaluate import note
from gear.evaluate.layouts import settle
from gear.evaluate.reconstruction import psnr
from gear.generator import Generator
from gear.generator.lighter import Precision, lighter
from gear.generator.sampling import LANES, Finished, Options, class_labels, generate
from gear.painting import Painting, decode_tokens, unusual_size
from gear.progress import bars
from gear.run import Pair
from gear.text import TextEncoder
from gear.text.wording import check
from gear.train.batches import to_float, to_uint8
from gear.train.state import NAME

AT_ONCE = 128  # images encoded, rebuilt or drawn in one go

log = logging.getLogger("gear")


def draw(pair: Pair, labels: Int[Tensor, "n"], seed: int, **options: Any) -> UInt8[Tensor, "n 3 H W"]:
    """Images of the labels: tokens from the generator, pixels from the tokenizer. `options` are `generate`'s."""
    painting = Painting(pair, len(labels))
    _draw(pair, labels, seed, painting, **options)
    return painting.images()


def draw_pngs(pair: Pair, labels: Int[Tensor, "n"], seed: int, folder: Path, **options: Any) -> None:
    """The same images as FOLDER/000000.png and so on, each as soon as its pass is over; those that are there stay."""
    missing = [i for i in range(len(labels)) if not png(folder, i).is_file()]

    def save(indices: list[int], tokens: Int[Tensor, "b N"]) -> None:
        save_pngs(decode_tokens(pair, tokens), folder, [missing[i] for i in indices])

    if missing:
        _draw(pair, labels[missing], seed, save, image_ids=missing, **options)


def _draw(pair: Pair, labels: Int[Tensor, "n"], seed: int, finished: Finished, **options: Any) -> None:
    generator = require_classes(pair)
    with bars() as progress:
        bar = progress.add_task("sampling", total=None, note="")

        def step(done: int, total: int) -> None:
            progress.update(bar, completed=done, total=total)

        generate(generator, labels, seed=seed, progress=step, finished=finished, **options)


def usual_batch(pair: Pair) -> int:
    """Images in one pass, where nothing else was asked for."""
    return LANES if pair.on.type == "cpu" else 128


def in_precision(pair: Pair, precision: Precision) -> Pair:
    """With a generator that draws in it, and the same text encoder: `gear.generator.lighter`. Raises ValueError where
    there is none."""
    if precision == "float32":
        return pair
    light = replace(pair, generator=lighter(require_generator(pair), precision))
    vars(light)["text"] = pair.text  # which is gigabytes, and would be read once more
    return light


def require_generator(pair: Pair) -> Generator:
    """Raises ValueError where there is none, and where it would draw a size that it was not trained at: a grid of other
    tokens, which it takes without a word."""
    side = pair.checkpoint.config.data.resolution
    if pair.generator is not None and pair.trained_at not in (None, side):
        raise ValueError(
            f"{called(pair)} was trained at {pair.trained_at} px and draws no other size: leave out --resolution "
            f"{side}; to resize what it draws, `gear sample` and `gear evaluate adm` take --resize {side}."
        )
    if pair.generator is None and pair.checkpoint.step:
        raise ValueError(f"{pair.checkpoint.path} has no generator (a warm-up trains none); sample a run that has one.")
    if pair.generator is None:  # of a public file or a saved model
        raise ValueError(
            f"{pair.checkpoint.path} holds a tokenizer and no generator: sample a generator's file or folder, and give "
            "this one as its --tokenizer."
        )
    return pair.generator


def draw_prompts(
    pair: Pair,
    texts: Sequence[str],
    seed: int,
    *,
    image_ids: Sequence[int] | None = None,
    negative: str | None = None,
    **options: Any,
) -> UInt8[Tensor, "n 3 H W"]:
    """An image of each text, of which several may be equal; image i depends on (seed, image_ids[i]), its text, the
    negative one and the options alone, and not on the others.

    image_ids: None: 0 .. n-1. negative: what guidance leads away from; without words, nothing. options: `generate`'s.
    Says once what of the texts the encoder does not read. Raises ValueError for a pair that draws classes and for a
    text without words.
    """
    guided = Options(options.get("cfg_scale", 1.0), options.get("cfg_interval")).guided
    check_prompts(pair, list(dict.fromkeys(texts)), negative, guided)
    with bars() as progress:
        bar = progress.add_task("sampling", total=None, note="")

        def step(done: int, total: int) -> None:
            progress.update(bar, completed=done, total=total)

        return paint(pair, texts, seed, image_ids=image_ids, negative=negative, progress=step, **options)


def paint(
    pair: Pair,
    texts: Sequence[str],
    seed: int,
    *,
    image_ids: Sequence[int] | None = None,
    negative: str | None = None,
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> UInt8[Tensor, "n 3 H W"]:
    """`draw_prompts` of texts that were checked, without a word."""
    generator, encoder = require_texts(pair)
    ids = range(len(texts)) if image_ids is None else image_ids
    nothing = encoder([negative]) if negative else None
    batch = options.get("batch", LANES)
    block = max(1, AT_ONCE // batch) * batch  # whole passes
    if len(set(texts)) <= AT_ONCE:  # each is read once
        block = max(1, len(texts))
    starts, images = range(0, len(texts), block), []
    for number, start in enumerate(starts):
        some = texts[start : start + block]
        rows = {text: row for row, text in enumerate(dict.fromkeys(some))}

        def step(done: int, total: int, number: int = number) -> None:
            if progress is not None:
                progress(number * total + done, len(starts) * total)

        options |= {"prompts": encoder(list(rows)), "negative": nothing, "progress": step}
        labels = torch.tensor([rows[text] for text in some])
        painting = Painting(pair, len(some))
        numbers = ids[start : start + block]
        generate(generator, labels, seed=seed, image_ids=numbers, finished=painting, **options)
        images.append(painting.images())
    return torch.cat(images)


def check_prompts(pair: Pair, texts: Sequence[str], negative: str | None = None, guided: bool = True) -> None:
    """Before the long work: `gear.text.wording.check`. Raises ValueError also for a pair that draws classes."""
    check(require_texts(pair)[1], texts, negative, guided)


def draws_texts(pair: Pair) -> bool:
    """Whether what its generator draws is said by texts. Raises ValueError where there is none."""
    require_generator(pair)
    return pair.checkpoint.config.generator.text is not None


def require_texts(pair: Pair) -> tuple[Generator, TextEncoder]:
    """Raises ValueError where the generator draws classes, or there is none."""
    if not draws_texts(pair):
        first = class_names(pair.checkpoint.classes)[:1]
        raise ValueError(
            f"{called(pair)} draws classes, not texts: `gear sample {called(pair)} --classes {shlex.join(first)}`."
        )
    generator, encoder = require_generator(pair), pair.text
    assert encoder is not None
    return generator, encoder


def require_classes(pair: Pair, instead: str | None = None) -> Generator:
    """Raises ValueError where the generator draws texts, or there is none. instead: what to do then, by default what
    `gear sample` takes."""
    if draws_texts(pair):
        sample = f'give --prompts FILE, or as in `gear sample {called(pair)} --prompt "a red apple"`'
        raise ValueError(f"{called(pair)} draws what a text says, and no classes: {instead or sample}.")
    return require_generator(pair)


def called(pair: Pair) -> str:
    """As one types it: a run by its folder."""
    path = pair.checkpoint.path
    return shlex.quote(str(path.parent if path.name == NAME else path))


def rebuild(pair: Pair, pixels: UInt8[Tensor, "n 3 H W"]) -> UInt8[Tensor, "n 3 H W"]:
    """Encoded and decoded."""
    parts = (to_float(part.to(pair.on)) for part in pixels.split(AT_ONCE))
    return torch.cat([to_uint8(pair.tokenizer.decode(pair.tokenizer.encode(x))).cpu() for x in parts])


def label_numbers(given: Sequence[str], classes: Sequence[str]) -> list[int]:
    """Class numbers of names or numbers; for ImageNet's folders (n01440764), also of what they are called (tench).

    A name that does not exist is a ValueError with those that do.
    """
    known = {name.lower(): i for i, name in enumerate(class_names(classes))}
    known |= {name.lower(): i for i, name in enumerate(classes)}
    numbers = []
    for name in given:
        number = known.get(name.lower(), int(name) if name.isdecimal() else None)
        if number is None or not 0 <= number < len(classes):
            few = class_names(classes[:20])
            shown = ", ".join(f"{i} {c!r}" for i, c in enumerate(few)) + (" ..." if len(classes) > 20 else "")
            raise ValueError(f"there is no class {name!r}; the run has {shown}.")
        numbers.append(number)
    return numbers


def sample(
    pair: Pair,
    n: int,
    classes: Sequence[str],
    seed: int,
    save: Literal["grid", "png", "npz"],
    out: Path | None,
    *,
    precision: Precision = "float32",
    batch: int | None = None,
    cuda_graphs: bool = False,
    **options: Any,
) -> Path:
    """`gear sample`: draws, saves, and returns where. options: as of `Options`, in place of the run's. Raises
    `LayoutError` for a folder of other images."""
    if n < 1:
        raise ValueError(f"n must be at least 1; it is {n}.")
    if not 0 <= seed < 2**63:
        raise ValueError(f"seed must be from 0 to 2^63 - 1; it is {seed}.")
    generator = require_classes(pair)
    names = pair.checkpoint.classes
    given = label_numbers(classes, names) or None
    labels = class_labels(n, len(names), given, seed)
    whole = asdict(Options(**asdict(pair.checkpoint.config.sampling) | options))
    rows = batch or usual_batch(pair)
    path = place(pair, out, {"grid": "samples.png", "npz": f"samples-{n}.npz", "png": "samples"}[save])
    told, whose = {"n": n, "seed": seed, "classes": given, **whole, "batch": rows, "precision": precision}, {}
    told |= unusual_size(pair)
    if save != "grid":
        told["weights_sha256"] = models.weights_sha256(pair.checkpoint, "tokenizer", "generator")
        where = pair.checkpoint.path
        whose = {"run": str(where), "model": asdict(models.model(pair.checkpoint, models.called(where), generator))}
    drawing = in_precision(pair, precision)
    if save == "png":
        settle(path, told, whose)
        draw_pngs(drawing, labels, seed, path, batch=rows, cuda_graphs=cuda_graphs, **whole)
        return path
    images = draw(drawing, labels, seed, batch=rows, cuda_graphs=cuda_graphs, **whole)
    match save:
        case "grid":
            save_grid(
                images[labels.argsort(stable=True)],
                path,
                columns=max(1, min(16, round(n**0.5))),
                upscale=max(1, 128 // images.shape[-1]),
            )
        case "npz":
            save_npz(images, path, labels)
            note.write(path, told | whose)
    return path


def reconstruct(pair: Pair, files: Sequence[Path], out: Path | None, interpolation: Interpolation = "bicubic") -> Path:
    """`gear reconstruct`: a sheet of inputs above their reconstructions; prints each PSNR."""
    path = place(pair, out, "reconstructions.png")
    names, pixels = open_images(files, pair.checkpoint.config.data.resolution, interpolation)
    rebuilt = rebuild(pair, pixels)
    decibels = psnr(rebuilt, pixels)
    for name, value in zip(names, decibels.tolist(), strict=True):
        print(f"{value:6.2f} dB  {name}")
    print(f"{decibels.mean():6.2f} dB  mean PSNR of {len(names)} images, {pixels.shape[-1]} px")
    columns = min(len(pixels), 8)
    rows = [t for a, b in zip(pixels.split(columns), rebuilt.split(columns), strict=True) for t in _rows(a, b, columns)]
    save_grid(torch.cat(rows), path, columns, upscale=max(1, 256 // pixels.shape[-1]))
    return path


def folder_of(pair: Pair) -> Path:
    """Where its pictures go: into the run, or, for public files, to where one is."""
    return models.run_of(pair.checkpoint) if pair.checkpoint.step else Path(".")


def place(pair: Pair, out: Path | None, name: str) -> Path:
    """`out`, or where `name` goes by default: a file, or without a suffix a folder of images. Raises ValueError where
    one of the other kind is there, and for a file with the suffix of another format."""
    path, suffix = out or folder_of(pair) / name, Path(name).suffix
    if suffix and path.is_dir():
        raise ValueError(
            f"{path} is a folder, and one file is to be written: give a file in it, as --out {path / name}."
        )
    if suffix and path.suffix.lower() != suffix:
        raise ValueError(f"{path} would hold {suffix[1:].upper()}: call it {path.with_suffix(suffix)}.")
    if not suffix and path.exists() and not path.is_dir():
        raise ValueError(f"{path} is a file, and a folder of images is to be written: give another --out.")
    return path


def open_images(
    paths: Sequence[Path], resolution: int, interpolation: Interpolation = "bicubic"
) -> tuple[list[str], UInt8[Tensor, "n 3 H W"]]:
    """The files, and the images of the folders: the short side resized, the middle cropped. One that cannot be used is
    named and left out; if none can, `DataError`."""
    files = [each for path in paths for each in (_inside(path) if path.is_dir() else [(path, path)])]
    names, pixels = [], []
    with any_size():
        for name, file in files:
            try:
                pixels.append(decode(file, resolution, interpolation))
                names.append(str(name))
            except Skip as reason:
                print(f"left out: {name} ({reason})")
    if not pixels:
        raise DataError(f"no image that can be used among {len(files)} files; give image files, or folders of them.")
    return names, torch.from_numpy(np.stack(pixels))


def _inside(folder: Path) -> list[tuple[Path, File]]:
    """What each image is called, and where it is."""
    listing = scan(folder)
    for reason, name in listing.problems:
        print(f"left out: {folder / name} ({reason})")
    return [(listing.folder / name, listing.file(i)) for i, name in enumerate(listing.names)]


def _rows(a: Tensor, b: Tensor, columns: int) -> list[Tensor]:
    white = a.new_full((columns - len(a), *a.shape[1:]), 255)
    return [a, white, b, white]
