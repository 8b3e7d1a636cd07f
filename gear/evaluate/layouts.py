"""Images of prompts in the folders that the official scorers of GenEval and DPG-Bench read, and in a flat one.

Each image has a number of its own, so that a run that was interrupted goes on with the same images, in batches of any
size, on any number of ranks. What they were drawn from is noted beside the folder, in FOLDER.json: DPG-Bench's scorer
takes every file inside for an image.
"""

import hashlib
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from gear import ranks
from gear.evaluate import note
from gear.evaluate.captions import Caption
from gear.evaluate.pil_resize import pil_resize
from gear.evaluate.prompts import GenevalPrompt, checked
from gear.progress import bars
from gear.store.whole import replacing
from gear.train import distributed

SAMPLES = 4  # images a prompt of either benchmark
SIDE = 512  # px, at which the paper gives its 256 px images to both
TILES = 2  # along a side of a grid

Draw = Callable[[Sequence[str], Sequence[int]], UInt8[Tensor, "b 3 H W"]]  # prompts and each image's number -> images


class LayoutError(ValueError):
    """A folder that holds other images than those asked for: what to do."""


@dataclass(frozen=True)
class Wanted:
    """A file: one image, or four as a grid of 2 x 2. numbers: of the images in it, in the whole."""

    file: Path
    prompt: str
    numbers: range


def write_geneval(
    prompts: Sequence[GenevalPrompt],
    draw: Draw,
    out: Path,
    *,
    about: Mapping[str, Any],
    side: int | None = SIDE,
    batch: int = 32,
) -> Path:
    """OUT/00000/metadata.jsonl, samples/00000.png to 00003.png and grid.png for each prompt: GenEval's own layout.

    about: what else the images depend on, as JSON has it: seed, weights, options. side: px to which images are resized
    (Pillow's bicubic); None leaves them. batch: images at a time. Several ranks share the work, and all come back when
    it is done. Called again, draws what is missing. Raises `LayoutError` if the folder holds images of other prompts or
    settings.
    """
    texts = [prompt.prompt for prompt in prompts]
    metadata = [prompt.metadata for prompt in prompts]
    _note(out, {"layout": "geneval", "side": side, **about}, [texts, metadata])
    wanted = [
        Wanted(out / f"{i:05d}" / "samples" / f"{j:05d}.png", text, range(i * SAMPLES + j, i * SAMPLES + j + 1))
        for i, text in enumerate(texts)
        for j in range(SAMPLES)
    ]
    _write(wanted, draw, side, batch, "GenEval")
    if ranks.rank() == 0:
        for i, record in enumerate(metadata):
            _write_text(out / f"{i:05d}" / "metadata.jsonl", json.dumps(record))
            if not (grid := out / f"{i:05d}" / "grid.png").is_file():
                files = [out / f"{i:05d}" / "samples" / f"{j:05d}.png" for j in range(SAMPLES)]
                _save(_grid(torch.stack([read(file) for file in files])), grid)
    distributed.together()
    return out


def write_dpg(
    prompts: Mapping[str, str],
    draw: Draw,
    out: Path,
    *,
    about: Mapping[str, Any],
    side: int | None = SIDE,
    batch: int = 32,
) -> Path:
    """OUT/KEY.png for each prompt: four images of `side` px as a grid of 2 x 2, row by row. Otherwise as above."""
    _note(out, {"layout": "dpg", "side": side, **about}, [list(prompts.items())])
    wanted = [
        Wanted(out / f"{_name(key)}.png", text, range(i * SAMPLES, (i + 1) * SAMPLES))
        for i, (key, text) in enumerate(prompts.items())
    ]
    _write(wanted, draw, side, batch, "DPG-Bench")
    return out


def write_flat(
    captions: Sequence[Caption],
    draw: Draw,
    out: Path,
    *,
    about: Mapping[str, Any],
    whose: dict[str, Any] | None = None,
    side: int | None = None,
    batch: int = 32,
) -> Path:
    """OUT/KEY.png, an image a caption, for COCO and GPIC. whose: as of `settle`. Otherwise as above."""
    _note(out, {"layout": "flat", "side": side, **about}, [[c.key, c.text] for c in captions], whose)
    wanted = [Wanted(out / f"{_name(c.key)}.png", c.text, range(i, i + 1)) for i, c in enumerate(captions)]
    _write(wanted, draw, side, batch, "images")
    return out


