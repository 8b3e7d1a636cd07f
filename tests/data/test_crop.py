import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import CenterCrop, InterpolationMode, Resize
from torchvision.transforms.functional import crop

from gear.data.ahead import Decoder, Request
from gear.data.crop import Cropping, squares
from gear.data.decode import decode

MODES = {"bicubic": InterpolationMode.BICUBIC, "bilinear": InterpolationMode.BILINEAR}


def photograph(width: int, height: int) -> Image.Image:
    """Edges, slopes and noise: everything on which two filters, or the same one half a pixel aside, differ."""
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    noise = np.random.default_rng(width * height).normal(0, 0.1, (height, width, 3))
    disc = (np.hypot(x - 0.6, y - 0.4) < 0.3)[..., None]
    return Image.fromarray(np.uint8(255 * np.clip(np.stack([x, y, x * y], -1) * (1 - disc / 2) + noise, 0, 1)))


@pytest.fixture(params=["jpg", "png"])
def suffix(request) -> str:
    return request.param


def opened(path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


SIZES = [(100, 75), (75, 100), (101, 76), (61, 87), (64, 64), (33, 200), (500, 375), (20, 31)]  # the last is enlarged


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("resolution", [32, 33])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_middle_is_torchvisions_bit_for_bit(tmp_path, size, resolution, interpolation, suffix):
    photograph(*size).save(tmp_path / f"a.{suffix}", quality=90)
    resize = Resize(resolution, MODES[interpolation], antialias=True)
    want = np.asarray(CenterCrop(resolution)(resize(opened(tmp_path / f"a.{suffix}")))).transpose(2, 0, 1)
    assert np.array_equal(decode(tmp_path / f"a.{suffix}", resolution, interpolation), want)


@pytest.mark.parametrize("resolution", [256, 384, 512])
def test_the_resolutions_of_the_paper(tmp_path, resolution):
    """A photograph of ImageNet's usual size, which 384 and 512 enlarge."""
    photograph(500, 375).save(tmp_path / "a.jpg", quality=95)
    resize = Resize(resolution, InterpolationMode.BICUBIC, antialias=True)
    want = np.asarray(CenterCrop(resolution)(resize(opened(tmp_path / "a.jpg")))).transpose(2, 0, 1)
    assert np.array_equal(decode(tmp_path / "a.jpg", resolution), want)


@pytest.mark.parametrize("flipped", [False, True])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_random_crops_are_torchvisions_at_the_same_place(tmp_path, size, flipped, suffix):
    file, places = tmp_path / f"a.{suffix}", np.random.default_rng(0).random((1, 3, 2))
    photograph(*size).save(file, quality=90)
    request = Request(np.array([7]), [str(file)], places, np.array([flipped]))
    pixels = Decoder(32, "bicubic")[request].pixels[0].numpy()
    small = Resize(32, InterpolationMode.BICUBIC, antialias=True)(opened(file))
    for got, (across, down) in zip(pixels, places[0], strict=True):
        left, top = int(across * (small.width - 32 + 1)), int(down * (small.height - 32 + 1))
        want = np.asarray(crop(small, top, left, 32, 32)).transpose(2, 0, 1)
        assert np.array_equal(got, want[:, :, ::-1] if flipped else want)


def test_large_jpegs_are_decoded_in_full(tmp_path):
    """Quick decoding at 1/8, which Pillow offers, gives other pixels."""
    photograph(1024, 768).save(tmp_path / "a.jpg", quality=90)
    want = np.asarray(Resize(32, InterpolationMode.BICUBIC, antialias=True)(opened(tmp_path / "a.jpg")))[:, 5:37]
    assert np.array_equal(decode(tmp_path / "a.jpg", 32), want.transpose(2, 0, 1))


def test_places_reach_from_edge_to_edge():
    """All offsets are equally likely, the first and the last too; the short side has one."""
    image = Image.fromarray(np.tile(np.arange(8, dtype=np.uint8)[None, :, None], (4, 1, 3)))
    places = np.stack([np.linspace(0, 1, 500, endpoint=False), np.full(500, 1 - 2**-53)], 1)
    lefts = squares(image, 4, places=places)[:, 0, 0, 0]
    assert np.bincount(lefts).tolist() == [100] * 5
    assert squares(image, 4, places=np.full((1, 2), 1 - 2**-53))[0, 0, 0, 0] == 4


def test_fixed_places_depend_on_seed_name_and_view_alone():
    cropping = Cropping(32, "random", views=10)
    assert (
        cropping.place("n01440764/a.JPEG", 3).tolist()
        == Cropping(64, "random", views=4).place("n01440764/a.JPEG", 3).tolist()
    )
    places = {
        tuple(Cropping(8, "random", seed=s).place(n, v)) for s in (0, 1) for n in ("a", "b\udcff") for v in (0, 1)
    }
    assert len(places) == 8
    many = np.array([cropping.place(str(i), 0) for i in range(4000)])
    assert np.abs(np.sort(many, axis=0) - np.linspace(0, 1, 4000)[:, None]).max() < 0.03  # uniform
    assert cropping.place("a", 0).tolist() == [0.3948841942241401, 0.7753740400438502]  # the same in every version


@pytest.mark.parametrize(
    "wrong",
    [{"resolution": 0}, {"resolution": 8, "views": 3}, {"resolution": 8, "crop": "random", "views": 0}],
    ids=str,
)
def test_impossible_cropping(wrong):
    with pytest.raises(ValueError, match="must be at least 1, and views needs crop"):
        Cropping(**wrong)
