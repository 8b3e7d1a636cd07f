import numpy as np
import pytest

from gear.data import Images
from gear.data.images import position


def made(groups: list[str]) -> Images:
    n = len(groups)
    return Images(
        pixels=np.arange(n, dtype=np.uint8)[:, None, None, None] * np.ones((1, 3, 2, 2), np.uint8),
        labels=np.arange(n, dtype=np.int64) % 2,
        classes=("even", "odd"),
        names=tuple(f"{i}.png" for i in range(n)),
        groups=tuple(groups),
        captions=tuple((f"image {i}",) for i in range(n)),
        skipped={"broken": 5, "not readable": 1},
        examples={"broken": ("a.png", "b.png", "c.png"), "not readable": ("d.png",)},
    )


def as_set(images: Images) -> set[tuple[object, ...]]:
    assert images.captions is not None
    pixels = [int(p[0, 0, 0]) for p in images.pixels]
    assert all((p == p[0, 0, 0]).all() for p in images.pixels)
    return set(zip(pixels, images.labels.tolist(), images.names, images.groups, images.captions, strict=True))


@pytest.mark.parametrize("holdout", [0.0, 0.05, 0.3, 0.9])
def test_no_group_is_on_both_sides_and_nothing_is_lost(holdout):
    whole = made([f"group {i // 3}" for i in range(90)])
    split = whole.split(holdout)
    assert not set(split.train.groups) & set(split.held_out.groups)
    assert as_set(split.train) | as_set(split.held_out) == as_set(whole)
    assert len(split.train) + len(split.held_out) == len(whole)
    assert split.train.classes == split.held_out.classes == whole.classes


@pytest.mark.parametrize("holdout", [0.05, 0.3])
def test_the_share_is_about_right(holdout):
    held_out = made([str(i) for i in range(200)] * 5).split(holdout).held_out
    assert abs(len(held_out) / 1000 - holdout) < 0.08


def test_membership_depends_on_the_group_alone():
    """Images may be added, or come in another order: what was held out stays so, what was not too."""
    groups = [str(i) for i in range(100)]
    before = set(made(groups).split(0.2).held_out.groups)
    after = set(made([*groups[::-1], *(f"new {i}" for i in range(100))]).split(0.2).held_out.groups)
    assert before == {group for group in after if not group.startswith("new")}


def test_small_sets_have_both_sides():
    for n in range(2, 30):
        for holdout in (0.001, 0.5, 0.999):
            split = made([str(i) for i in range(n)]).split(holdout)
            assert len(split.train) >= 1
            assert len(split.held_out) >= 1
    alone = made(["one"] * 9).split(0.5)
    assert (len(alone.train), len(alone.held_out)) == (9, 0)
    assert alone.held_out.pixels.shape == (0, 3, 2, 2)
    assert len(made(["a", "b"]).split(0.0).held_out) == 0


def test_images_in_the_order_of_position_are_not_copied():
    whole = made(sorted((str(i) for i in range(50)), key=position))
    split = whole.split(0.2)
    assert np.shares_memory(split.train.pixels, whole.pixels)
    assert np.shares_memory(split.held_out.pixels, whole.pixels)
    assert as_set(split.train) | as_set(split.held_out) == as_set(whole)


@pytest.mark.parametrize("holdout", [-0.1, 1.0])
def test_impossible_share(holdout):
    with pytest.raises(ValueError, match=f"it is {holdout}"):
        made(["a", "b"]).split(holdout)


def test_report():
    assert made(["a"]).report() == "Left out: 5 broken (a.png, b.png, c.png, ...), 1 not readable (d.png)."
    assert Images(*(getattr(made(["a"]), f) for f in ("pixels", "labels", "classes", "names", "groups"))).report() == ""
