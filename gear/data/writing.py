"""Writing images: one PNG grid, a folder of PNGs, or an .npz in the layout of the ADM evaluator.

A file appears under its name only when it is whole: it is written beside it and renamed. Folders are created.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image
from torch import Tensor


def save_grid(images: UInt8[Tensor, "N 3 H W"], path: str | Path, columns: int, upscale: int = 1) -> None:
    """Images in rows of `columns`, black where the last row is short, each pixel `upscale` x `upscale`, as one PNG."""
    if columns < 1 or upscale < 1:
        raise ValueError(f"columns and upscale must be at least 1; they are {columns} and {upscale}.")
    pixels = images.cpu().permute(0, 2, 3, 1).numpy()
    n, h, w, _ = pixels.shape
    rows = -(-n // columns)
    grid = np.zeros((rows * columns, h, w, 3), np.uint8)
    grid[:n] = pixels
    sheet = grid.reshape(rows, columns, h, w, 3).swapaxes(1, 2).reshape(rows * h, columns * w, 3)
    _save_png(sheet.repeat(upscale, axis=0).repeat(upscale, axis=1), Path(path))


def save_pngs(
    images: UInt8[Tensor, "N 3 H W"], folder: str | Path, image_ids: Sequence[int] | None = None
) -> list[Path]:
    """Each image as `folder`/000000.png, numbered by `image_ids` (None: from 0); returns the paths in order."""
    ids = range(len(images)) if image_ids is None else image_ids
    paths = [Path(folder) / f"{i:06d}.png" for i in ids]
    for pixels, path in zip(images.cpu().permute(0, 2, 3, 1).numpy(), paths, strict=True):
        _save_png(pixels, path)
    return paths


def save_npz(images: UInt8[Tensor, "N 3 H W"], path: str | Path, labels: Int[Tensor, "N"] | None = None) -> None:
    """arr_0: images as uint8 (N, H, W, 3); arr_1, if given: labels as int64 (N,). What ADM's evaluator.py reads."""
    arrays = [images.cpu().permute(0, 2, 3, 1).contiguous().numpy()]
    if labels is not None:
        arrays.append(labels.cpu().numpy().astype(np.int64))
    _write_whole(Path(path), lambda file: np.savez(file, *arrays))


def _save_png(pixels: np.ndarray, path: Path) -> None:
    image = Image.fromarray(np.ascontiguousarray(pixels))
    _write_whole(path, lambda file: image.save(file, format="PNG"))


def _write_whole(path: Path, write: Callable[[IO[bytes]], None]) -> None:
    """Calls `write` on a temporary file in the folder of `path`, then renames it to `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            write(file)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
