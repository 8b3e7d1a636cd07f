"""The Inception Score against ADM's evaluator written out, torch-fidelity, and numbers known by hand."""

import numpy as np
import pytest
import torch
from torch_fidelity.metric_isc import isc_features_to_metric

from gear.evaluate.inception_score import ScoreError, inception_score


def logits(n: int, classes: int = 12, scale: float = 2.0) -> np.ndarray:
    return (np.random.randn(n, classes) * scale).astype(np.float32)


def twin(given: np.ndarray, split: int) -> list[float]:
    """The loop of ADM's evaluator: runs of `split` in their order, the last one as long as it is."""
    scores = []
    for start in range(0, len(given), split):
        part = np.exp(given[start : start + split].astype(np.float64))
        part /= part.sum(1, keepdims=True)
        kl = part * (np.log(part) - np.log(part.mean(0, keepdims=True)))
        scores.append(np.exp(kl.sum(1).mean()))
    return scores


@pytest.mark.parametrize(("n", "splits"), [(40, 2), (50, 3), (13, 1)], ids=["whole", "a short last one", "n < split"])
def test_it_equals_the_loop_of_the_evaluator(n: int, splits: int) -> None:
    given = logits(n)
    found, expected = inception_score(given, split=20), twin(given, 20)
    assert found.splits == len(expected) == splits
    assert found.mean == pytest.approx(np.mean(expected), rel=1e-12)
    assert found.sd == pytest.approx(np.std(expected), rel=1e-9, abs=1e-15)


def test_it_equals_torch_fidelity_without_shuffling() -> None:
    given = logits(60)
    theirs = isc_features_to_metric(torch.from_numpy(given), splits=3, shuffle=False)
    found = inception_score(given, split=20)
    assert found.mean == pytest.approx(theirs["inception_score_mean"], rel=1e-12)
    assert found.sd == pytest.approx(theirs["inception_score_std"], rel=1e-9)


def test_the_order_matters_as_it_does_there() -> None:
    """A split of one class has the score 1."""
    given = np.repeat(np.eye(2, dtype=np.float32) * 100, 10, axis=0)
    assert inception_score(given, split=10).mean == pytest.approx(1)
    assert inception_score(given[np.random.permutation(20)], split=20).mean == pytest.approx(2)


def test_its_ends_and_its_ladder() -> None:
    """Sure of each image and even over C classes: C. Never sure: 1. The surer, the higher. No underflow to NaN."""
    sure = np.tile(np.eye(10, dtype=np.float32) * 1e4, (5, 1))
    assert inception_score(sure).mean == pytest.approx(10)
    assert inception_score(np.zeros((50, 10), np.float32)).mean == pytest.approx(1)
    given = logits(200, scale=1)
    ladder = [inception_score(s * given).mean for s in (0.5, 1, 2, 4)]
    assert ladder == sorted(ladder)


def test_what_has_no_score() -> None:
    with pytest.raises(ScoreError, match="0 in 5000s came"):
        inception_score(logits(0))
    with pytest.raises(ScoreError, match="must be finite"):
        inception_score(np.full((3, 4), np.nan, np.float32))
