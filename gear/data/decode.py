"""One image, a file or a member of a tar, as upright RGB, whatever its size and colour space, and as R x R pixels."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from threading import Lock

import numpy as np
from jaxtyping import UInt8
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import TiffImageFile

from gear.data.crop import Interpolation, square
from gear.data.members import File, open_file

SUFFIXES = frozenset({".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
UNREAD = frozenset(
    {".heic", ".heif", ".avif", ".jxl", ".dng", ".cr2", ".nef", ".arw"}
)  # photographs for other decoders
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")  # whatever the suffix says; none that calls another program
SMALLEST = 8  # px on the short side
LARGEST = 200_000_000  # px in all: as RGBA 0.8 GB
HEAVY = 25_000_000  # px in all, above which files are decoded one at a time
UPRIGHT = {  # EXIF orientation -> what turns the picture upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SIDEWAYS = (5, 6, 7, 8)  # of these, the ones that change width and height for each other
ORIENTATION = 0x0112  # the EXIF tag

UNREADABLE = "not readable"  # now; it may be at another time
BROKEN = "broken"

_one_at_a_time = Lock()


class _Lifted:
    """Pillow's limit belongs to the process, so that threads share it: the first one in lifts it, the last one out puts
    it back."""

    def __init__(self) -> None:
        self.lock, self.inside = Lock(), 0
        self.limit: int | None = None

    def __enter__(self) -> None:
        with self.lock:
            if not self.inside:
                self.limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            self.inside += 1

    def __exit__(self, *error: object) -> None:
        with self.lock:
            self.inside -= 1
            if not self.inside:
                Image.MAX_IMAGE_PIXELS = self.limit


_lifted = _Lifted()


class Skip(Exception):
    """This file is left out; the message is the reason it is counted under."""


@contextmanager
def any_size() -> Iterator[None]:
    """Lifts Pillow's own limit on pixels (a warning above 89 million), as `LARGEST` is checked instead. Any number of
    threads may be within."""
    with _lifted:
        yield


def decode(
    file: File, resolution: int, interpolation: Interpolation = "bicubic"
) -> UInt8[np.ndarray, "3 {resolution} {resolution}"]:
    """The square in the middle at R = `resolution`. Raises `Skip`."""
    with opened(file, resolution) as image:
        return square(image, resolution, interpolation)


@contextmanager
def opened(file: File, resolution: int) -> Iterator[Image.Image]:
    """The image in RGB, decoded in full size (JPEG's quick decoding at 1/2 would change every number), to be brought
    to `resolution` within the block.

    Transparency is laid on white, animations give their first frame, EXIF orientation is applied. Raises `Skip`, also
    for what goes wrong within the block: `UNREADABLE` where it is not the image's fault.
    """
    try:
        with open_file(file) as data, Image.open(data, formats=FORMATS) as image:
            short, long = sorted(image.size)
            if short < SMALLEST:
                raise Skip(f"smaller than {SMALLEST} pixels")
            if max(short * long, resolution * resolution * long // short) > LARGEST:  # as it is, or resized
                raise Skip(f"larger than {LARGEST // 1_000_000} million pixels")
            with _one_at_a_time if short * long > HEAVY else nullcontext():
                image.load()
                turn = UPRIGHT.get(_orientation(image))
                rgb = _rgb(image)
                yield rgb if turn is None else rgb.transpose(turn)
    except Skip:
        raise
    except MemoryError as error:
        raise Skip(UNREADABLE) from error
    except OSError as error:  # Pillow's own have no number, and a damaged offset is an invalid argument
        raise Skip(BROKEN if error.errno in (None, errno.EINVAL) else UNREADABLE) from error
    except Exception as error:  # decoders meet damage with nearly any exception
        raise Skip(BROKEN) from error


def upright_size(image: Image.Image) -> tuple[int, int]:
    """(width, height) that `opened` gives an image of which only the head has been read."""
    size = image.size
    if isinstance(image, TiffImageFile):  # its own size is that of one already turned, by most orientations
        size = image.tag_v2[ExifTags.Base.ImageWidth], image.tag_v2[ExifTags.Base.ImageLength]
    return (size[1], size[0]) if _orientation(image) in SIDEWAYS else size


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits of grey, which convert() would clip at 255
        grey = np.asarray(image)
        if grey.min() < 0 or grey.max() > 0xFFFF:
            raise Skip("of more than 16 bits")
        image = Image.fromarray(((grey.astype(np.uint32) + 128) // 257).astype(np.uint8))
    if image.mode == "F":
        raise Skip("of more than 16 bits")
    if image.has_transparency_data:
        layer = image if image.mode == "RGBA" else image.convert("RGBA")  # a copy of 200 million pixels is 0.8 GB
        image = Image.new("RGB", layer.size, "white")
        image.paste(layer, mask=layer.getchannel("A"))
    return image if image.mode == "RGB" else image.convert("RGB")


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 (upright) where there is none or it cannot be read."""
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # damaged metadata is no reason to lose the picture
        return 1