def _write(wanted: Sequence[Wanted], draw: Draw, side: int | None, batch: int, what: str) -> None:
    """Batches are told off by what is wanted, and not by what is missing, which changes under the other ranks."""
    step = max(1, batch // len(wanted[0].numbers)) if wanted else 1
    mine = [wanted[i : i + step] for i in range(ranks.rank() * step, len(wanted), ranks.size() * step)]
    with bars() if ranks.rank() == 0 else nullcontext() as bar:
        task = bar.add_task(what, total=sum(map(len, mine)), note="") if bar else None
        for batch_of in mine:
            if some := [one for one in batch_of if not one.file.is_file()]:
                images = draw(
                    [one.prompt for one in some for _ in one.numbers], [i for one in some for i in one.numbers]
                )
                images = images.cpu() if side is None else pil_resize(images, (side, side)).cpu()
                for one, parts in zip(some, images.split([len(one.numbers) for one in some]), strict=True):
                    _save(_grid(parts) if len(parts) > 1 else parts[0], one.file)
            if bar and task is not None:
                bar.advance(task, len(batch_of))
    distributed.together()


def _grid(images: UInt8[Tensor, "n 3 H W"]) -> UInt8[Tensor, "3 h w"]:
    """Row by row, 2 a row."""
    rows = [torch.cat(list(row), dim=2) for row in images.split(TILES)]
    return torch.cat(rows, dim=1)


def tiles(grid: UInt8[Tensor, "3 h w"]) -> Iterator[UInt8[Tensor, "3 H W"]]:
    """The four images of a grid. Raises `LayoutError` for one of odd sides."""
    if grid.shape[1] % TILES or grid.shape[2] % TILES:
        raise LayoutError(f"a grid of 2 x 2 images has even sides; this is of {grid.shape[2]} x {grid.shape[1]} px.")
    for row in grid.chunk(TILES, dim=1):
        yield from row.chunk(TILES, dim=2)


def geneval_images(folder: Path) -> list[tuple[Path, dict[str, Any]]]:
    """The images in GenEval's layout, in order, each with the metadata of its prompt. Raises `LayoutError`, and
    `PromptError` for metadata that is none."""
    found: list[tuple[Path, dict[str, Any]]] = []
    for prompt in sorted(p for p in _listed(folder) if p.is_dir() and p.name.isdigit()):
        file = prompt / "metadata.jsonl"
        if not file.is_file():
            raise LayoutError(f"{prompt} lacks metadata.jsonl, its line of GenEval's evaluation_metadata.jsonl.")
        try:
            metadata = checked(json.loads(file.read_text()), str(file))
        except json.JSONDecodeError as error:
            raise LayoutError(f"{file} is no JSON ({error.msg}): it holds one line of GenEval's metadata.") from error
        samples = sorted(p for p in (prompt / "samples").glob("*.png") if p.stem.isdigit())
        if not samples:
            raise LayoutError(f"{prompt} has no images: they are samples/00000.png, 00001.png, ...")
        found += [(sample, metadata) for sample in samples]
    if not found:
        raise LayoutError(
            f"{folder} is not in GenEval's layout: folders 00000, 00001, ..., each with metadata.jsonl and "
            "samples/00000.png."
        )
    return found


def dpg_images(folder: Path, keys: Collection[str]) -> list[tuple[Path, str]]:
    """The images in DPG-Bench's layout, KEY.png or .jpg, sorted, each with its key. Raises `LayoutError` for one whose
    key is not among `keys`."""
    files = sorted(p for p in _listed(folder) if p.suffix.lower() in (".png", ".jpg", ".jpeg", ".webp"))
    if not files:
        raise LayoutError(f"{folder} holds no images; DPG-Bench's are KEY.png, a grid of four for each prompt.")
    if unknown := [p.name for p in files if p.stem not in keys]:
        raise LayoutError(
            f"{len(unknown)} of {len(files)} images in {folder} are of no prompt with questions, such as {unknown[0]}: "
            "they must be named by the item_id of dpg_bench.csv."
        )
    return [(p, p.stem) for p in files]


def settle(out: Path, settings: dict[str, Any], whose: dict[str, Any] | None = None) -> None:
    """Before images are drawn into `out`: notes beside it what they depend on, and whose they are, which may have
    another name when they are drawn again. Raises `LayoutError` where it holds images of other settings, or of none
    that are known."""
    file, settings, whose = note.beside(out), json.loads(json.dumps(settings)), whose or {}
    if out.is_dir() and any(out.iterdir()):
        try:
            before = dict(json.loads(file.read_text()))
        except (OSError, ValueError, TypeError):
            raise LayoutError(
                f"{out} is not empty, and {file.name} beside it does not say what is in it: give another folder "
                "with --out, or delete it."
            ) from None
        keys = [key for key in {**before, **settings} if key not in whose]
        if differ := [key for key in keys if before.get(key) != settings.get(key)]:
            raise LayoutError(
                f"{out} holds images of other settings ({', '.join(differ)}): give another folder with --out, or "
                "delete it."
            )
    note.write(out, settings | whose)


def read(file: Path) -> UInt8[Tensor, "3 H W"]:
    """An image's pixels. Raises `LayoutError` for one that cannot be read."""
    try:
        with Image.open(file) as image:
            return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
    except Exception as error:  # decoders meet damage with nearly any exception
        raise LayoutError(f"{file} cannot be read as an image: delete it, and draw or bring it again.") from error


def _listed(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise LayoutError(f"{folder} is no folder.")
    return list(folder.iterdir())


def _save(image: UInt8[Tensor, "3 H W"], file: Path) -> None:
    with replacing(file) as partial:
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(partial, format="PNG")


def _note(out: Path, settings: dict[str, Any], drawn_from: list[Any], whose: dict[str, Any] | None = None) -> None:
    """Rank 0 writes what is about to be drawn, or checks that it is what was drawn before; then the others go on."""
    if ranks.rank() == 0:
        digest = hashlib.sha256(json.dumps(drawn_from).encode()).hexdigest()
        settle(out, settings | {"prompts": digest}, whose)
    distributed.together()


def _write_text(file: Path, text: str) -> None:
    if not (file.is_file() and file.read_text() == text):
        with replacing(file) as partial:
            partial.write_text(text)


def _name(key: str) -> str:
    if not key or key in (".", "..") or any(c in key for c in "/\\\0"):
        raise LayoutError(f"the key {key!r} is no name for a file: keys must not hold slashes.")
    return key
