from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from gear import ranks
from gear.data import batch_indices
from gear.data.mixture import LONGEST, Mixture
from gear.data.order import draw

SIZES, WEIGHTS = (7, 3, 40), (1.0, 0.5, 2.0)
MIXTURE = Mixture(SIZES, WEIGHTS)
N, SEED = sum(SIZES), 5


def set_of(rows: np.ndarray) -> np.ndarray:
    return np.searchsorted(np.cumsum(SIZES), rows, side="right")


@pytest.mark.parametrize(
    ("weights", "counts"),
    [
        ((1.0,), (1,)),
        ((1.0, 1.0), (1, 1)),
        ((1.0, 0.5, 2.0), (2, 1, 4)),
        ((1.0, 0.1, 0.25), (20, 2, 5)),
        ((3.0, 6.0), (1, 2)),
    ],
)
def test_a_period_is_as_short_as_it_is_exact(weights, counts):
    assert Mixture((1,) * len(weights), weights).counts == counts


def test_weights_that_fit_no_period_are_rounded_to_the_largest_remainders():
    weights = (1.0, np.pi, 1e-4)
    counts = np.array(Mixture((1, 1, 1), weights).counts)
    exact = np.array(weights) / sum(weights) * LONGEST
    assert counts.sum() == LONGEST
    assert (np.abs(counts - exact) < 1).all()


def test_bad_weights():
    with pytest.raises(ValueError, match="less than one of 65536"):
        Mixture((1, 1), (1.0, 1e-7)).counts  # noqa: B018
    for wrong in ((1.0, 0.0), (1.0, -1.0), (1.0, np.inf), (1.0, np.nan), (1.0,)):
        with pytest.raises(ValueError, match="positive weight"):
            Mixture((1, 1), wrong)
    with pytest.raises(ValueError, match="needs an image"):
        Mixture((1, 0), (1.0, 1.0)).index(0, 4, SEED)


def test_every_period_has_the_weights():
    period = sum(MIXTURE.counts)
    sets = set_of(MIXTURE.index(0, 50 * period, SEED)).reshape(50, period)
    for one in sets:
        assert tuple(np.bincount(one)) == MIXTURE.counts
    assert len({tuple(one) for one in sets.tolist()}) > 10  # each in an order of its own


def test_each_set_shows_every_image_once_an_epoch():
    stream = MIXTURE.index(0, 700, SEED)
    for number, size in enumerate(SIZES):
        mine = stream[set_of(stream) == number]
        whole = len(mine) // size
        assert whole >= 2
        epochs = mine[: whole * size].reshape(whole, size)
        assert all(sorted(epoch) == sorted(epochs[0]) and len(set(epoch)) == size for epoch in epochs.tolist())
        assert any(a.tolist() != b.tolist() for a, b in pairwise(epochs))


@pytest.mark.parametrize("batch", [1, 4, 7, 16, 60])
def test_a_step_is_the_same_whenever_it_is_asked_for(batch):
    """The stream of a run that counts its places, against any step by itself."""
    stream = MIXTURE.index(0, 120 * batch, SEED).reshape(120, batch)
    for step in (0, 1, 119, 50):
        assert batch_indices(N, batch, SEED, step, MIXTURE).tolist() == stream[step].tolist()
    assert batch_indices(N, batch, SEED + 1, 0, MIXTURE).tolist() != stream[0].tolist() or batch == 1


def test_turns_are_counted_in_closed_form():
    sets, turns = MIXTURE.turns(0, 300, SEED)
    seen: Counter[int] = Counter()
    for number, turn in zip(sets.tolist(), turns.tolist(), strict=True):
        assert turn == seen[number]
        seen[number] += 1
    late_sets, late = MIXTURE.turns(123, 300, SEED)
    assert (late_sets.tolist(), late.tolist()) == (sets[123:].tolist(), turns[123:].tolist())


def test_ranks_have_their_own_rows_of_the_one_batch(monkeypatch):
    whole = draw(N, 12, SEED, 9, views=3, flip=True, mixture=MIXTURE)
    rows = []
    for rank in range(3):
        monkeypatch.setattr(ranks, "rank", lambda rank=rank: rank)
        monkeypatch.setattr(ranks, "size", lambda: 3)
        part = draw(N, 12, SEED, 9, views=3, flip=True, mixture=MIXTURE)
        assert part.caption.tolist() == whole.caption[4 * rank : 4 * rank + 4].tolist()
        rows += part.index.tolist()
    assert rows == whole.index.tolist()


def test_a_broken_image_is_replaced_by_one_of_its_set():
    first = SIZES[0]
    broken = {first, first + 1}  # two of the three of the second set
    seen = []
    for step in range(40):
        whole = draw(N, 8, SEED, step, mixture=MIXTURE)
        replaced = draw(N, 8, SEED, step, broken=broken, mixture=MIXTURE)
        assert set_of(replaced.index).tolist() == set_of(whole.index).tolist()
        kept = ~np.isin(whole.index, list(broken))
        assert replaced.index[kept].tolist() == whole.index[kept].tolist()
        seen += replaced.index[~kept].tolist()
    assert set(seen) == {first + 2}


def test_rows_of_some():
    some = MIXTURE.rows([0, 1, 6, 7, 20, 21])
    assert some == Mixture((3, 1, 2), WEIGHTS)
    assert MIXTURE.rows([20, 0]) is None


def test_another_number_of_images():
    with pytest.raises(ValueError, match="have 50 images; there are 49"):
        batch_indices(49, 4, SEED, 0, MIXTURE)
