"""3,010 of Microsoft's Fluent emoji at 64 px on white, nine classes, two captions each; licences in NOTICE.

emoji.webp is one mosaic of 64 x 64 cells, lossless, row by row; emoji.tsv names the cells in the same order: code
points, class, group, name, keywords. scripts/build_builtin.py makes both. Decoding takes under a second.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from gear.data.images import Images

FOLDER = Path(__file__).parent
SIDE = 64  # px of a cell


def images() -> Images:
    """All built-in images at 64 x 64; captions such as "grinning face" and "grinning face, smile, happy, joy". A group
    is one picture in all its skin tones and genders."""
    rows = [line.split("\t") for line in (FOLDER / "emoji.tsv").read_text("utf-8").splitlines()[1:]]
    names, labels, groups, called, keywords = zip(*rows, strict=True)
    classes = tuple(sorted(set(labels)))
    with Image.open(FOLDER / "emoji.webp") as mosaic:
        sheet = np.asarray(mosaic.convert("RGB"))
    height, width, _ = sheet.shape
    cells = sheet.reshape(height // SIDE, SIDE, width // SIDE, SIDE, 3).transpose(0, 2, 4, 1, 3)
    return Images(
        pixels=cells.reshape(-1, 3, SIDE, SIDE)[: len(rows)],
        labels=np.array([classes.index(label) for label in labels], dtype=np.int64),
        classes=classes,
        names=names,
        groups=groups,
        captions=tuple((name, f"{name}, {more}") for name, more in zip(called, keywords, strict=True)),
    )
