"""References: ADM's own file, or any images; refused before anything is sampled."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from gear.data import DataError
from gear.evaluate import frechet, reference
from gear.evaluate.reference import MOMENTS, measured, opened
from gear.store import cache
from gear.store.packages import sha256

POOL, SPATIAL = 5, 4


class Detector(nn.Module):
    """The first values of an image."""

    name = "first"

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.1), requires_grad=False)
        self.channels = {"pool": POOL, "spatial": SPATIAL}
        self.seen = 0

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        self.seen += len(pixels)
        x = pixels.float().flatten(1) * self.scale
        return {"pool": x[:, :POOL], "spatial": x[:, POOL : POOL + SPATIAL]}

    def about(self) -> dict[str, Any]:
        return {"name": self.name}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Moments of the detector above, and a cache of the test's own."""
    monkeypatch.setattr(reference, "SIZES", {"pool": POOL, "spatial": SPATIAL})
    monkeypatch.setenv("GEAR_CACHE", str(tmp_path / "cache"))
    yield
    shutil.rmtree(tmp_path / "cache", ignore_errors=True)


def pixels(n: int = 20, side: int = 8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, side, side, 3), dtype=np.uint8)


def arrays() -> dict[str, Any]:
    random = np.random.default_rng(1)
    found: dict[str, Any] = {"arr_0": pixels()}
    for name, (mean, covariance) in MOMENTS.items():
        size = {"pool": POOL, "spatial": SPATIAL}[name]
        root = random.standard_normal((size, size))
        found |= {mean: random.standard_normal(size).astype(np.float32), covariance: root @ root.T}
    return found


def test_an_adm_file_gives_its_moments_and_the_features_of_its_images(tmp_path: Path):
    path, given = tmp_path / "adm.npz", arrays()
    np.savez(path, **given)
    found = measured(opened(path, (8, 8)), Detector())
    for name, (mean, covariance) in MOMENTS.items():
        assert np.array_equal(found.moments[name].mean.numpy(), given[mean].astype(np.float64))
        assert np.array_equal(found.moments[name].covariance.numpy(), given[covariance])
    wanted = given["arr_0"].transpose(0, 3, 1, 2).reshape(20, -1)[:, :POOL].astype(np.float32) * np.float32(0.1)
    np.testing.assert_allclose(found.compared, wanted)
    assert found.about["sha256"] == sha256(path)
    assert (found.about["n"], found.about["compared"], found.about["moments"]) == (20, 20, "as in the file")


def test_samples_of_another_program_are_a_reference_of_images(tmp_path: Path):
    np.savez(tmp_path / "x.npz", pixels())
    detector = Detector()
    found = measured(opened(tmp_path / "x.npz", (8, 8)), detector)
    features = detector(torch.from_numpy(pixels().transpose(0, 3, 1, 2).copy()))
    for name in MOMENTS:
        wanted = frechet.gaussian(features[name])
        torch.testing.assert_close(found.moments[name].mean, wanted.mean)
        torch.testing.assert_close(found.moments[name].covariance, wanted.covariance)
    assert found.about["moments"] == "its images'"


def test_a_folder_is_brought_to_the_resolution_of_the_samples_and_kept(tmp_path: Path):
    (tmp_path / "images").mkdir()
    for i, image in enumerate(pixels(side=16)):
        Image.fromarray(image).save(tmp_path / "images" / f"{i:02d}.png")
    first, second = Detector(), Detector()
    before = measured(opened(tmp_path / "images", (8, 8)), first)
    again = measured(opened(tmp_path / "images", (8, 8)), second)
    assert (first.seen, second.seen) == (20, 0)
    assert np.array_equal(before.compared, again.compared)
    assert before.about["pixels_sha256"] == again.about["pixels_sha256"]
    assert before.about["resolution"] == [8, 8]
    assert (cache.directory() / "features").is_dir()
    assert measured(opened(tmp_path / "images", (8, 8), n=7), Detector()).about["n"] == 7


