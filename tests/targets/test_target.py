"""Standardisation against the mean and variance taken in one piece, spatial normalisation against loops."""

import pytest
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from gear.targets import SpatiallyNormalised, Standardised, Target, fit_standardisation
from gear.targets.target import resized


class Means(nn.Module):
    """A target of four channels: the mean of each colour over each cell of the grid, far from 0, and a constant."""

    name, channels = "means", 4

    def features(self, pixels: UInt8[Tensor, "B 3 H W"], grid: tuple[int, int]) -> Float[Tensor, "B N C"]:
        cells = nn.functional.adaptive_avg_pool2d(pixels.float(), grid).flatten(2).mT
        return torch.cat([cells * torch.tensor([1.0, 0.01, 30.0]) + 1000, torch.full_like(cells[..., :1], 7)], dim=-1)


@pytest.mark.parametrize("batch", [1, 4, 7, 64])
def test_equals_the_statistics_in_one_piece(batch: int) -> None:
    target: Target = Means()
    pixels = torch.randint(0, 256, (7, 3, 12, 8), dtype=torch.uint8)
    fitted = fit_standardisation(target, pixels, (3, 2), batch)
    assert (fitted.name, fitted.channels) == ("means", 4)
    f = target.features(pixels, (3, 2)).double()
    mean, std = f.mean((0, 1)), f.std((0, 1), correction=0)
    torch.testing.assert_close(fitted.mean.double(), mean, rtol=1e-6, atol=0)
    torch.testing.assert_close(fitted.std.double()[:3], std[:3], rtol=1e-6, atol=0)
    expected = (f[..., :3] - mean[:3]) / std[:3]
    torch.testing.assert_close(fitted.features(pixels, (3, 2))[..., :3].double(), expected, rtol=1e-3, atol=1e-3)


def test_a_constant_channel_becomes_zero() -> None:
    pixels = torch.randint(0, 256, (7, 3, 12, 8), dtype=torch.uint8)
    assert not fit_standardisation(Means(), pixels, (3, 2)).features(pixels, (3, 2))[..., 3].any()


def test_so_does_one_that_varies_only_later() -> None:
    """As one that a ReLU had at zero in all images it was fitted to."""
    grey, later = torch.full((7, 3, 12, 8), 9, dtype=torch.uint8), torch.randint(0, 256, (2, 3, 12, 8)).byte()
    assert not fit_standardisation(Means(), grey, (3, 2)).features(later, (3, 2)).any()


def test_a_run_can_keep_it() -> None:
    pixels = torch.randint(0, 256, (7, 3, 12, 8), dtype=torch.uint8)
    fitted = fit_standardisation(Means(), pixels, (3, 2))
    again = Standardised(Means(), torch.zeros(4), torch.ones(4))
    again.load_state_dict(fitted.state_dict())
    assert torch.equal(again.features(pixels, (3, 2)), fitted.features(pixels, (3, 2)))


@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0])
def test_spatial_normalisation_equals_the_twin(alpha: float) -> None:
    """For each image and channel by itself; the standard deviation is the one that divides by N - 1."""
    target, pixels = Means(), torch.randint(0, 256, (3, 3, 12, 8), dtype=torch.uint8)
    normalised = SpatiallyNormalised(target, alpha)
    assert (normalised.name, normalised.channels, isinstance(normalised, Target)) == ("means", 4, True)
    f, got = target.features(pixels, (3, 2)).double(), normalised.features(pixels, (3, 2)).double()
    for image in range(3):
        for channel in range(3):
            values = f[image, :, channel].tolist()
            moved = [value - alpha * sum(values) / 6 for value in values]
            mean = sum(moved) / 6
            std = (sum((value - mean) ** 2 for value in moved) / 5) ** 0.5
            expected = torch.tensor([value / (std + 1e-6) for value in moved]).double()
            torch.testing.assert_close(got[image, :, channel], expected, rtol=1e-3, atol=1e-3)


def test_resized_only_where_it_has_to_be() -> None:
    pixels = torch.randint(0, 256, (1, 3, 12, 8), dtype=torch.uint8)
    assert torch.equal(resized(pixels, (12, 8)), pixels.float())
    smaller = resized(pixels, (6, 8)).double()
    expected = nn.functional.interpolate(pixels.double(), (6, 8), mode="bicubic", antialias=True).clamp(0, 255)
    torch.testing.assert_close(smaller, expected, rtol=0, atol=1e-3)
