"""PSNR and L1 by hand and against loops over pixels, SSIM against scikit-image, LPIPS against its package."""

import math
import warnings

import lpips as package
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from skimage.metrics import structural_similarity
from torch import Tensor

from gear import data, weights
from gear.evaluate import pairs
from gear.evaluate.pairs import MeasureError, compared, compared_all, lpips
from gear.evaluate.reconstruction import l1, psnr
from gear.evaluate.similarity import ssim, ssim_gaussian
from gear.losses import reconstruction
from gear.tokenizer.perceptual import Perceptual


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


@pytest.fixture(scope="module")
def pictures() -> Tensor:
    """Eight of the built-in images, 64 px."""
    return torch.from_numpy(np.array(data.load("builtin", 64).pixels[:800:100]))


@pytest.fixture(scope="module")
def alex() -> Perceptual:
    return Perceptual("alex", weights.path("lpips-alex"))


def noisy(x: Tensor, levels: float) -> Tensor:
    return (x + levels * torch.randn(x.shape)).round().clamp(0, 255).to(torch.uint8)


@pytest.mark.parametrize("size", [(64, 64), (7, 30), (11, 12)], ids=str)
def test_ssim_equals_scikit_image(pictures: Tensor, size: tuple[int, int]) -> None:
    """Of the same pixels in [0, 1]; as it is by default, and as it says Wang et al. are matched."""
    x = pictures[..., : size[0], : size[1]]
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    for x_hat in (noisy(x, 20), 255 - x, x // 2):
        for ours, how in ((ssim, {}), (ssim_gaussian, options)):
            if ours is ssim_gaussian and min(size) < 11:
                continue
            theirs = [
                structural_similarity(a.numpy() / 255, b.numpy() / 255, data_range=1, channel_axis=0, **how)
                for a, b in zip(x_hat, x, strict=True)
            ]
            torch.testing.assert_close(ours(x_hat, x), torch.tensor(theirs).double(), rtol=0, atol=1e-12)


def test_ssim_equals_a_loop_over_windows() -> None:
    """Wang et al. 2004, eq. 13, with the covariances of the sample: 7 x 7 pixels, one window after another."""
    x, x_hat = images(1)[..., :5].repeat(1, 1, 2, 2), images(1)[..., :5].repeat(1, 1, 2, 2)
    values = []
    for c in range(3):
        for i in range(x.shape[2] - 6):
            for j in range(x.shape[3] - 6):
                a, b = (t[0, c, i : i + 7, j : j + 7].double().flatten() / 255 for t in (x_hat, x))
                (v_a, v), (_, v_b) = torch.cov(torch.stack([a, b])).tolist()
                m_a, m_b = a.mean().item(), b.mean().item()
                luminance = (2 * m_a * m_b + 0.01**2) / (m_a**2 + m_b**2 + 0.01**2)
                values.append(luminance * (2 * v + 0.03**2) / (v_a + v_b + 0.03**2))
    assert ssim(x_hat, x).item() == pytest.approx(sum(values) / len(values), rel=1e-10)


def test_the_two_differ(pictures: Tensor) -> None:
    x_hat = noisy(pictures, 10)
    assert (ssim(x_hat, pictures) - ssim_gaussian(x_hat, pictures)).abs().min() > 1e-3
    assert ssim(pictures, pictures).tolist() == ssim_gaussian(pictures, pictures).tolist() == [1.0] * 8


def test_lpips_is_the_packages(pictures: Tensor, alex: Perceptual) -> None:
    """Its own network with the same numbers, one pair at a time: a batch has no say in it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = package.LPIPS(net="alex", pretrained=False, pnet_rand=True, verbose=False).eval()
    theirs.load_state_dict(alex.lpips.state_dict())
    x_hat = noisy(pictures, 20)
    with torch.no_grad():
        expected = [theirs(a[None] / 255, b[None] / 255, normalize=True) for a, b in zip(x_hat, pictures, strict=True)]
    torch.testing.assert_close(lpips(alex, x_hat, pictures), torch.cat(expected).flatten().double(), rtol=1e-4, atol=0)
    assert lpips(alex, pictures, pictures).tolist() == [0] * 8


def test_ladders(pictures: Tensor, alex: Perceptual) -> None:
    """The more blur or noise, the worse by every measure."""
    x = pictures

    def blurred(size: int) -> Tensor:
        padded = F.pad(x.float(), [size // 2] * 4, mode="reflect")
        return F.avg_pool2d(padded, size, stride=1).round().to(torch.uint8)

    for ladder in ([blurred(s) for s in (1, 3, 5, 9)], [noisy(x, s) for s in (0, 4, 12, 40)]):
        steps = [compared_all([(x_hat, x)], alex) for x_hat in ladder]
        for name in pairs.VALUES:
            means = [step[name].mean().item() for step in steps]
            assert means == sorted(means, reverse=name in ("psnr", "ssim", "ssim_gaussian")), name
            assert len(set(means)) == len(means), name


def test_every_image_counts_once_and_alike(pictures: Tensor, alex: Perceptual) -> None:
    """In batches of 3, 3 and 2; and without a network, without lpips."""
    x_hat = noisy(pictures, 20)
    batches = zip(x_hat.split(3), pictures.split(3), strict=True)
    found, whole = compared_all(batches, alex), compared(x_hat, pictures, alex)
    assert list(found) == list(pairs.VALUES)
    for name, values in found.items():
        torch.testing.assert_close(values, whole[name], rtol=1e-4, atol=1e-7)
    assert list(compared(x_hat, pictures)) == [*pairs.VALUES[:-1]]
    with pytest.raises(ValueError, match="no image came"):
        compared_all([])


def test_images_too_small_for_a_window() -> None:
    x = torch.zeros(1, 3, 10, 64, dtype=torch.uint8)
    assert ssim(x, x).tolist() == [1]
    with pytest.raises(ValueError, match="at least 11 x 11 px; they are 10 x 64"):
        ssim_gaussian(x, x)
    with pytest.raises(ValueError, match="at least 7 x 7 px; they are 6 x 64"):
        ssim(x[..., :6, :], x[..., :6, :])
    with pytest.raises(MeasureError, match="at least 11 px; they are 10 x 64"):
        pairs.require(4, (10, 64))
    with pytest.raises(MeasureError, match="at least 4 images, and means something with 50,000; 3 came"):
        pairs.require(3, (64, 64))


def test_lpips_is_left_out_where_it_cannot_be_had() -> None:
    trunk, said = pairs.perceptual("alex", (16, 64))
    assert trunk is None
    assert said == ["lpips is left out: over alex it needs images of at least 31 px."]
    trunk, (said,) = pairs.perceptual("vgg", (64, 64))
    assert trunk is None
    assert "gear fetch lpips-vgg" in said
