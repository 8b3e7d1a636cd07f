"""Precision, recall, density, coverage against loops over images, torch-fidelity and the package of their authors."""

import contextlib
import io
import time

import numpy as np
import pytest
import torch
from prdc import compute_prdc
from torch_fidelity.metric_prc import prc_features_to_metric

from gear.evaluate import neighbours
from gear.evaluate.neighbours import NeighbourError, Prdc, PrecisionRecall, prdc, precision_recall


def features(n: int, channels: int = 8, scale: float = 1.0, shift: float = 0.0) -> np.ndarray:
    return (np.random.randn(n, channels) * scale + shift).astype(np.float32)


def distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """By differences, which do not cancel."""
    return np.array([[np.square(a.astype(np.float64) - b).sum() for b in y] for a in x])


def twin(real: np.ndarray, fake: np.ndarray, k: int) -> tuple[PrecisionRecall, Prdc]:
    """Image by image, as the papers define them."""
    d = distances(real, fake)
    reach_real, reach_fake = (
        [sorted(row[j] for j in range(len(s)) if j != i)[k - 1] for i, row in enumerate(distances(s, s))]
        for s in (real, fake)
    )
    n, m = range(len(real)), range(len(fake))
    closed = PrecisionRecall(
        float(np.mean([any(d[i, j] <= reach_real[i] for i in n) for j in m])),
        float(np.mean([any(d[i, j] <= reach_fake[j] for j in m) for i in n])),
    )
    hits = [sum(d[i, j] < reach_real[i] for i in n) for j in m]
    opened = Prdc(
        float(np.mean([h > 0 for h in hits])),
        float(np.mean([any(d[i, j] < reach_fake[j] for j in m) for i in n])),
        sum(hits) / (k * len(fake)),
        float(np.mean([d[i].min() < reach_real[i] for i in n])),
    )
    return closed, opened


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("held", [1, 200, 1_000_000])
def test_they_equal_loops_over_the_images(k: int, held: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "HELD", held)
    real, fake = features(30, shift=5), features(23, scale=1.3, shift=5.5)
    closed, opened = twin(real, fake, k)
    assert precision_recall(real, fake, k) == closed
    assert prdc(real, fake, k) == opened
    assert 0 < closed.precision < 1


def test_they_equal_the_libraries() -> None:
    real, fake = features(150), features(200, scale=1.2)
    theirs = prc_features_to_metric(torch.from_numpy(fake), torch.from_numpy(real), verbose=False)
    found = precision_recall(real, fake)
    assert (found.precision, found.recall) == pytest.approx((theirs["precision"], theirs["recall"]), abs=1e-6)
    with contextlib.redirect_stdout(io.StringIO()):
        authors = compute_prdc(real, fake, nearest_k=5)
    ours = prdc(real, fake)
    for name, value in authors.items():
        assert getattr(ours, name) == pytest.approx(float(value), rel=1e-12)
        assert ours.each[name].mean() == pytest.approx(float(value), rel=1e-12)
    assert [len(ours.each[name]) for name in ("precision", "recall", "density", "coverage")] == [200, 150, 200, 150]


def test_images_that_are_copies() -> None:
    """Distances that are equal stay equal, and those of 0 are 0, far from the origin too. Of a set and itself every
    image is within reach; each lies in as many open reaches as k, itself and those of whom it is nearer than the k-th.
    """
    real = features(40, shift=1000)
    assert precision_recall(real, real[::-1]) == PrecisionRecall(1.0, 1.0)
    assert prdc(real, real[::-1]) == Prdc(1.0, 1.0, 1.0, 1.0)
    doubled = np.concatenate([real, real[:10]])
    fake = np.concatenate([real[5:20], features(20, shift=1000)])
    closed, opened = twin(doubled, fake, 3)
    assert precision_recall(doubled, fake, 3) == closed
    assert prdc(doubled, fake, 3) == opened


def test_one_image_drawn_again_and_again() -> None:
    """Reaches of 0: closed balls hold their centres, open ones nothing."""
    one, real = np.tile(features(1, shift=100), (20, 1)), features(30, shift=100)
    assert precision_recall(one, one) == PrecisionRecall(1.0, 1.0)
    assert prdc(one, one) == Prdc(0.0, 0.0, 0.0, 0.0)
    assert precision_recall(real, one, 3) == twin(real, one, 3)[0]
    assert prdc(real, one, 3) == twin(real, one, 3)[1]


def test_ladders() -> None:
    """Fakes that spread lose precision, those that shrink lose recall and coverage, those that leave lose all."""
    real = features(300)
    fake = features(300)
    wide = [precision_recall(real, s * fake).precision for s in (1, 1.5, 2, 3)]
    narrow = [prdc(real, s * fake) for s in (1, 0.7, 0.4, 0.1)]
    away = [prdc(real, fake + np.float32(s)) for s in (0, 1, 2, 4)]
    assert wide == sorted(wide, reverse=True)
    for name in ("recall", "coverage"):
        assert (values := [getattr(each, name) for each in narrow]) == sorted(values, reverse=True)
    for name in ("precision", "recall", "density", "coverage"):
        assert (values := [getattr(each, name) for each in away]) == sorted(values, reverse=True)
        assert values[0] > values[-1]


def test_a_thousand_images_take_a_moment() -> None:
    real, fake, seen = features(1000, 512), features(1200, 512), []
    start = time.process_time()
    precision_recall(real, fake, progress=lambda done, total: seen.append((done, total)))
    assert time.process_time() - start < 5  # 0.2 s on a quiet core
    assert seen[-1] == (3200, 3200)


def test_what_has_no_neighbours() -> None:
    real = features(10)
    with pytest.raises(NeighbourError, match="more than k images and k at least 1; k is 5, with 10 real and 5 gen"):
        prdc(real, real[:5])
    with pytest.raises(NeighbourError, match="k is 0"):
        precision_recall(real, real, 0)
    with pytest.raises(NeighbourError, match="one has 8 channels, the other 3"):
        precision_recall(real, features(10, 3))
    broken = real.copy()
    broken[2, 1] = np.inf
    with pytest.raises(NeighbourError, match="1 of 10 vectors of the generated images hold NaN"):
        precision_recall(real, broken)
