import numpy as np
import pytest

from gear.data import batch_indices

EXPECTED = [5, 0, 1, 6, 2, 8, 4, 9, 3, 7, 4, 6]
CASES = [(1, 1), (1, 5), (7, 3), (7, 7), (7, 20), (64, 16), (100, 1)]


@pytest.mark.parametrize(("n", "batch"), CASES)
def test_each_epoch_shows_every_image_once(n, batch):
    steps = 5 * n // batch + 5
    stream = np.concatenate([batch_indices(n, batch, seed=3, step=step) for step in range(steps)])
    epochs = stream[: len(stream) // n * n].reshape(-1, n)
    assert len(epochs) >= 5
    assert (np.sort(epochs, axis=1) == np.arange(n)).all()


@pytest.mark.parametrize(("n", "batch"), CASES)
def test_any_order_of_steps_gives_the_same(n, batch):
    forwards = {step: batch_indices(n, batch, seed=1, step=step) for step in range(12)}
    for step in np.random.default_rng(0).permutation(12):
        assert batch_indices(n, batch, seed=1, step=int(step)).tolist() == forwards[step].tolist()
        assert len(forwards[step]) == batch


def test_epochs_and_seeds_differ():
    epochs = {tuple(batch_indices(50, 50, seed, epoch)) for seed in (0, 1, 2**32, 2**40 + 1) for epoch in range(4)}
    assert len(epochs) == 16


def test_the_stream_is_the_same_under_every_numpy():
    """Else a run resumed after an upgrade would see other images. RandomState's stream is frozen (NEP 19)."""
    assert batch_indices(10, 12, seed=7, step=0).tolist() == EXPECTED


def test_the_result_can_be_changed_without_harm():
    first = batch_indices(10, 10, 0, 0)
    first += 1
    assert sorted(batch_indices(10, 10, 0, 0)) == list(range(10))


def test_far_steps_cost_as_little_as_near_ones():
    assert len(batch_indices(1000, 256, 0, step=10**9)) == 256


@pytest.mark.parametrize(("n", "batch", "step"), [(0, 1, 0), (1, 0, 0), (1, 1, -1)])
def test_impossible_arguments(n, batch, step):
    with pytest.raises(ValueError, match=f"they are {n}, {batch} and {step}"):
        batch_indices(n, batch, 0, step)
