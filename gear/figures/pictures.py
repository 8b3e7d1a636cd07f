"""Images inside the page: lossless WebP as data URIs, laid out in strips and cards."""

import base64
import io
from html import escape

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image

from gear.evaluate.reconstruction import psnr
from gear.figures.curves import colour, swatch
from gear.figures.results import Report

SAMPLE, CARD = 64, 128  # px: small images are shown at the nearest whole multiple of their side to these
ROLES = {"llamagen-repa": "Warm-up", "naive": "Naive"}  # of the tokenizers, where the name of the arm would mislead


def samples(report: Report) -> str:
    """A row for each class, a strip of samples for each arm that has some, side by side where the page is wide."""
    drawn = [(i, arm.name, arm.samples) for i, arm in enumerate(report.arms) if arm.samples is not None]
    if not drawn:
        return '<p class="quiet">No arm has samples.</p>'
    rows = []
    for row, name in enumerate(report.classes):
        strips = [_strip(i, arm, name, images[row]) for i, arm, images in drawn]
        rows.append(f'<div class="class-row"><h3>{escape(name)}</h3><div class="strips">{"".join(strips)}</div></div>')
    return f'<div class="samples{" pairwise" if len(drawn) == 2 else ""}">{"".join(rows)}</div>'


def _strip(style: int, arm: str, name: str, cells: UInt8[np.ndarray, "cols H W 3"]) -> str:
    label = escape(f"{len(cells)} samples of the class {name}, drawn by {arm}")
    images = "".join(f'<img alt="" src="{data_uri(cell)}">' for cell in cells)
    return (
        f'<figure class="{colour(style)}"><figcaption>{swatch(style)}{escape(arm)}</figcaption>'
        f'<div class="strip" role="img" aria-label="{label}" {_grid(cells, SAMPLE)}>{images}</div></figure>'
    )


def reconstructions(report: Report) -> str:
    """A card for each held-out input: itself, then what the tokenizer of each arm makes of it, the frozen one first."""
    order = {"llamagen-repa": 0, "gear": 1}
    arms = sorted(report.arms, key=lambda arm: order.get(arm.key, 2))
    rebuilt = [(arm, arm.reconstructions) for arm in arms if arm.reconstructions is not None]
    if not rebuilt or not len(report.inputs):
        return '<p class="quiet">No arm has reconstructions.</p>'
    quality = {arm.key: _decibels(images, report.inputs) for arm, images in rebuilt}
    cards = []
    for i, original in enumerate(report.inputs):
        cells = [_cell(original, "Input", "", f"held-out input {i + 1}")]
        for arm, images in rebuilt:
            role, decibels = ROLES.get(arm.key, arm.name), f"{quality[arm.key][i]:.1f} dB"
            said = f"reconstruction of input {i + 1} by the tokenizer of {arm.name}, {decibels}"
            cells.append(_cell(images[i], role, decibels, said))
        cards.append(f"<li {_grid(report.inputs, CARD, len(cells))}>{''.join(cells)}</li>")
    return f'<ul class="cards">{"".join(cards)}</ul>'


def _cell(pixels: UInt8[np.ndarray, "H W 3"], role: str, quality: str, said: str) -> str:
    return (
        f'<figure><img src="{data_uri(pixels)}" alt="{escape(said)}">'
        f"<figcaption>{escape(role)} <span>{quality}</span></figcaption></figure>"
    )


def _decibels(x_hat: UInt8[np.ndarray, "n H W 3"], x: UInt8[np.ndarray, "n H W 3"]) -> list[float]:
    a, b = (torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2) for images in (x_hat, x))
    return psnr(a, b).tolist()


def _grid(images: UInt8[np.ndarray, "n H W 3"], target: int, columns: int | None = None) -> str:
    """The CSS grid of a row of images, each at a whole multiple of its own width where there is room."""
    width = images.shape[2]
    return f'style="--n:{columns or len(images)};--w:{width * max(1, round(target / width))}px"'


def data_uri(pixels: UInt8[np.ndarray, "H W 3"]) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "WEBP", lossless=True, method=4)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
