"""GPIC's numbers on features given, against the packages of the official toolkit; and what a reference must be."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from prdc import compute_prdc
from scipy.linalg import sqrtm

from gear.data import DataError
from gear.evaluate import gpic as protocol
from gear.evaluate.adm import MeasureError
from gear.evaluate.extract import CHUNK, Stored
from gear.evaluate.gpic import from_file, gpic

D = 6


def stored(features: np.ndarray) -> Stored:
    def read(i: int) -> dict[str, np.ndarray]:
        return {"cls": features[i * CHUNK : (i + 1) * CHUNK]}

    return Stored(len(features), {"cls": features.shape[1]}, read, ["0"] * -(-len(features) // CHUNK))


def normal(n: int, shift: float = 0.0) -> np.ndarray:
    mix = np.random.default_rng(1).normal(size=(D, D))
    return (np.random.normal(size=(n, D)) @ mix + shift).astype(np.float32)


def file(path: Path, embeddings: np.ndarray, **changed: Any) -> Path:
    arrays = {
        "dino_mu": embeddings.mean(0, dtype=np.float64),
        "dino_sigma": np.cov(embeddings, rowvar=False, dtype=np.float64),
        "dino_embeddings": embeddings,
        "key": np.array([f"k{i}" for i in range(len(embeddings))]),
        "tar_idx": np.arange(len(embeddings)),
    }
    np.savez(path, **{name: value for name, value in (arrays | changed).items() if value is not None})
    return path


def test_the_numbers(tmp_path: Path) -> None:
    """FDD by the matrix square root that papers write; neighbours by the package of their authors; MMD over all pairs,
    one by one, of subsets that are the whole."""
    real, fake = normal(300), normal(250, shift=0.5)
    found = gpic(stored(fake), from_file(file(tmp_path / "t.npz", real), D), interval=False).metrics
    root = np.real(np.asarray(sqrtm(np.cov(real.T.astype(np.float64)) @ np.cov(fake.T.astype(np.float64)))))
    mean = np.square(real.mean(0, dtype=np.float64) - fake.mean(0, dtype=np.float64)).sum()
    fdd = mean + np.cov(real.T).trace() + np.cov(fake.T).trace() - 2 * root.trace()
    assert found["fdd"].value == pytest.approx(fdd, rel=1e-5)
    expected = compute_prdc(real_features=real, fake_features=fake, nearest_k=5)
    for name in ("precision", "recall", "density", "coverage"):
        assert found[name].value == pytest.approx(expected[name], abs=1e-9)
    rows = np.random.RandomState(0)
    values = []
    for _ in range(100):
        x, y = (s[rows.choice(len(s), 125, replace=False)].astype(np.float64) for s in (fake, real))
        k = {name: (a @ b.T / D + 1) ** 3 for name, a, b in (("xx", x, x), ("yy", y, y), ("xy", x, y))}
        within = sum((k[name].sum() - k[name].trace()) / (125 * 124) for name in ("xx", "yy"))
        values.append(within - 2 * k["xy"].mean())
    assert found["mmd"].value == pytest.approx(np.mean(values), rel=1e-4)
    assert found["mmd"].n == found["fdd"].n == 250


def test_neighbours_are_sought_among_some_chosen_by_the_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "COMPARED", 60)
    real, fake = normal(200), normal(150, shift=0.3)
    reference = from_file(file(tmp_path / "t.npz", real), D)
    first, again, other = (gpic(stored(fake), reference, seed=seed, interval=False).metrics for seed in (0, 0, 1))
    assert first == again
    assert first["fdd"] == other["fdd"]
    assert any(first[name].value != other[name].value for name in ("precision", "density", "coverage", "recall"))
    assert (first["precision"].n, "k = 5, 60 of the reference") == (60, first["precision"].note)
    random = np.random.default_rng(0)
    some = [np.sort(random.permutation(n)[:60]) for n in (200, 150)]
    expected = compute_prdc(real_features=real[some[0]], fake_features=fake[some[1]], nearest_k=5)
    assert first["coverage"].value == pytest.approx(expected["coverage"], abs=1e-9)


def test_the_same_images_are_0_apart_and_cover_each_other(tmp_path: Path) -> None:
    real = normal(100)
    found = gpic(stored(real), from_file(file(tmp_path / "t.npz", real), D)).metrics
    assert found["fdd"].value < 1e-5
    assert [found[name].value for name in ("precision", "recall", "coverage")] == [1, 1, 1]
    assert found["fdd"].interval is not None


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"dino_sigma": None}, r"lacks dino_sigma: .* test_stats\.npz; this holds dino_mu, dino_embeddings"),
        ({"dino_mu": np.zeros(4)}, r"dino_mu must be real numbers of shape \(6,\).*it is float64 of shape \(4,\)"),
        ({"dino_embeddings": np.zeros((9, D), np.int64)}, r"dino_embeddings must be real numbers .* it is int64"),
        ({"dino_sigma": np.full((D, D), np.nan)}, "dino_sigma holds NaN"),
    ],
)
def test_what_is_no_reference(changed: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        from_file(file(tmp_path / "t.npz", normal(20), **changed), D)


def test_a_file_that_is_damaged(tmp_path: Path) -> None:
    path = file(tmp_path / "t.npz", normal(200))
    data = bytearray(path.read_bytes())
    at = data.find(b"dino_embeddings.npy") + 400
    data[at : at + 8] = b"\xff" * 8
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"not a whole \.npz file"):
        from_file(path, D)
    path.write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"not a whole \.npz file"):
        from_file(path, D)


def test_moments_of_other_images_are_told(tmp_path: Path) -> None:
    reference = from_file(file(tmp_path / "t.npz", normal(50), dino_mu=np.full(D, 9.0)), D)
    assert "standard deviations from the mean of dino_embeddings" in reference.warnings[0]
    assert from_file(file(tmp_path / "u.npz", normal(50)), D).warnings == []


def test_what_cannot_be_measured(tmp_path: Path) -> None:
    reference = from_file(file(tmp_path / "t.npz", normal(50)), D)
    with pytest.raises(MeasureError, match="more than 5 images in each set; there are 5 samples, 50 in the reference"):
        gpic(stored(normal(5)), reference)
    with pytest.raises(MeasureError, match="all 9 samples are the same image"):
        gpic(stored(np.ones((9, D), np.float32)), reference)
    few = gpic(stored(normal(6)), reference, interval=False)
    assert any("no more than the 6 dimensions" in line for line in few.warnings)
    assert torch.isfinite(torch.tensor([m.value for m in few.metrics.values()])).all()
