"""Moran's I and the share of high frequencies: maps whose values are known by hand, and twins that loop."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from gear.probe import spatial
from gear.probe.spatial import RADIUS, high_frequency_share, low_frequencies, morans_i


def as_map(x: Tensor) -> Tensor:
    """One channel of one image."""
    return x.flatten()[None, :, None]


def coordinates(h: int, w: int) -> tuple[Tensor, Tensor]:
    y, x = torch.meshgrid(torch.arange(h).double(), torch.arange(w).double(), indexing="ij")
    return y, x


def twin_moran(f: Tensor, h: int, w: int) -> float:
    """One image; the definition, with the weight of every pair."""
    values = []
    for x in f.double().T.tolist():
        mean = sum(x) / len(x)
        joined = weights = 0.0
        for i in range(h * w):
            for j in range(h * w):
                apart = abs(i // w - j // w) + abs(i % w - j % w)
                joined += (apart == 1) * (x[i] - mean) * (x[j] - mean)
                weights += apart == 1
        values.append(h * w / weights * joined / sum((v - mean) ** 2 for v in x))
    return sum(values) / len(values)


def twin_high(f: Tensor, h: int, w: int, radius: float) -> float:
    """One image, by numpy's transform."""
    high = total = 0.0
    for channel in f.double().T.numpy():
        power = np.abs(np.fft.fft2(channel.reshape(h, w))) ** 2
        for v in range(h):
            for u in range(w):
                r = math.hypot(min(v, h - v) / h, min(u, w - u) / w)
                high += power[v, u] * (r > radius + 1e-9)
                total += power[v, u] * (r > 0)
    return high / total


@pytest.mark.parametrize("grid", [(4, 4), (3, 5), (1, 6), (8, 8)])
def test_equal_their_twins(grid):
    h, w = grid
    f = torch.randn(3, h * w, 4, dtype=torch.float64) + 5
    f[1] = f[1].cumsum(0)  # smooth
    for i, (moran, high) in enumerate(zip(morans_i(f, grid), high_frequency_share(f, grid), strict=True)):
        assert float(moran) == pytest.approx(twin_moran(f[i], h, w), abs=1e-12)
        assert float(high) == pytest.approx(twin_high(f[i], h, w, RADIUS), abs=1e-12)
    torch.testing.assert_close(morans_i(f.float(), grid).double(), morans_i(f, grid), rtol=0, atol=1e-4)
    torch.testing.assert_close(
        high_frequency_share(f.float(), grid).double(), high_frequency_share(f, grid), rtol=0, atol=1e-4
    )


@pytest.mark.parametrize("radius", [0.1, 0.3, 0.45])
def test_other_radii(radius):
    f = torch.randn(1, 60, 2, dtype=torch.float64)
    assert float(high_frequency_share(f, (6, 10), radius)) == pytest.approx(twin_high(f[0], 6, 10, radius), abs=1e-12)


@pytest.mark.parametrize("grid", [(16, 16), (5, 8)])
def test_a_checkerboard(grid):
    """Every neighbour is the opposite, if its mean is 0: -1. All its energy is at (1/2, 1/2) on an even grid."""
    y, x = coordinates(*grid)
    f = as_map((y + x) % 2)
    assert float(morans_i(f, grid)) == pytest.approx(-1, abs=1e-12)
    if grid == (16, 16):
        assert float(high_frequency_share(f, grid)) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize(("h", "w"), [(16, 16), (4, 7), (1, 5)])
def test_a_constant_gradient(h, w):
    """x = j: with E = h (w-1) + w (h-1) edges, I = 1 - 2 h / E, since a row's products of neighbours sum to its squares
    less (w^2 - 1) / 4, and w (w^2 - 1) / 12 are the squares."""
    _, x = coordinates(h, w)
    edges = h * (w - 1) + w * (h - 1)
    assert float(morans_i(as_map(3 * x - 7), (h, w))) == pytest.approx(1 - 2 * h / edges, abs=1e-12)


