import logging
import multiprocessing
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode, Resize

from gear.data import DataError
from gear.data.ahead import Ahead, Decoded, Decoder
from gear.data.crop import Cropping
from gear.data.folder import Listing, scan
from gear.data.order import draw
from gear.data.streaming import Stream, Visit, in_order

R, BATCH, SEED = 16, 5, 3
CROPPINGS = [Cropping(R), Cropping(R, "random", "bilinear"), Cropping(R, "random", views=3, seed=SEED)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Twelve images of unequal sides in two classes, of which cat/2.png and dog/7.png are broken."""
    root = tmp_path_factory.mktemp("pets")
    noise = np.random.default_rng(0)
    for i in range(12):
        file = root / ("cat" if i < 6 else "dog") / f"{i}.png"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(noise.integers(0, 256, (20 + 3 * i, 40 - 2 * i, 3), np.uint8)).save(file)
        if i in (2, 7):
            file.write_bytes(file.read_bytes()[:60])
    return root


@pytest.fixture
def listing(folder) -> Listing:
    return scan(folder)


@pytest.fixture
def whole(listing) -> Listing:
    """Without the broken ones."""
    return listing.rows([i for i, name in enumerate(listing.names) if name not in ("cat/2.png", "dog/7.png")])


def stream(listing: Listing, cropping: Cropping, workers: int = 0) -> Stream:
    return Stream(listing, cropping, BATCH, SEED, flip=True, workers=workers)


def twin(listing: Listing, cropping: Cropping, visit: Visit, row: int) -> np.ndarray:
    """The row as one would get it by hand, with torchvision."""
    name, drawn = listing.names[int(visit.draw.index[row])], visit.draw
    mode = InterpolationMode.BICUBIC if cropping.interpolation == "bicubic" else InterpolationMode.BILINEAR
    small = np.asarray(Resize(R, mode)(Image.open(listing.folder / name).convert("RGB")))
    rooms = np.array([small.shape[1] - R, small.shape[0] - R])
    if cropping.crop == "center":
        left, top = (round(room / 2) for room in rooms.tolist())
    else:
        place = drawn.place[row] if cropping.views is None else cropping.place(name, int(drawn.view[row]))
        left, top = (place * (rooms + 1)).astype(int)
    pixels = small[top : top + R, left : left + R].transpose(2, 0, 1)
    return pixels[:, :, ::-1] if drawn.flipped[row] else pixels


def same(a: Visit, b: Visit) -> bool:
    return torch.equal(a.pixels, b.pixels) and torch.equal(a.labels, b.labels)


@pytest.mark.parametrize("cropping", CROPPINGS, ids=["center", "fresh", "fixed"])
def test_a_visit_is_what_its_draw_says(whole, cropping):
    for step in range(4):
        visit = stream(whole, cropping)(step)
        drawn = draw(len(whole), BATCH, SEED, step, views=cropping.fixed, flip=True)
        assert visit.draw.index.tolist() == drawn.index.tolist()
        assert visit.labels.tolist() == whole.labels[drawn.index].tolist()
        for row in range(BATCH):
            assert np.array_equal(visit.pixels[row].numpy(), twin(whole, cropping, visit, row))


def test_fresh_crops_differ_between_visits_and_fixed_ones_recur(whole):
    """Of one image, seen at 30 steps."""
    one = whole.rows([0])

    def crops(cropping: Cropping) -> set[bytes]:
        visits = [Stream(one, cropping, 1, SEED, flip=False, workers=0)(step) for step in range(30)]
        return {visit.pixels.numpy().tobytes() for visit in visits}

    center, fresh, fixed = CROPPINGS
    assert len(crops(center)) == 1
    assert len(crops(fresh)) > 8
    assert crops(fixed) == {p.tobytes() for p in next(in_order(one, fixed, 1, workers=0)).pixels[0].numpy()}


def test_any_order_of_steps_gives_the_same(listing):
    forwards = [stream(listing, CROPPINGS[1])(step) for step in range(5)]
    one = stream(listing, CROPPINGS[1])
    for step in (4, 0, 2, 3, 1):
        assert same(one(step), forwards[step])


class Early:
    """As `Ahead` is where its processes are far ahead."""

    def __init__(self, decoded: list[Decoded], decoder: Decoder):
        self.decoded, self.decoder = decoded, decoder

    def __call__(self, step: int) -> Decoded:
        return self.decoded[step]


@pytest.mark.parametrize("early", [False, True], ids=["decoded when asked for", "decoded before any is known"])
def test_broken_images_are_replaced_counted_and_named_once(listing, caplog, monkeypatch, early):
    bad = {listing.names.index("cat/2.png"), listing.names.index("dog/7.png")}
    one = stream(listing, CROPPINGS[1])
    if early:
        decoded = [one.ahead(step) for step in range(12)]
        monkeypatch.setattr(one, "ahead", Early(decoded, one.ahead.decoder))
    with caplog.at_level(logging.WARNING, logger="gear"):
        visits = [one(step) for step in range(12)]
    assert one.broken == dict.fromkeys(bad, "broken")
    assert sorted(caplog.messages) == [f"Left out of training: {n} (broken)." for n in ("cat/2.png", "dog/7.png")]
    for step, visit in enumerate(visits):
        drawn = draw(len(listing), BATCH, SEED, step, views=None, flip=True, broken=bad)
        assert visit.draw.index.tolist() == drawn.index.tolist()
        for row in range(BATCH):
            assert np.array_equal(visit.pixels[row].numpy(), twin(listing, CROPPINGS[1], visit, row))
    if not early:
        for step, visit in enumerate(visits):
            assert same(stream(listing, CROPPINGS[1])(step), visit)  # a run that goes on there knows of none


def test_every_image_once_in_order(listing, caplog):
    cropping = CROPPINGS[2]
    with caplog.at_level(logging.WARNING, logger="gear"):
        blocks = list(in_order(listing, cropping, 5, workers=0))
    assert [len(block.index) for block in blocks] == [5, 5, 2]
    assert np.concatenate([block.index for block in blocks]).tolist() == list(range(12))
    broken = [listing.names.index(name) for name in ("cat/2.png", "dog/7.png")]
    labels = torch.cat([block.labels for block in blocks])
    assert np.flatnonzero(labels.numpy() < 0).tolist() == sorted(broken)
    assert len(caplog.messages) == 2
    some = list(in_order(listing, cropping, 4, workers=0, rows=range(3, 9)))
    assert [block.index.tolist() for block in some] == [[3, 4, 5, 6], [7, 8]]
    assert torch.equal(torch.cat([b.pixels for b in some]), torch.cat([b.pixels for b in blocks])[3:9])


@pytest.mark.parametrize("cropping", [CROPPINGS[0], CROPPINGS[2]], ids=["center", "fixed"])
def test_what_is_stored_of_all_squares_is_what_is_seen_live(listing, cropping):
    stored = torch.cat([block.pixels for block in in_order(listing, cropping, 5, workers=0)])
    assert stored.shape == (12, cropping.fixed, 3, R, R)
    live = stream(listing, cropping)
    for step in range(8):
        visit = live(step)
        pixels = stored[visit.draw.index, visit.draw.view]
        flipped = torch.from_numpy(visit.draw.flipped)[:, None, None, None]
        assert torch.equal(visit.pixels, torch.where(flipped, pixels.flip(-1), pixels))


def test_fresh_crops_have_no_end(listing):
    with pytest.raises(ValueError, match='crop is "random" and views None'):
        next(in_order(listing, CROPPINGS[1], 4, workers=0))


def test_an_empty_listing(listing):
    with pytest.raises(DataError, match="has no images to train on"):
        stream(listing.rows([]), CROPPINGS[0])


def test_a_disk_that_is_gone_is_no_run_of_broken_images(tmp_path):
    gone = Listing(tmp_path, ("a",), tuple(f"{i}.png" for i in range(40)), np.zeros(40, np.int64), (), {})
    with pytest.raises(DataError, match=r"None of the 20 images of step 7 .* \(not readable\): is .* still there"):
        Stream(gone, CROPPINGS[0], 20, SEED, flip=False, workers=0)(7)


def gone(folder: Path, n: int) -> Listing:
    """Of files that are not there."""
    return Listing(folder, ("a",), tuple(f"{i:02d}.png" for i in range(n)), np.zeros(n, np.int64), (), {})


@pytest.mark.parametrize("size", [32, 5, 1])
def test_a_disk_that_is_gone_ends_a_pass(tmp_path, size):
    with pytest.raises(
        DataError, match=r"00\.png .* could not be read \(not readable\): is .* still there\? .* goes on"
    ):
        list(in_order(gone(tmp_path, 64), CROPPINGS[0], size, workers=0))


def test_what_came_before_a_disk_was_gone_is_kept_and_nothing_behind(tmp_path):
    """Not even the images of the block in which it went: they would stay broken."""
    for i in (*range(10), 15, *range(20, 43)):
        Image.new("RGB", (9, 9)).save(tmp_path / f"{i:02d}.png")
    blocks: list[int] = []
    with pytest.raises(DataError, match=r"from 43\.png on"):
        blocks.extend(len(block.index) for block in in_order(gone(tmp_path, 100), Cropping(8), 5, workers=0))
    assert blocks == [5] * 8
    few = in_order(gone(tmp_path, 55), Cropping(8), 5, workers=0)
    assert torch.cat([block.labels for block in few]).tolist()[38:] == [0] * 5 + [-1] * 12


def test_broken_images_end_no_pass(tmp_path):
    for name in gone(tmp_path, 64).names:
        (tmp_path / name).write_bytes(b"no picture")
    blocks = list(in_order(gone(tmp_path, 64), CROPPINGS[0], 32, workers=0))
    assert torch.cat([block.labels for block in blocks]).tolist() == [-1] * 64


def test_other_processes(listing):
    """They give what this one gives, from any step; touch none of its random numbers; leave Ctrl-C to it; and end with
    the stream, or with an exception."""
    cropping = CROPPINGS[2]
    here, there = stream(listing, cropping), stream(listing, cropping, workers=2)
    before = torch.get_rng_state()
    assert all(same(there(step), here(step)) for step in range(4))
    workers = multiprocessing.active_children()
    assert len(workers) == 2
    for worker in workers:
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGINT)
    assert all(same(there(step), here(step)) for step in range(4, 12))
    assert set(multiprocessing.active_children()) == set(workers)
    assert same(there(2), here(2))  # starts anew
    assert torch.equal(torch.get_rng_state(), before)
    there.close()
    assert multiprocessing.active_children() == []

    def train() -> None:
        loop = stream(listing, cropping, workers=1)
        blocks = in_order(listing, cropping, 4, workers=1)
        assert torch.equal(next(blocks).pixels, next(in_order(listing, cropping, 4, workers=0)).pixels)
        loop(0)
        assert len(multiprocessing.active_children()) == 2
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        train()
    del caught
    assert multiprocessing.active_children() == []


def ending(after: int) -> Iterator[Decoded]:
    """Processes of which one ends, as torch says it."""
    for step in range(after):
        yield Decoded(np.array([step]), torch.zeros(1, 1, 3, 1, 1, dtype=torch.uint8), {})
    raise RuntimeError("DataLoader worker (pid(s) 1) exited unexpectedly")


def test_a_process_that_ends_costs_one_slow_step(listing, monkeypatch, caplog):
    """So that the loop can still save where a scheduler has sent its signal to all processes."""
    started: list[int] = []

    def start(ahead: Ahead, step: int) -> Iterator[Decoded]:
        started.append(step)
        return ending(2)

    monkeypatch.setattr(Ahead, "_start", start)
    ahead = stream(listing, CROPPINGS[0], workers=2).ahead
    with caplog.at_level(logging.WARNING, logger="gear"):
        got = [ahead(step) for step in range(5)]
    assert started == [0, 3]
    assert [len(decoded.index) for decoded in got] == [1, 1, BATCH, 1, 1]  # the third is decoded in this process
    assert len(caplog.messages) == 1
    assert "exited unexpectedly); others are started" in caplog.text


def test_processes_that_never_start(listing, monkeypatch):
    monkeypatch.setattr(Ahead, "_start", lambda ahead, step: ending(0))
    with pytest.raises(DataError, match=r"could not start .* if __name__ == .* data\.workers = 0"):
        stream(listing, CROPPINGS[0], workers=2)(0)
