"""From an image of any size to R x R pixels, exactly as the field does: the short side to R, then a crop.

This is torchvision's `Resize(R)` on PIL images (antialiased) followed by `CenterCrop(R)` or by `RandomCrop(R)` at the
same place, bit for bit. PSNR, SSIM and rFID are taken against these pixels, so the filter is part of a number's
meaning: Table 18 is bicubic, the official LFQ and IBQ numbers are bilinear (appendix C).
"""

import hashlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float64, UInt8
from PIL import Image

Interpolation = Literal["bicubic", "bilinear"]
FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}

Places = Float64[np.ndarray, "V 2"]  # of V crops, from the left and from the top, as shares of the room in [0, 1)


@dataclass(frozen=True)
class Cropping:
    """Which squares of R x R pixels an image has: the middle, `views` fixed random ones, or a fresh one at each visit.

    Fixed ones can be encoded once and read back (LlamaGen's ten crops serve the same end).
    """

    resolution: int  # R
    crop: Literal["center", "random"] = "center"
    interpolation: Interpolation = "bicubic"
    views: int | None = None  # fixed random crops of an image; None with "random": fresh ones
    seed: int = 0  # of the fixed ones

    def __post_init__(self) -> None:
        if self.resolution < 1 or (self.views is not None and (self.views < 1 or self.crop != "random")):
            raise ValueError(f'resolution and views must be at least 1, and views needs crop="random": {self}.')

    @property
    def fixed(self) -> int | None:
        """How many squares an image has, None if every visit makes another."""
        return 1 if self.crop == "center" else self.views

    def place(self, name: str, view: int) -> Float64[np.ndarray, "2"]:
        """Where fixed random crop `view` of the image called `name` lies: a function of the seed and these two."""
        text = f"{self.seed}/{view}/{name}".encode("utf-8", "surrogateescape")
        digest = hashlib.blake2b(text, digest_size=12).digest()
        return np.array([int.from_bytes(digest[:6]), int.from_bytes(digest[6:])]) / 2**48


def short_side(image: Image.Image, resolution: int, interpolation: Interpolation) -> Image.Image:
    """Resized, or enlarged, so that the short side has `resolution` pixels; the long side is rounded down."""
    short = min(image.size)
    size = resolution * image.width // short, resolution * image.height // short
    return image.resize(size, FILTERS[interpolation])


def squares(
    image: Image.Image, resolution: int, interpolation: Interpolation = "bicubic", places: Places | None = None
) -> UInt8[np.ndarray, "V 3 {resolution} {resolution}"]:
    """The crops of an RGB image at `places`; without places the one in the middle."""
    small = short_side(image, resolution, interpolation)
    rooms = [side - resolution for side in small.size]
    if places is None:
        corners = [[round(room / 2) for room in rooms]]  # to even, as CenterCrop
    else:
        corners = [[int(u * (room + 1)) for u, room in zip(place, rooms, strict=True)] for place in places]
    pixels = np.asarray(small)
    crops = [pixels[top : top + resolution, left : left + resolution] for left, top in corners]
    return np.ascontiguousarray(np.stack(crops).transpose(0, 3, 1, 2))


def square(
    image: Image.Image, resolution: int, interpolation: Interpolation = "bicubic"
) -> UInt8[np.ndarray, "3 {resolution} {resolution}"]:
    """The one in the middle."""
    return squares(image, resolution, interpolation)[0]
