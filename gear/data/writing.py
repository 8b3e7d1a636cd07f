"""Writing images: one PNG grid, a folder of PNGs, or an .npz in the layout of the ADM evaluator.

A file appears under its name only when it is whole: it is written beside it and renamed. Folders are created.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image
from torch import Tensor

from gear.store.whole import replacing


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
    paths = [png(folder, i) for i in ids]
    for pixels, path in zip(images.cpu().permute(0, 2, 3, 1).numpy(), paths, strict=True):
        _save_png(pixels, path)
    return paths


def png(folder: str | Path, image_id: int) -> Path:
    return Path(folder) / f"{image_id:06d}.png"


def save_npz(images: UInt8[Tensor, "N 3 H W"], path: str | Path, labels: Int[Tensor, "N"] | None = None) -> None:
    """arr_0: images as uint8 (N, H, W, 3); arr_1, if given: labels as int64 (N,). What ADM's evaluator.py reads."""
    arrays = [images.cpu().permute(0, 2, 3, 1).contiguous().numpy()]
    if labels is not None:
        arrays.append(labels.cpu().numpy().astype(np.int64))
    with replacing(Path(path)) as temporary, temporary.open("wb") as file:
        np.savez(file, *arrays)


def _save_png(pixels: np.ndarray, path: Path) -> None:
    image = Image.fromarray(np.ascontiguousarray(pixels))
    with replacing(path) as temporary:
        image.save(temporary, format="PNG")
