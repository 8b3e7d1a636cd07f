import errno
import io
import os
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from gear.data.crop import square
from gear.data.decode import FORMATS, LARGEST, Skip, any_size, decode, opened

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


@pytest.fixture
def photo() -> Image.Image:
    """48 x 32, its left, middle and right thirds red, green and blue."""
    pixels = np.zeros((32, 48, 3), np.uint8)
    pixels[:, :16], pixels[:, 16:32], pixels[:, 32:] = RED, GREEN, BLUE
    return Image.fromarray(pixels)


def colour(pixels: np.ndarray) -> tuple[int, ...]:
    """The mean colour, of 3 x R x R."""
    return tuple(int(c) for c in pixels.reshape(3, -1).mean(1).round())


def reason(path: Path, resolution: int = 8) -> str:
    with pytest.raises(Skip) as caught:
        decode(path, resolution)
    return str(caught.value)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "gif", "tif"])
def test_every_format(tmp_path, photo, suffix):
    photo.save(tmp_path / f"a.{suffix}", **({"lossless": True} if suffix == "webp" else {}))
    out = decode(tmp_path / f"a.{suffix}", 16)
    assert out.shape == (3, 16, 16)
    assert out.dtype == np.uint8
    assert np.abs(out[:, 8, 8].astype(int) - GREEN).max() <= 4
    assert np.abs(out[:, 8, 0].astype(int) - RED).max() <= 40  # the crop is columns 8 to 40, its first half red
    assert np.abs(out[:, 8, 15].astype(int) - BLUE).max() <= 40


def test_the_suffix_does_not_matter(tmp_path, photo):
    photo.save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / "a.jpg")
    assert decode(tmp_path / "a.jpg", 8).shape == (3, 8, 8)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_exif_orientation(tmp_path, orientation, suffix):
    """A picture is stored turned, with the tag that says so, and comes out upright: corners red, green, blue, white."""
    upright = np.zeros((32, 32, 3), np.uint8)
    upright[:16, :16], upright[:16, 16:], upright[16:, :16], upright[16:, 16:] = RED, GREEN, BLUE, WHITE
    undo = {  # what the camera did, as numpy says it
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
        8: lambda a: np.rot90(a, -1),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(undo[orientation](upright)))
    options = {"webp": {"lossless": True}, "jpg": {"quality": 95, "subsampling": 0}}.get(suffix, {})
    stored.save(tmp_path / f"a.{suffix}", exif=exif, **options)
    out = decode(tmp_path / f"a.{suffix}", 8).astype(int)
    for (row, column), want in {(1, 1): RED, (1, 6): GREEN, (6, 1): BLUE, (6, 6): WHITE}.items():
        assert np.abs(out[:, row, column] - want).max() <= 12


@pytest.mark.parametrize("orientation", range(2, 9))
def test_turned_before_it_is_resized(tmp_path, orientation):
    """Resizing rounds after each axis, so that turning afterwards would give other pixels than turning first."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    noise = np.random.default_rng(0).integers(0, 256, (31, 50, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as image:
        want = square(ImageOps.exif_transpose(image), 16)
    assert np.array_equal(decode(tmp_path / "a.png", 16), want)


def test_damaged_metadata_does_not_lose_the_picture(tmp_path, photo):
    photo.save(tmp_path / "a.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\xff" * 40)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow says that the EXIF data are corrupt
        assert decode(tmp_path / "a.jpg", 8).shape == (3, 8, 8)


def test_cmyk(tmp_path):
    Image.new("CMYK", (20, 20), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=100)
    assert np.abs(np.subtract(colour(decode(tmp_path / "a.jpg", 8)), RED)).max() <= 3


@pytest.mark.parametrize(("value", "want"), [(0, 0), (65535, 255), (32896, 128), (300, 1), (128, 0), (129, 1)])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_of_grey(tmp_path, value, want, suffix):
    """v / 257 rounded: Pillow's own conversion would clip everything above 255 to white."""
    Image.fromarray(np.full((16, 16), value, np.uint16)).save(tmp_path / f"a.{suffix}")
    assert colour(decode(tmp_path / f"a.{suffix}", 8)) == (want,) * 3


def test_palette_with_transparency_is_laid_on_white(tmp_path):
    image = Image.new("P", (16, 16), 0)
    image.putpalette([*RED, *BLUE])
    image.paste(1, (0, 0, 16, 8))
    image.save(tmp_path / "a.png", transparency=0)  # red is transparent
    out = decode(tmp_path / "a.png", 16)
    assert tuple(out[:, 2, 8]) == BLUE
    assert tuple(out[:, 13, 8]) == WHITE


@pytest.mark.parametrize(("mode", "value"), [("RGBA", (0, 0, 255, 128)), ("LA", (0, 128))])
def test_half_transparent(tmp_path, mode, value):
    Image.new(mode, (16, 16), value).save(tmp_path / "a.png")
    want = (127, 127, 255) if mode == "RGBA" else (127,) * 3
    assert np.abs(np.subtract(colour(decode(tmp_path / "a.png", 8)), want)).max() <= 1