def test_fewer_images_of_class_folders_are_of_all_classes(tmp_path: Path):
    """And have features of their own, which are not those of the first."""
    for i, image in enumerate(pixels()):
        (tmp_path / "images" / f"{i // 5}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(tmp_path / "images" / f"{i // 5}" / f"{i:02d}.png")
    detector = Detector()
    measured(opened(tmp_path / "images", (8, 8)), detector)
    found = measured(opened(tmp_path / "images", (8, 8), n=8), detector)
    rows = [0, 1, 5, 6, 10, 11, 15, 16]
    wanted = pixels()[rows].transpose(0, 3, 1, 2).reshape(8, -1)[:, :POOL].astype(np.float32) * np.float32(0.1)
    np.testing.assert_allclose(found.compared, wanted)
    assert (detector.seen, found.moments["pool"].n) == (20 + 8, 8)
    assert (found.about["n"], found.about["part_of"], found.about["compared"]) == (8, 20, 8)
    again = measured(opened(tmp_path / "images", (8, 8), n=8), detector)
    assert detector.seen == 20 + 8
    assert np.array_equal(again.compared, found.compared)


def test_images_to_compare_are_chosen_by_the_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(reference, "COMPARED", 6)
    np.savez(tmp_path / "x.npz", pixels())
    one, same, other = (measured(opened(tmp_path / "x.npz", (8, 8)), Detector(), seed=s).compared for s in (0, 0, 1))
    assert one.shape == (6, POOL)
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


# ------------------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize("key", ["mu", "sigma", "mu_s", "sigma_s"])
def test_a_missing_key_is_named(key: str, tmp_path: Path):
    given = arrays()
    del given[key]
    np.savez(tmp_path / "x.npz", **given)
    with pytest.raises(DataError, match=rf"lacks {key}: an ADM reference has arr_0, mu, sigma, mu_s, sigma_s"):
        opened(tmp_path / "x.npz", (8, 8))


def test_statistics_without_images_are_refused(tmp_path: Path):
    given = arrays()
    del given["arr_0"]
    np.savez(tmp_path / "x.npz", **given)
    with pytest.raises(DataError, match=r"has no arr_0, .*it holds mu, sigma"):
        opened(tmp_path / "x.npz", (8, 8))


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("mu", np.zeros(7), r"mu must be numbers of shape \(5,\).*shape \(7,\)"),
        ("sigma", np.zeros(5), r"sigma must be numbers of shape \(5, 5\)"),
        ("mu_s", np.zeros(4, np.int64), "it is int64"),
        ("sigma_s", np.full((4, 4), np.nan), "sigma_s holds NaN"),
    ],
)
def test_moments_of_another_kind_are_refused(key: str, value: Any, said: str, tmp_path: Path):
    np.savez(tmp_path / "x.npz", **arrays() | {key: value})
    with pytest.raises(DataError, match=said):
        opened(tmp_path / "x.npz", (8, 8))


def test_another_resolution_must_be_meant(tmp_path: Path):
    np.savez(tmp_path / "x.npz", **arrays())
    with pytest.raises(DataError, match=r"is of 8 x 8 px and the samples of 32 x 16 px.*--other-resolution"):
        opened(tmp_path / "x.npz", (16, 32))
    assert opened(tmp_path / "x.npz", (16, 32), other_resolution=True).moments is not None


def test_too_many_images_are_not_there(tmp_path: Path):
    np.savez(tmp_path / "x.npz", pixels())
    with pytest.raises(DataError, match="has 20 images: as a reference take from 4"):
        opened(tmp_path / "x.npz", (8, 8), n=21)
    with pytest.raises(DataError, match="a reference must be a folder"):
        opened(tmp_path / "gone", (8, 8))


def test_a_handful_of_images_is_no_reference(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", np.full((3, 16, 16, 3), 200, np.uint8))
    with pytest.raises(DataError, match="has 3 images: a reference needs at least 4"):
        reference.opened(tmp_path / "x.npz", (16, 16))
