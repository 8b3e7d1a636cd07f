"""Batches as a function of (seed, step), and remembered features against live ones."""

import numpy as np
import pytest
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from gear import weights
from gear.data import Images
from gear.step import Batch
from gear.targets import EfficientNetLite0
from gear.train import batches
from gear.train.batches import ROWS, Batches, Features, to_float, to_uint8

CPU, GRID, N = torch.device("cpu"), (2, 2), 21


class Quarters:
    """A target of three channels, the mean colour of each quarter, so that a flip shows; it counts what it is asked."""

    name, channels = "quarters", 3

    def __init__(self) -> None:
        self.passes: list[int] = []

    def features(self, pixels: UInt8[Tensor, "B 3 H W"], grid: tuple[int, int]) -> Float[Tensor, "B N C"]:
        self.passes.append(len(pixels))
        return torch.nn.functional.adaptive_avg_pool2d(pixels.float(), grid).flatten(2).mT / 255

    def to(self, device: torch.device) -> "Quarters":
        return self


def images(n: int = N, side: int = 8) -> Images:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (n, 3, side, side), dtype=np.uint8)
    names = tuple(f"{i}.png" for i in range(n))
    return Images(pixels, np.arange(n) % 3, ("a", "b", "c"), names, names)


def make(flip: bool = True, seed: int = 0, size: int = 5, target: Quarters | None = None) -> Batches:
    features = Features(target or Quarters(), N, GRID, CPU, flip, "float32")
    return Batches(images(), {"quarters": features}, size, seed, flip, CPU)


def labels(batch: Batch) -> Tensor:
    assert isinstance(batch.c, Tensor)
    return batch.c


def same(a: Batch, b: Batch) -> bool:
    return torch.equal(a.x, b.x) and torch.equal(labels(a), labels(b)) and torch.equal(a.f["quarters"], b.f["quarters"])


def test_a_batch_is_a_function_of_seed_and_step() -> None:
    forwards, backwards = make(), make()
    first = [forwards(step) for step in range(20)]
    again = [backwards(step) for step in reversed(range(20))][::-1]
    assert all(same(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0].x, first[1].x)
    assert not torch.equal(first[0].x, make(seed=1)(0).x)


@pytest.mark.parametrize("flip", [True, False])
def test_pixels_labels_and_flips(flip: bool) -> None:
    """Every row is an image of its label or, half of the time, its mirror image, with the features of what is shown."""
    data, make_batch, target = images(), make(flip), Quarters()
    rows, mirrored = 0, 0
    for step in range(60):
        batch = make_batch(step)
        shown = to_uint8(batch.x)
        live = target.features(shown, GRID)
        torch.testing.assert_close(batch.f["quarters"], live, rtol=1e-3, atol=1e-3)  # float16 keeps 11 bits
        for image, label in zip(shown.numpy(), labels(batch).tolist(), strict=True):
            plain = [i for i in range(N) if np.array_equal(image, data.pixels[i])]
            turned = [i for i in range(N) if np.array_equal(image[..., ::-1], data.pixels[i])]
            (index,) = plain + turned
            assert label == data.labels[index]
            rows, mirrored = rows + 1, mirrored + len(turned)
    assert 0.4 < mirrored / rows < 0.6 if flip else mirrored == 0


def test_remembered_features_are_the_live_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    remembering = make()
    monkeypatch.setattr(batches, "REMEMBER", 0)
    live = make()
    for step in range(15):
        assert torch.equal(remembering(step).f["quarters"], live(step).f["quarters"])


@pytest.mark.parametrize("flip", [True, False])
def test_every_slot_is_computed_once_and_only_where_all_fit(flip: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    target, needed = Quarters(), (2 if flip else 1) * N * 4 * 3 * 2  # 4 tokens, 3 channels, 2 bytes
    monkeypatch.setattr(batches, "REMEMBER", needed)
    make_batch = make(flip, target=target)
    for step in range(200):
        make_batch(step)
    computed = len(target.passes)
    assert set(target.passes) == {ROWS}  # the number of rows never varies
    for step in range(200, 220):
        make_batch(step)
    assert len(target.passes) == computed

    monkeypatch.setattr(batches, "REMEMBER", needed - 1)
    live = Quarters()
    make_batch = make(flip, target=live)
    for step in range(3):
        make_batch(step)
        make_batch(step)
    assert live.passes == [ROWS] * 6


def test_features_do_not_depend_on_what_is_new_together() -> None:
    """A continued run meets the images in other company, and must see the same features to the last bit."""
    target = EfficientNetLite0(weights.path("efficientnet_lite0"))
    pixels = torch.from_numpy(images(side=32).pixels)
    together, alone = Features(target, N, GRID, CPU, False, "float32"), Features(target, N, GRID, CPU, False, "float32")
    all_slots = np.arange(N)
    expected = together(pixels, all_slots)
    for slots in (all_slots[3:4], all_slots[[7, 7, 2]], all_slots[8:], all_slots):
        assert torch.equal(alone(pixels[slots], slots), expected[slots])


def test_no_target_no_features() -> None:
    assert Batches(images(), {}, 4, 0, True, CPU)(0).f == {}


def test_pixel_ranges() -> None:
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(1, 3, 16, 16)
    x = to_float(levels)
    assert (x.min().item(), x.max().item()) == (-1, 1)
    assert torch.equal(to_uint8(x), levels)
    assert to_uint8(torch.tensor([-3.0, 7.0, 0.003]).view(1, 3, 1, 1)).flatten().tolist() == [0, 255, 128]
