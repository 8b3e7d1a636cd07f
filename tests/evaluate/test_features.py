"""The pooled features: those the shipped network classifies by, in float32, at one size."""

import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor

from gear import weights
from gear.evaluate.features import PooledEfficientNet
from gear.targets.efficientnet import network_input


@pytest.fixture(scope="module")
def pooled() -> PooledEfficientNet:
    return PooledEfficientNet(weights.path("efficientnet_lite1"))


def traffic_light(side: int) -> Tensor:
    image = Image.new("RGB", (256, 256), (120, 170, 220))
    draw = ImageDraw.Draw(image)
    draw.rounded_rectangle((88, 30, 168, 226), 16, (25, 25, 25))
    for y, colour in ((64, (230, 30, 20)), (128, (240, 200, 20)), (192, (20, 200, 60))):
        draw.ellipse((102, y - 26, 154, y + 26), colour)
    resized = image.resize((side, side), Image.Resampling.BICUBIC)
    return (
        torch.frombuffer(bytearray(resized.tobytes()), dtype=torch.uint8).reshape(1, side, side, 3).permute(0, 3, 1, 2)
    )


def test_the_classifier_reads_them(pooled: PooledEfficientNet) -> None:
    pixels = traffic_light(256)
    f = pooled(pixels)
    assert f.shape == (1, pooled.channels) == (1, 1280)
    assert f.min() == 0 < f.max() <= 6  # means of ReLU6
    logits = pooled.net(network_input(pixels, (128, 128)))
    assert logits.argmax().item() == 920
    torch.testing.assert_close(pooled.net.classifier(f), logits)


def test_the_size_of_the_image_matters_little(pooled: PooledEfficientNet) -> None:
    """Read at 128 px whatever comes: the same picture at two sizes is closer than noise."""
    noise = torch.randint(0, 256, (1, 3, 256, 256), dtype=torch.uint8)
    large, small, other = pooled(traffic_light(256)), pooled(traffic_light(96)), pooled(noise)
    assert F.cosine_similarity(large, small) > 0.9 > F.cosine_similarity(large, other)


def test_float32_under_autocast(pooled: PooledEfficientNet) -> None:
    pixels = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    outside = pooled.train()(pixels)
    with torch.autocast("cpu", torch.bfloat16):
        inside = pooled(pixels)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, outside)
    assert not inside.requires_grad
