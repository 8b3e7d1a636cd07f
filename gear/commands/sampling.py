"""`gear sample` of texts: draws some images of each, and saves them with what they are of."""

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import torch

from gear.commands.models import digest
from gear.commands.prompted import artist
from gear.data.writing import save_npz
from gear.evaluate import layouts, note
from gear.evaluate.captions import Caption
from gear.figures.prompt_sheet import lacks, letters, save_captioned
from gear.inference import draw_prompts, place
from gear.run import Pair
from gear.store.whole import replacing

ON_A_SHEET = 64  # texts; more are hard to look at
LEGIBLE = 128  # px, smaller images are enlarged on a sheet
CAPTIONS = "captions.jsonl"

log = logging.getLogger("gear")


def sample_prompts(
    pair: Pair,
    texts: Sequence[str],
    each: int,
    seed: int,
    save: Literal["grid", "png", "npz"],
    out: Path | None,
    negative: str | None = None,
    cuda_graphs: bool = False,
    **options: Any,
) -> Path:
    """`each` images of each text, and where they are. Image j of text i has the number `each` i + j, however they are
    saved. options: of `artist`, in place of the run's. cuda_graphs: as of `generate`, where all are drawn in one call:
    png is written a pass at a time.

    Where the font of a sheet lacks letters, its texts are in a file beside it, in their order, too.
    """
    if each < 1:
        raise ValueError(f"n must be at least 1; it is {each}.")
    if save == "grid" and len(texts) > ON_A_SHEET:
        raise ValueError(f"a sheet has room for {ON_A_SHEET} prompts, not for {len(texts)}: give --save png or npz.")
    painter = artist(pair, seed, negative, **options)
    rows = [row for row in range(len(texts)) for _ in range(each)]
    whole = [texts[row] for row in rows]
    if save == "png":
        painter.check(texts)
        keys = [f"{row:05d}-{number % each:02d}" for number, row in enumerate(rows)]
        path = place(pair, out, f"prompts-{digest([whole, painter.about()])}")
        wanted = [Caption(key, text) for key, text in zip(keys, whole, strict=True)]
        layouts.write_flat(wanted, painter, path, about=painter.about(), whose=painter.whose(), batch=painter.batch)
        _write_captions(path / CAPTIONS, [f"{key}.png" for key in keys], whole)
        return path
    name = f"prompts-{digest([whole, painter.about()])}.npz" if save == "npz" else "samples.png"
    path = place(pair, out, name)
    drawn = {"negative": negative, "batch": painter.batch, "cuda_graphs": cuda_graphs, **painter.options}
    images = draw_prompts(painter.drawing, whole, seed, **drawn)
    if save == "npz":
        save_npz(images, path, torch.tensor(rows))
        run = {"run": str(pair.checkpoint.path), "model": asdict(painter.model())}
        note.write(path, {"n": len(whole), **painter.about(), **run})
        _write_captions(path.with_suffix(".jsonl"), [str(i) for i in range(len(whole))], whole)
        return path
    save_captioned(images, texts, path, upscale=max(1, LEGIBLE // images.shape[-1]))
    if unseen := sum(lacks(text, letters()) for text in texts):
        beside = path.with_name(f"{path.stem}-prompts.txt")
        _write_lines(beside, [" ".join(text.split()) for text in texts])
        log.warning("the sheet's font lacks letters of %d of %d prompts; %s has all.", unseen, len(texts), beside)
    return path


def _write_captions(file: Path, names: Sequence[str], texts: Sequence[str]) -> None:
    """As `gear evaluate coco --captions` and folders of captioned images are read."""
    lines = [
        json.dumps({"file_name": name, "caption": text}, ensure_ascii=False)
        for name, text in zip(names, texts, strict=True)
    ]
    _write_lines(file, lines)


def _write_lines(file: Path, lines: Sequence[str]) -> None:
    with replacing(file) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
