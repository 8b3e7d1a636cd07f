"""Makes the built-in images, gear/data/builtin/emoji.webp and emoji.tsv, from three pinned npm packages.

    python scripts/build_builtin.py [--from FOLDER]

Without --from the packages are downloaded with npm; FOLDER is where they already lie. Takes two minutes.

What is left out and why is said in gear/data/emoji_names.py.
"""

import argparse
import io
import tarfile
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from gear.data.builtin import FOLDER, SIDE
from gear.data.emoji_names import FLUENT, LEXICON, NOTO, TABLE, WORDS, cell, emoji
from gear.store.cache import writing
from gear.store.packages import Package, check, download

HEADINGS = ("code points", "class", "group", "name", "keywords")
COLUMNS = 56  # of the mosaic
STEP = 5  # levels of a colour are this far apart: an error of at most 2 in 255, and half the bytes


def main() -> None:
    parser = argparse.ArgumentParser(description="Makes the built-in images from three npm packages.")
    parser.add_argument("--from", dest="folder", type=Path, help="where the packages' .tgz files already lie")
    given: Path | None = parser.parse_args().folder
    with tempfile.TemporaryDirectory() as scratch:
        files, table, words = (contents(p, given, Path(scratch)) for p in (FLUENT, NOTO, WORDS))
    rows, cells = [], []
    for one in emoji(table[TABLE], words[LEXICON]):
        if file := next((files[name] for name in one.fluent if name in files), None):
            rows.append((one.codes, one.class_name, one.group, one.name, one.keywords))
            cells.append(cell(file).transpose(1, 2, 0))
    pixels = quantised(np.stack(cells))
    with writing(FOLDER / "emoji.webp") as out:
        out.write(mosaic(pixels))
    with writing(FOLDER / "emoji.tsv") as out:
        out.write("".join("\t".join(row) + "\n" for row in [HEADINGS, *rows]).encode())
    error = (pixels.astype(np.float64) - np.stack(cells)) ** 2
    psnr = 10 * np.log10(255**2 / error.mean((1, 2, 3)))
    print(f"{len(rows)} images, {(FOLDER / 'emoji.webp').stat().st_size / 1e6:.2f} MB")
    print(f"{psnr.mean():.1f} dB against the unrounded images, {psnr.min():.1f} dB at worst")


def contents(package: Package, folder: Path | None, scratch: Path) -> dict[str, bytes]:
    """The files of a package that are read here, once its sha256 is right."""
    archive = folder / package.archive if folder else download(package, scratch)
    check(package, archive)
    with tarfile.open(archive) as bundle:
        wanted = [m for m in bundle if m.isfile() and m.name.endswith((".webp", "/emoji.json", "en-US.json"))]
        return {m.name: file.read() for m in wanted if (file := bundle.extractfile(m)) is not None}


def quantised(cells: np.ndarray) -> np.ndarray:
    """Each value rounded to a multiple of STEP below 255, so that white stays white."""
    return np.clip(255 - STEP * np.round((255.0 - cells) / STEP), 0, 255).astype(np.uint8)


def mosaic(cells: np.ndarray) -> bytes:
    """The cells row by row as one lossless WebP, white where the last row is short."""
    rows = -(-len(cells) // COLUMNS)
    padded = np.full((rows * COLUMNS, SIDE, SIDE, 3), 255, dtype=np.uint8)
    padded[: len(cells)] = cells
    sheet = padded.reshape(rows, COLUMNS, SIDE, SIDE, 3).swapaxes(1, 2).reshape(rows * SIDE, COLUMNS * SIDE, 3)
    out = io.BytesIO()
    Image.fromarray(sheet).save(out, format="WEBP", lossless=True, quality=100, method=6)
    return out.getvalue()


if __name__ == "__main__":
    main()
