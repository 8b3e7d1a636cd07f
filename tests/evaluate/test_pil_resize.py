"""Against Pillow itself, bit for bit."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from gear.evaluate.pil_resize import pil_resize, pil_square


def images(h: int, w: int) -> Tensor:
    """Noise, whose overshoot must be cut off, and a picture of black and white."""
    noise = torch.randint(0, 256, (3, 3, h, w), dtype=torch.uint8)
    noise[2] = 255 * (noise[2] > 127)
    return noise


def pillow(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Across and then down, as one call of it did before Pillow 13 and does for most sizes since."""
    image = Image.fromarray(x.permute(1, 2, 0).numpy())
    resized = image.resize((size[1], image.height), Image.Resampling.BICUBIC)
    resized = resized.resize((size[1], size[0]), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((256, 256), (224, 224)),
        ((64, 64), (224, 224)),
        ((97, 301), (224, 224)),
        ((50, 31), (31, 50)),
        ((33, 40), (33, 80)),
        ((40, 33), (80, 33)),
        ((12, 12), (12, 12)),
        ((500, 3), (2, 7)),
    ],
)
def test_equals_pillow(before: tuple[int, int], after: tuple[int, int]) -> None:
    x = images(*before)
    assert torch.equal(pil_resize(x, after), torch.stack([pillow(one, after) for one in x]))


@pytest.mark.parametrize("side", [64, 256, 512])
def test_square_images_equal_one_call_of_any_pillow(side: int) -> None:
    for x in images(side, side):
        once = Image.fromarray(x.permute(1, 2, 0).numpy()).resize((224, 224), Image.Resampling.BICUBIC)
        assert torch.equal(pil_resize(x[None], (224, 224))[0], torch.from_numpy(np.array(once)).permute(2, 0, 1))


@pytest.mark.parametrize("size", [(60, 60), (60, 91), (101, 60), (45, 30)])
def test_the_square_in_the_middle_is_torchvisions(size: tuple[int, int]) -> None:
    from torchvision.transforms import v2

    transform = v2.Compose([v2.Resize(32, interpolation=v2.InterpolationMode.BICUBIC), v2.CenterCrop(32)])
    for x in images(*size):
        square = transform(Image.fromarray(x.permute(1, 2, 0).numpy()))
        assert torch.equal(pil_square(x[None], 32)[0], torch.from_numpy(np.array(square)).permute(2, 0, 1))
