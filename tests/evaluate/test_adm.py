"""The ADM protocol against slow twins of OpenAI's evaluator in float64, and what it says of bad samples."""

import numpy as np
import pytest
import torch
from scipy import linalg

from gear.evaluate.adm import K, MeasureError, adm, alike, few_references, share
from gear.evaluate.extract import CHUNK, Stored
from gear.evaluate.frechet import gaussian
from gear.evaluate.reference import Measured

POOL, SPATIAL, CLASSES = 6, 5, 8


def stored(arrays: dict[str, np.ndarray]) -> Stored:
    arrays = {name: a.astype(np.float32) for name, a in arrays.items()}
    n = len(arrays["pool"])
    chunks = range(-(-n // CHUNK))
    widths = {name: a.shape[1] for name, a in arrays.items()}
    return Stored(
        n, widths, lambda i: {k: a[i * CHUNK : (i + 1) * CHUNK] for k, a in arrays.items()}, ["00" for _ in chunks]
    )


def drawn(n: int, shift: float = 0.0, seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    sizes = {"pool": POOL, "spatial": SPATIAL, "logits": CLASSES}
    return {name: random.standard_normal((n, size)) + shift for name, size in sizes.items()}


def real(m: int = 60, seed: int = 9) -> Measured:
    arrays = {name: a.astype(np.float32) for name, a in drawn(m, 0.3, seed).items()}
    return Measured(
        {name: gaussian(torch.from_numpy(arrays[name])) for name in ("pool", "spatial")}, arrays["pool"], {"n": m}
    )


def twin_frechet(a: np.ndarray, b: np.ndarray) -> float:
    """With scipy's square root, as in ADM's FIDStatistics."""
    a, b = a.astype(np.float32).astype(np.float64), b.astype(np.float32).astype(np.float64)
    s, t = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = linalg.sqrtm(s @ t)
    return float(np.square(a.mean(0) - b.mean(0)).sum() + np.trace(s) + np.trace(t) - 2 * np.trace(root).real)


def twin_score(logits: np.ndarray, split: int) -> float:
    """As ADM's compute_inception_score."""
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    scores = []
    for start in range(0, len(p), split):
        part = p[start : start + split]
        scores.append(np.exp((part * (np.log(part) - np.log(part.mean(0)))).sum(1).mean()))
    return float(np.mean(scores))


def twin_precision_recall(reference: np.ndarray, samples: np.ndarray) -> tuple[float, float]:
    """As ADM's ManifoldEstimator: within the k-th nearest neighbour, itself not counted, of any of the other set."""

    def distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.array([[float(np.square(x - y).sum()) for y in b] for x in a])

    def inside(points: np.ndarray, others: np.ndarray) -> float:
        reach = np.sort(distances(others, others), axis=1)[:, K]
        return float((distances(points, others) <= reach).any(1).mean())

    return inside(samples, reference), inside(reference, samples)


def test_every_number_is_that_of_a_slow_twin():
    samples, reference, other = drawn(90), real(), drawn(60, 0.3, 9)
    found = adm(stored(samples), reference, resamples=False).metrics
    assert found["gfid"].value == pytest.approx(twin_frechet(samples["pool"], other["pool"]), rel=1e-6)
    assert found["sfid"].value == pytest.approx(twin_frechet(samples["spatial"], other["spatial"]), rel=1e-6)
    assert found["inception_score"].value == pytest.approx(twin_score(samples["logits"], 5000), rel=1e-6)
    pair = twin_precision_recall(other["pool"], samples["pool"])
    assert (found["precision"].value, found["recall"].value) == pytest.approx(pair)
    assert {m.n for m in found.values()} == {90}
    assert all(m.interval is None for m in found.values())


def test_inception_scores_are_of_five_thousand_in_their_order():
    random = np.random.default_rng(0)
    samples = drawn(7000) | {"logits": np.sort(random.standard_normal((7000, CLASSES)), axis=0)}
    found = adm(stored(samples), real(), resamples=False)
    assert found.metrics["inception_score"].value == pytest.approx(twin_score(samples["logits"], 5000), rel=1e-6)
    assert "make 2 of the 10 splits" in " ".join(found.warnings)


def test_few_samples_get_intervals_around_their_value_and_warnings():
    found = adm(stored(drawn(100)), real())
    for name in ("gfid", "sfid", "kid"):
        metric = found.metrics[name]
        assert metric.interval is not None
        assert metric.interval[0] <= metric.value <= metric.interval[1]
    said = " ".join(found.warnings)
    assert "100 samples both are far above" in said
    assert "fewer than the" not in said
    assert "no more than the 6 dimensions" in " ".join(adm(stored(drawn(5)), real()).warnings)


def test_without_a_classifier_the_inception_score_is_left_out():
    samples = drawn(20)
    del samples["logits"]
    found = adm(stored(samples), real(), resamples=False)
    assert "inception_score" not in found.metrics
    assert any("gear fetch inception-torch-fidelity" in line and "6726825d.pth" in line for line in found.warnings)


def test_samples_that_are_copies_are_said_and_all_alike_refused():
    samples = drawn(20)
    samples["pool"][5:8] = samples["pool"][4]
    assert "15.0% of the samples are copies" in " ".join(adm(stored(samples), real(), resamples=False).warnings)
    samples["pool"][:] = 1.0
    with pytest.raises(MeasureError, match="all 20 samples are the same image"):
        adm(stored(samples), real())
    with pytest.raises(MeasureError, match="needs more than 3 samples"):
        adm(stored(drawn(3)), real())


def test_a_reference_of_few_images_leaves_neighbours_out():
    found = adm(stored(drawn(20)), real(3), resamples=False)
    assert list(found.metrics) == ["gfid", "sfid", "inception_score"]
    assert any("the reference has 3 images" in line for line in found.warnings)


def test_noise_moves_every_number_the_wrong_way():
    random = np.random.default_rng(1)
    clean = drawn(300)
    reference = Measured(
        {n: gaussian(torch.from_numpy(drawn(300, seed=5)[n].astype(np.float32))) for n in ("pool", "spatial")},
        drawn(300, seed=5)["pool"].astype(np.float32),
        {},
    )
    ladder = []
    for level in (0.0, 1.0, 3.0):
        noisy = {n: a + level * random.standard_normal(a.shape) for n, a in clean.items()}
        ladder.append({n: m.value for n, m in adm(stored(noisy), reference, resamples=False).metrics.items()})
    for name in ("gfid", "sfid", "kid"):
        assert ladder[0][name] < ladder[1][name] < ladder[2][name]
    assert ladder[0]["precision"] > ladder[1]["precision"] > ladder[2]["precision"]


def test_copies_are_found_whatever_rounding_made_of_them() -> None:
    """Another batch size moves the last digits of a network's features."""
    random = np.random.default_rng(0)
    features = random.random((500, 64), np.float32)
    assert alike(features) == []
    rounded = features * (1 + 2e-6 * random.standard_normal(features.shape, np.float32))
    assert alike(np.concatenate([features, rounded[:50]])) == ["9.1% of the samples are copies of others."]
    one = np.broadcast_to(features[:1], (70, 64)) * (1 + 2e-6 * random.standard_normal((70, 1), np.float32))
    with pytest.raises(MeasureError, match="all 70 samples are the same image"):
        alike(one.astype(np.float32))


def test_a_small_reference_is_warned_of() -> None:
    assert few_references(0, 2048) == few_references(50_000, 2048) == []
    assert "100 images are no more than the 2,048 dimensions" in few_references(100, 2048)[0]
    assert "of 5,000 images" in few_references(5_000, 2048)[0]


def test_shares_have_intervals() -> None:
    each = np.array([0.0] * 40 + [1.0] * 60)
    found = share(each, 100, True, "k = 3")
    assert found.value == 0.6
    assert found.interval is not None
    assert found.interval[0] == pytest.approx(0.6 - 1.96 * 0.049, abs=0.02)
    assert found.interval[1] == pytest.approx(0.6 + 1.96 * 0.049, abs=0.02)
    assert share(each, 100, False, "").interval is None