@pytest.mark.parametrize(
    ("v", "u", "high"), [(0, 1, 0), (4, 0, 0), (3, 2, 0), (0, 5, 1), (8, 0, 1), (3, 3, 1), (7, 8, 1), (-2, 3, 0)]
)
def test_a_single_wave(v, u, high):
    """v and u waves along the axes of a 16 x 16 grid; up to 4 together are low. The mean does not count."""
    y, x = coordinates(16, 16)
    f = as_map((2 * math.pi * (v * y + u * x) / 16 + 0.3).cos() + 10)
    assert float(high_frequency_share(f, (16, 16))) == pytest.approx(high, abs=1e-12)
    in_float32 = float(high_frequency_share(f.float(), (16, 16)))
    assert in_float32 == pytest.approx(high, abs=1e-5)
    assert 0 <= in_float32 <= 1


def test_a_mixture_of_waves():
    """Energies 9 and 1, in two channels: 1 / 10 of it is high."""
    _, x = coordinates(16, 16)
    low, high = (3 * (2 * math.pi * x / 16).cos(), (2 * math.pi * 6 * x / 16).sin())
    both = torch.stack([low.flatten(), high.flatten()], 1)[None]
    assert float(high_frequency_share(as_map(low + high), (16, 16))) == pytest.approx(0.1)
    assert float(high_frequency_share(both, (16, 16))) == pytest.approx(0.1)


def test_the_basis_is_orthonormal():
    low = low_frequencies((16, 16), RADIUS)
    assert low.shape == (48, 256)
    torch.testing.assert_close(low @ low.T, torch.eye(48, dtype=torch.float64))
    assert float(low.sum(1).abs().max()) < 1e-12  # no mean


def test_noise():
    f = torch.randn(200, 256, 16)
    assert float(morans_i(f, (16, 16)).mean()) == pytest.approx(-1 / 255, abs=0.003)
    assert float(high_frequency_share(f, (16, 16)).mean()) == pytest.approx(207 / 255, abs=0.003)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e4])
def test_constant_maps_have_no_value_and_constant_channels_do_not_count(value):
    f = torch.randn(2, 16, 3)
    alone = morans_i(f[1:], (4, 4)), high_frequency_share(f[1:], (4, 4))
    f[0] = value
    moran, high = morans_i(f, (4, 4)), high_frequency_share(f, (4, 4))
    assert moran.isnan().tolist() == high.isnan().tolist() == [True, False]
    beside = torch.cat([f[1:], torch.full((1, 16, 2), value)], 2)
    torch.testing.assert_close(morans_i(beside, (4, 4)), alone[0])
    torch.testing.assert_close(high_frequency_share(beside, (4, 4)), alone[1])


def test_invariances():
    f = torch.randn(3, 16, 4, dtype=torch.float64)
    scale, mean = torch.rand(4) + 0.5, torch.randn(4)
    torch.testing.assert_close(morans_i(f * scale + mean, (4, 4)), morans_i(f, (4, 4)))
    Q, _ = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64))
    torch.testing.assert_close(high_frequency_share(f @ Q * 3 + 1, (4, 4)), high_frequency_share(f, (4, 4)))


def test_blocks_change_nothing(monkeypatch):
    f = torch.randn(5, 16, 4)
    whole = morans_i(f, (4, 4)), high_frequency_share(f, (4, 4))
    monkeypatch.setattr(spatial, "BLOCK", 130)
    torch.testing.assert_close(morans_i(f, (4, 4)), whole[0])
    torch.testing.assert_close(high_frequency_share(f, (4, 4)), whole[1])


def test_what_cannot_be_measured():
    with pytest.raises(ValueError, match="1 x 1 has none"):
        morans_i(torch.randn(1, 1, 2), (1, 1))
    with pytest.raises(ValueError, match=r"between 0 and 0.5 cycles a token; it is 0.5"):
        high_frequency_share(torch.randn(1, 4, 2), (2, 2), 0.5)
