"""Batches as a function of (seed, step), and remembered features against live ones."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from gear import weights
from gear.data import Images
from gear.data.crop import Cropping
from gear.data.folder import Listing, scan
from gear.data.shards import Shape, Shards, ShardWriter
from gear.data.streaming import Stream
from gear.step import Batch, Encoded
from gear.targets import EfficientNetLite0
from gear.train import batches
from gear.train.batches import ROWS, Batches, Features, Stored, Streamed, to_float, to_uint8

CPU, GRID, N = torch.device("cpu"), (2, 2), 21
SOME = 20  # images


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


def codes(folder: Path, lacking: Iterable[int]) -> Shards:
    """Stored codes of `SOME` images without those of `lacking`: the code of an image is its number."""
    index = np.arange(SOME)
    labels = torch.from_numpy(np.where(np.isin(index, list(lacking)), -1, 0))
    ShardWriter(folder, {}, Shape(SOME, 1, 1, 4, SOME)).add(
        index, torch.arange(SOME).view(-1, 1, 1, 1).expand(-1, 1, 1, 4), labels, {}
    )
    return Shards(folder)


@pytest.fixture
def colours(tmp_path: Path) -> Listing:
    """`SOME` images, each of one grey: five times its number."""
    for i in range(SOME):
        Image.new("RGB", (9, 9), (5 * i,) * 3).save(tmp_path / f"{i:02d}.png")
    return scan(tmp_path)


def of_both(colours: Listing, lacking: Iterable[int]) -> Stored:
    """Stored codes, and features of images that are decoded ahead."""
    stream = Stream(colours, Cropping(8), 5, 0, flip=False, workers=0)
    live = Streamed(stream, [Quarters()], GRID, CPU, "float32")
    return Stored(codes(colours.folder / f"codes-{lacking}", lacking), 5, 0, False, (), live, CPU)


def require_one_image_a_row(batch: Encoded) -> None:
    of_features = batch.f["quarters"].mean((1, 2)) * 255 / 5
    assert of_features.round().tolist() == batch.q[:, 0].tolist()


@pytest.mark.parametrize(
    ("lacking", "unreadable"),
    [((3,), ()), ((), (3,)), ((3, 8), (8, 11)), ((), ())],
    ids=["back", "gone", "both", "none"],
)
def test_codes_and_features_are_of_the_same_images(
    colours: Listing, lacking: tuple[int, ...], unreadable: tuple[int, ...]
) -> None:
    """Where an image could not be read when it was encoded and can be now, and the reverse."""
    for i in unreadable:
        (colours.folder / colours.names[i]).write_bytes(b"no picture")
    batches, seen = of_both(colours, lacking), Counter[int]()
    for step in (*range(12), 3, 4, 20):
        batch = batches(step)
        require_one_image_a_row(batch)
        seen.update(batch.q[:, 0].tolist())
    left = {*lacking, *unreadable}
    assert set(seen) == {*range(SOME)} - left
    assert batches.broken.keys() == left


def test_what_others_find_broken_is_drawn_by_neither(colours: Listing) -> None:
    """As the loop says it, from a checkpoint and from other ranks, while the next codes have been read."""
    batches, usual = of_both(colours, ()), of_both(colours, ())
    before = [usual(step).q[:, 0].tolist() for step in range(4)]
    require_one_image_a_row(batches(0))
    batches.broken.update(dict.fromkeys(before[1][:2], "found by another rank"))
    after = batches(1)
    require_one_image_a_row(after)
    assert after.q[2:, 0].tolist() == before[1][2:]
    assert not {*before[1][:2]} & {*after.q[:, 0].tolist()}


def test_codes_alone_leave_out_what_they_lack(tmp_path: Path) -> None:
    batches = Stored(codes(tmp_path, {3}), 5, 0, False, (), None, CPU)
    assert {i for step in range(12) for i in batches(step).q[:, 0].tolist()} == {*range(SOME)} - {3}
    assert batches.broken == {3: "without codes"}


class Spread:
    """A target whose vectors are as far apart as those of one colour where a deviation near 0 divides them."""

    name, channels = "spread", 4

    def features(self, pixels: UInt8[Tensor, "B 3 H W"], grid: tuple[int, int]) -> Float[Tensor, "B N C"]:
        generator = torch.Generator().manual_seed(0)
        f = torch.randn(len(pixels), 4, 4, generator=generator)
        return f * torch.tensor([1.0, 1e4, 1e6, 1e30])[:, None]  # the positions of an image

    def to(self, device: torch.device) -> "Spread":
        return self


def test_features_that_float16_cannot_hold_keep_their_direction() -> None:
    pixels = torch.zeros(ROWS, 3, 8, 8, dtype=torch.uint8)
    exact, kept = Spread().features(pixels, GRID), batches.in_passes(Spread(), pixels, GRID, "float32")
    assert torch.equal(kept[:, :2], exact[:, :2].half())  # the others as ever
    assert torch.nn.functional.cosine_similarity(kept.double(), exact.double(), dim=-1).min() > 1 - 1e-6


def test_no_target_no_features() -> None:
    assert Batches(images(), {}, 4, 0, True, CPU)(0).f == {}


def test_pixel_ranges() -> None:
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(1, 3, 16, 16)
    x = to_float(levels)
    assert (x.min().item(), x.max().item()) == (-1, 1)
    assert torch.equal(to_uint8(x), levels)
    assert to_uint8(torch.tensor([-3.0, 7.0, 0.003]).view(1, 3, 1, 1)).flatten().tolist() == [0, 255, 128]