def test_no_dark_rim_where_colour_ends(tmp_path):
    """Transparent pixels are black underneath; resized before it is laid on white, the rim would darken."""
    image = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    image.paste((255, 255, 255, 255), (16, 16, 48, 48))
    image.save(tmp_path / "a.png")
    assert decode(tmp_path / "a.png", 10).min() == 255


@pytest.mark.parametrize("mode", ["1", "L"])
def test_black_and_white(tmp_path, mode):
    Image.new(mode, (16, 16), 255 if mode == "L" else 1).save(tmp_path / "a.png")
    assert colour(decode(tmp_path / "a.png", 8)) == WHITE


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_animations_give_their_first_frame(tmp_path, suffix):
    frames = [Image.new("RGB", (16, 16), c) for c in (RED, GREEN, BLUE)]
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:], duration=50)
    assert np.abs(np.subtract(colour(decode(tmp_path / f"a.{suffix}", 8)), RED)).max() <= 4


def test_pillows_own_limit_is_lifted_and_put_back(tmp_path, monkeypatch, photo):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # its own is 89 million
    photo.save(tmp_path / "a.png")  # 1536
    with pytest.warns(Image.DecompressionBombWarning), opened(tmp_path / "a.png", 8):
        pass
    with any_size(), warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode(tmp_path / "a.png", 8).shape == (3, 8, 8)
    assert Image.MAX_IMAGE_PIXELS == 1000


def test_pillows_own_limit_stays_lifted_while_another_thread_is_within(monkeypatch):
    """The limit is the process's, and blocks of threads overlap in any order."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    one, two = any_size(), any_size()
    one.__enter__()
    two.__enter__()
    one.__exit__(None, None, None)
    assert Image.MAX_IMAGE_PIXELS is None
    two.__exit__(None, None, None)
    assert Image.MAX_IMAGE_PIXELS == 1000


def test_more_is_left_out_before_it_is_decoded(tmp_path):
    def chunk(kind: bytes, data: bytes) -> bytes:
        import zlib

        return len(data).to_bytes(4) + kind + data + zlib.crc32(kind + data).to_bytes(4)

    side = int(LARGEST**0.5) + 1
    header = side.to_bytes(4) * 2 + bytes([8, 2, 0, 0, 0])
    (tmp_path / "a.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    )
    with any_size():
        assert reason(tmp_path / "a.png") == "larger than 200 million pixels"


def test_thin_images_do_not_fill_the_memory(tmp_path):
    """Of 8 x 30,000 pixels, the short side at 512 would make the long one 1.9 million: 2.9 GB."""
    Image.new("L", (30_000, 8)).save(tmp_path / "a.png")
    assert reason(tmp_path / "a.png", 512) == "larger than 200 million pixels"
    assert decode(tmp_path / "a.png", 32).shape == (3, 32, 32)


@pytest.mark.parametrize("size", [(1, 1), (7, 300), (300, 7)])
def test_too_small(tmp_path, size):
    Image.new("RGB", size).save(tmp_path / "a.png")
    assert reason(tmp_path / "a.png") == "smaller than 8 pixels"


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "gif", "tif"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.9])
def test_truncated(tmp_path, suffix, share):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, format={"jpg": "JPEG", "tif": "TIFF"}.get(suffix, suffix.upper()))
    data = buffer.getvalue()
    (tmp_path / f"a.{suffix}").write_bytes(data[: int(share * len(data))])
    assert reason(tmp_path / f"a.{suffix}") == "broken"


def test_text_called_an_image(tmp_path):
    (tmp_path / "a.jpg").write_text("not an image")
    assert reason(tmp_path / "a.jpg") == "broken"


def test_other_formats_are_not_opened_under_any_name(tmp_path, photo):
    """Pillow would: and it hands EPS to Ghostscript."""
    photo.save(tmp_path / "a.ppm")
    (tmp_path / "a.ppm").rename(tmp_path / "a.jpg")
    assert reason(tmp_path / "a.jpg") == "broken"
    assert "EPS" not in FORMATS


def test_absent_and_forbidden(tmp_path, photo):
    assert reason(tmp_path / "absent.png") == "not readable"
    photo.save(tmp_path / "a.png")
    (tmp_path / "a.png").chmod(0)
    if os.access(tmp_path / "a.png", os.R_OK):
        pytest.skip("this user may read everything")
    assert reason(tmp_path / "a.png") == "not readable"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.EIO, "Input/output error"), "not readable"),
        (OSError(errno.ESTALE, "Stale file handle"), "not readable"),
        (OSError(errno.EMFILE, "Too many open files"), "not readable"),
        (MemoryError(), "not readable"),
        (OSError(errno.EINVAL, "Invalid argument"), "broken"),  # of an offset before the file's first byte
        (OSError("image file is truncated"), "broken"),
        (EOFError(), "broken"),
    ],
)
def test_what_may_pass_is_no_broken_image(tmp_path, photo, monkeypatch, error, said):
    photo.save(tmp_path / "a.png")

    def fails(image: Image.Image) -> int:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr("gear.data.decode._rgb", fails)
        assert reason(tmp_path / "a.png") == said
    decode(tmp_path / "a.png", 8)


def test_floating_point_is_left_out(tmp_path):
    Image.fromarray(np.ones((16, 16), np.float32)).save(tmp_path / "a.tif")
    assert reason(tmp_path / "a.tif") == "of more than 16 bits"
