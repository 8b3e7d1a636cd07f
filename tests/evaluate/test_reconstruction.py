"""PSNR and L1 against numbers worked out by hand and against loops over pixels."""

import math

import pytest
import torch
from torch import Tensor

from gear.evaluate.reconstruction import l1, psnr
from gear.losses import reconstruction


def images(count: int) -> Tensor:
    return torch.randint(0, 256, (count, 3, 6, 5), dtype=torch.uint8)


def test_psnr_by_hand() -> None:
    """Everything off by 5: 20 log10(255 / 5) = 34.15 dB. One value off by 255: 10 log10(3 H W). Black on white: 0."""
    x = torch.full((3, 3, 4, 4), 100, dtype=torch.uint8)
    x_hat = x.clone()
    x_hat[0] = 95  # below, where unsigned differences would wrap around
    x[1], x_hat[1] = 0, 0
    x_hat[1, 2, 3, 3] = 255
    x[2], x_hat[2] = 255, 0
    assert psnr(x_hat, x).tolist() == pytest.approx([34.151404, 10 * math.log10(48), 0.0], abs=1e-6)


def test_psnr_and_l1_equal_loops_over_the_values() -> None:
    x, x_hat = images(4), images(4)
    for i in range(4):
        pairs = list(zip(x_hat[i].flatten().tolist(), x[i].flatten().tolist(), strict=True))
        squared = sum((a / 255 - b / 255) ** 2 for a, b in pairs) / len(pairs)  # scikit-image, data_range 1
        assert psnr(x_hat, x)[i].item() == pytest.approx(10 * math.log10(1 / squared), rel=1e-12)
        assert l1(x_hat, x)[i].item() == pytest.approx(sum(abs(a - b) for a, b in pairs) / len(pairs) / 255, rel=1e-12)


def test_identical_images_count_as_one_level_off_in_one_value() -> None:
    x = images(2) // 2
    x_hat = x.clone()
    x_hat[1, 0, 0, 0] += 1
    same, off = psnr(x_hat, x).tolist()
    assert same == off == pytest.approx(20 * math.log10(255) + 10 * math.log10(3 * 6 * 5))
    assert l1(x, x).tolist() == [0, 0]


def test_l1_is_half_of_the_training_loss() -> None:
    """Which is taken of images in [-1, 1]."""
    x, x_hat = images(3), images(3)
    loss = reconstruction(x_hat.double() / 127.5 - 1, x.double() / 127.5 - 1)
    assert l1(x_hat, x).mean().item() == pytest.approx(loss.item() / 2, rel=1e-12)


def test_no_images_are_no_numbers() -> None:
    assert psnr(images(0), images(0)).shape == (0,)
