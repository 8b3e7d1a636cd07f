import numpy as np
import pytest

from gear.data import DataError, batch_indices
from gear.data.order import draw

EXPECTED = [5, 0, 1, 6, 2, 8, 4, 9, 3, 7, 4, 6]
VIEWS, FLIPPED, PLACE = [2, 3, 9, 3], [False, True, True, False], [0.471642877705885, 0.5448375812849822]
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


def test_a_draw_depends_on_seed_and_step_alone():
    whole = [draw(50, 8, seed=3, step=step, views=4, flip=True) for step in range(6)]
    for step in (5, 0, 3):
        again = draw(50, 8, seed=3, step=step, views=4, flip=True)
        assert again.index.tolist() == batch_indices(50, 8, 3, step).tolist() == whole[step].index.tolist()
        assert again.view.tolist() == whole[step].view.tolist()
        assert again.flipped.tolist() == whole[step].flipped.tolist()
        assert again.place.tolist() == whole[step].place.tolist()
    assert len({tuple(drawn.place[:, 0]) for drawn in whole} | {tuple(draw(50, 8, 4, 0).place[:, 0])}) == 7


def test_the_draws_are_the_same_under_every_numpy():
    drawn = draw(10, 4, seed=7, step=2, views=10, flip=True)
    assert (drawn.view.tolist(), drawn.flipped.tolist()) == (VIEWS, FLIPPED)
    assert drawn.place[0].tolist() == PLACE


def test_views_and_flips_are_all_equally_likely():
    drawn = [draw(100, 100, 0, step, views=3, flip=True) for step in range(60)]
    views = np.bincount(np.concatenate([d.view for d in drawn]))
    assert len(views) == 3
    assert np.abs(views / 6000 - 1 / 3).max() < 0.03
    assert abs(np.mean([d.flipped for d in drawn]) - 0.5) < 0.03
    still = draw(100, 100, 0, 0, views=None)
    assert not still.flipped.any()
    assert not still.view.any()


def test_only_broken_images_are_replaced():
    broken = {3, 17, 18}
    for step in range(20):
        plain, drawn = draw(20, 8, 1, step, flip=True), draw(20, 8, 1, step, flip=True, broken=broken)
        kept = ~np.isin(plain.index, list(broken))
        assert (drawn.index[kept] == plain.index[kept]).all()
        assert not broken & set(drawn.index.tolist())
        assert (drawn.flipped == plain.flipped).all()
        assert (drawn.place == plain.place).all()


def test_what_takes_its_place_does_not_depend_on_when_an_image_was_found_broken():
    """Known one after the other, as training finds them, or all at once, as a run that goes on does."""
    for step in range(30):
        known: set[int] = set()
        while (drawn := draw(12, 6, 0, step, broken=known)) and (
            found := {1, 2, 3, 4, 5, 6} & set(drawn.index.tolist())
        ):
            known |= {min(found)}
        assert drawn.index.tolist() == draw(12, 6, 0, step, broken={1, 2, 3, 4, 5, 6}).index.tolist()


def test_nothing_but_broken_images():
    with pytest.raises(DataError, match="1000 images drawn one after the other are all broken"):
        draw(3, 2, 0, 0, broken={0, 1, 2})
