"""JPEG files to R x R pixels, against torchvision's `ImageFolder` with `Resize`, crop and `PILToTensor`, on one core.

The files are noise with the 1/f spectrum of photographs, 500 x 375 at quality 90: 119 kB each, as ImageNet's on average
(138 GB / 1.28 million = 108 kB). Both sides decode with Pillow and give equal pixels; of ten crops of an image, ours
decodes and resizes once. What bounds it: Huffman decoding and the bicubic filter, 1.8 and 3.3 ms of about 6.

What a GPU would ask for, by arithmetic and not measured: at 400 TFLOP/s (40 % of an H200's bfloat16) 1,100 images/s for
LlamaGen-B on a frozen VQ-16 with DINOv2-B live (352 GFLOP an image), 560 for L, 190 for GEAR-L (about 2,100); none for
stored codes.
"""

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.datasets import ImageFolder
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, PILToTensor, Resize
from torchvision.transforms.functional import crop, pil_to_tensor, resize

from bench.table import Row, alternating
from gear.data.ahead import Decoder, Request
from gear.data.folder import Listing, scan

SIZE, R, VIEWS = (500, 375), 256, 10
IMAGES = 24
ROUNDS = 5


def photograph(seed: int) -> Image.Image:
    """Noise with amplitude 1 / frequency, mostly grey: as hard to compress as a detailed photograph."""
    random, (width, height) = np.random.default_rng(seed), SIZE
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width))
    frequency[0, 0] = 1
    grey, colour = random.standard_normal((height, width, 1)), random.standard_normal((height, width, 3))
    spectrum = np.fft.fft2(0.85 * grey + 0.5 * colour, axes=(0, 1)) / frequency[..., None]
    x = np.fft.ifft2(spectrum, axes=(0, 1)).real
    return Image.fromarray(np.uint8(np.clip(120 + 48 * x / x.std((0, 1)), 0, 255)))


def request(listing: Listing, places: np.ndarray | None) -> Request:
    paths = [str(listing.folder / name) for name in listing.names]
    return Request(np.arange(len(paths)), paths, places, np.zeros(len(paths), dtype=bool))


def run() -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for i in range(IMAGES):
            file = root / f"class {i % 2}" / f"{i:04d}.jpg"
            file.parent.mkdir(exist_ok=True)
            photograph(i).save(file, quality=90)
        listing = scan(root)
        decoder = Decoder(R, "bicubic")
        places = np.random.default_rng(0).random((len(listing), VIEWS, 2))
        middle = Compose([Resize(R, InterpolationMode.BICUBIC), CenterCrop(R), PILToTensor()])
        one, opened = ImageFolder(folder, middle), ImageFolder(folder)

        def crops(i: int, view: int) -> Tensor:
            image: Any = resize(opened[i][0], [R], InterpolationMode.BICUBIC)
            left, top = (int(u * (side - R + 1)) for u, side in zip(places[i, view], image.size, strict=True))
            return pil_to_tensor(crop(image, top, left, R, R))

        return [
            compared(
                "decode, crop",
                lambda: decoder[request(listing, None)].pixels,
                lambda: torch.stack([one[i][0] for i in range(len(one))])[:, None],
                1.1,
            ),
            compared(
                f"{VIEWS} crops",
                lambda: decoder[request(listing, places)].pixels,
                lambda: torch.stack([torch.stack([crops(i, v) for v in range(VIEWS)]) for i in range(len(one))]),
                0.2,
            ),
        ]


def compared(path: str, ours: Callable[[], Tensor], plain: Callable[[], Tensor], target: float) -> Row:
    """Milliseconds of one core an image, both sides alternating."""
    assert torch.equal(ours(), plain())  # a fast wrong answer is worth nothing

    def milliseconds(side: Callable[[], Tensor]) -> float:
        start = time.process_time()
        side()
        return (time.process_time() - start) * 1e3 / IMAGES

    t, spread = alternating({"ours": partial(milliseconds, ours), "plain": partial(milliseconds, plain)}, ROUNDS)
    return Row(path, "ms", t["ours"], t["plain"], target, spread, f"Pillow, {1e3 / t['ours']:.0f}/s a core")
