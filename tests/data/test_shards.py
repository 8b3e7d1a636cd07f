import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from gear.data import DataError, shards
from gear.data.shards import INDEX, Shape, Shards, ShardWriter
from gear.prompts import Prompts

IMAGES, VIEWS, FLIPS, TOKENS, K = 10, 3, 2, 4, 64
SHAPE = Shape(IMAGES, VIEWS, FLIPS, TOKENS, K, {"dinov2-b": 5})
ABOUT = {"tokenizer": {"bits": 14, "weights": "ab12"}, "resolution": 256, "classes": ["cat", "dog"]}
CODES = torch.from_numpy(np.random.default_rng(0).integers(0, K, (IMAGES, VIEWS, FLIPS, TOKENS)))
LABELS = torch.tensor([0, 1, 1, -1, 0, 0, 1, -1, 1, 0])  # images 3 and 7 were broken
FEATURES = torch.from_numpy(np.random.default_rng(1).normal(size=(*CODES.shape, 5))).float()


@pytest.fixture(autouse=True)
def three_images_a_shard(monkeypatch) -> None:
    one = VIEWS * FLIPS * TOKENS * (2 + 2 * 5) + 8  # bytes of an image
    monkeypatch.setattr(shards, "SHARD", 3 * one + 1)


def add(writer: ShardWriter, start: int, stop: int) -> None:
    rows = slice(start, stop)
    writer.add(np.arange(start, stop), CODES[rows], LABELS[rows], {"dinov2-b": FEATURES[rows]})


def encode(folder: Path, step: int = 4) -> list[range]:
    """As the command does: what is missing, in blocks that are no multiple of a shard. Returns what was missing."""
    writer = ShardWriter(folder, ABOUT, SHAPE)
    missing = writer.missing()
    for part in missing:
        for start in range(part.start, part.stop, step):
            add(writer, start, min(start + step, part.stop))
    return missing


def test_every_row_comes_back(tmp_path):
    assert encode(tmp_path / "codes") == [range(10)]
    there = Shards(tmp_path / "codes")
    assert len(there) == IMAGES
    assert (there.about, there.shape) == (ABOUT, SHAPE)
    assert there.labels.tolist() == LABELS.tolist()
    assert there.broken == {3, 7}
    index, view, flipped = (a.ravel() for a in np.indices((IMAGES, VIEWS, FLIPS)))
    order = np.random.default_rng(2).permutation(len(index))
    index, view, flipped = index[order], view[order], flipped[order]
    codes = there.codes(index, view, flipped.astype(bool))
    assert torch.equal(codes, CODES[index, view, flipped])
    features = there.features("dinov2-b", index, view, flipped.astype(bool))
    assert torch.equal(features, FEATURES.half()[index, view, flipped])
    assert sorted(p.name for p in (tmp_path / "codes").iterdir()) == [
        *(f"{shard:05d}.safetensors" for shard in range(4)),
        INDEX,
    ]


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux tells")
def test_shards_are_mapped_and_not_kept_open(tmp_path):
    encode(tmp_path)
    opened = len(os.listdir("/proc/self/fd"))
    there = Shards(tmp_path)
    assert len(os.listdir("/proc/self/fd")) == opened
    maps = Path("/proc/self/maps").read_text()
    assert all(f"{tmp_path}/{shard:05d}.safetensors" in maps for shard in range(4))
    assert not any(array.flags.writeable or array.flags.owndata for shard in there._shards for array in shard.values())


@pytest.mark.parametrize(("size", "dtype"), [(65_536, np.uint16), (65_537, np.int32)])
def test_codes_take_two_bytes_where_they_fit(tmp_path, size, dtype):
    shape = Shape(1, 1, 1, 2, size)
    writer = ShardWriter(tmp_path, {}, shape)
    writer.add(np.arange(1), torch.tensor([[[[0, size - 1]]]]), torch.tensor([0]), {})
    there = Shards(tmp_path)
    assert there._shards[0]["codes"].dtype == dtype
    assert there.codes(np.array([0]), np.array([0]), np.array([False])).tolist() == [[0, size - 1]]


def test_an_interrupted_encoding_goes_on_after_the_last_whole_shard(tmp_path):
    writer = ShardWriter(tmp_path, ABOUT, SHAPE)
    add(writer, 0, 5)
    with pytest.raises(DataError, match=r"holds 1 of 4 shards: give the same `gear encode` command again"):
        Shards(tmp_path)
    first = (tmp_path / "00000.safetensors").stat().st_mtime_ns
    assert encode(tmp_path) == [range(3, 10)]
    assert (tmp_path / "00000.safetensors").stat().st_mtime_ns == first
    assert Shards(tmp_path).labels.tolist() == LABELS.tolist()


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def flip_header(file: Path) -> None:
    file.write_bytes(file.read_bytes().replace(b'"codes"', b'"kodes"'))


def overwrite(file: Path) -> None:
    file.write_bytes(b"\xff" * file.stat().st_size)


DAMAGES: list[tuple[Callable[[Path], None], str]] = [
    (Path.unlink, "is missing"),
    (cut, r"has \d+ bytes instead of \d+"),
    (flip_header, r"is damaged \('codes'\)"),
    (overwrite, "is damaged"),
]


@pytest.mark.parametrize(("damage", "said"), DAMAGES, ids=[d.__name__ for d, _ in DAMAGES])
def test_a_damaged_shard_is_named_and_written_again(tmp_path, damage, said):
    encode(tmp_path)
    damage(tmp_path / "00001.safetensors")
    with pytest.raises(DataError, match=rf"00001\.safetensors {said}.* `gear encode` command again"):
        Shards(tmp_path)
    assert encode(tmp_path) == [range(3, 6)]
    assert torch.equal(Shards(tmp_path).codes(np.array([4]), np.array([2]), np.array([True])), CODES[[4], 2, 1])


def test_a_flipped_bit_is_seen_by_the_command(tmp_path):
    encode(tmp_path)
    file = tmp_path / "00003.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + bytes([file.read_bytes()[-1] ^ 1]))
    assert encode(tmp_path) == [range(9, 10)]


def test_another_encoding_is_refused_with_what_differs(tmp_path):
    encode(tmp_path)
    other = ABOUT | {"tokenizer": {"bits": 14, "weights": "cd34"}}
    with pytest.raises(DataError, match=r'\(about\.tokenizer\.weights is "ab12" there and "cd34" here\)'):
        ShardWriter(tmp_path, other, SHAPE)
    with pytest.raises(
        DataError, match=r"\(shape\.images is 10 there and 11 here; shape\.views is 3 there and 4 here\)"
    ):
        ShardWriter(tmp_path, ABOUT, replace(SHAPE, images=11, views=4))


def test_a_folder_of_other_files_is_left_alone(tmp_path):
    """What an interrupted start may leave is none of them."""
    (tmp_path / "00000.safetensors").write_bytes(b"")
    (tmp_path / ".00001.safetensors.ab12.partial").write_bytes(b"")
    ShardWriter(tmp_path, ABOUT, SHAPE)
    (tmp_path / "log.jsonl").write_text("")
    with pytest.raises(DataError, match=r"holds other files, such as log\.jsonl: encode into a folder of its own"):
        ShardWriter(tmp_path, ABOUT, SHAPE)


def test_a_folder_goes_on_with_its_own_size_of_shards(tmp_path, monkeypatch):
    add(ShardWriter(tmp_path, ABOUT, SHAPE), 0, 3)
    monkeypatch.setattr(shards, "SHARD", 1 << 20)
    assert encode(tmp_path) == [range(3, 10)]
    assert len(list(tmp_path.glob("*.safetensors"))) == 4


def test_a_shard_is_a_minute_of_work(tmp_path, monkeypatch):
    """Small tokens of many images are not many images to lose."""
    monkeypatch.setattr(shards, "SHARD", 1 << 28)
    assert ShardWriter(tmp_path, {}, replace(SHAPE, images=1_281_167, views=10)).index.per_shard == (1 << 15) // 20
    assert ShardWriter(tmp_path, {}, replace(SHAPE, images=10, views=1 << 20)).index.per_shard == 1


def test_what_is_stored_is_counted(tmp_path):
    encode(tmp_path)
    cut(tmp_path / "00001.safetensors")
    writer = ShardWriter(tmp_path, ABOUT, SHAPE)
    assert writer.missing() == [range(3, 6)]
    assert writer.stored == 7
    add(writer, 3, 6)
    assert writer.stored == 10


def test_what_cannot_be_stored(tmp_path):
    writer = ShardWriter(tmp_path, ABOUT, SHAPE)
    with pytest.raises(ValueError, match=r"codes must lie in \[0, 64\)"):
        writer.add(np.arange(10), CODES + 1, LABELS, {"dinov2-b": FEATURES})
    with pytest.raises(ValueError, match="dinov2-b must be finite in float16"):
        writer.add(np.arange(10), CODES, LABELS, {"dinov2-b": FEATURES * 1e6})
    with pytest.raises(ValueError, match="one after the other, from the first of a shard; 1 does not"):
        add(writer, 1, 4)
    add(writer, 0, 2)
    with pytest.raises(ValueError, match="3 does not"):
        add(writer, 3, 5)


def test_no_codes(tmp_path):
    with pytest.raises(DataError, match=r"holds no codes: `gear encode` makes such a folder"):
        Shards(tmp_path)
    (tmp_path / INDEX).write_text(json.dumps({"format": 2}))
    with pytest.raises(DataError, match=r"index\.json cannot be read \(another format\)"):
        Shards(tmp_path)
    (tmp_path / INDEX).write_text("{")
    with pytest.raises(DataError, match=r"index\.json cannot be read"):
        ShardWriter(tmp_path, ABOUT, SHAPE)


def test_what_is_not_there(tmp_path):
    encode(tmp_path)
    there, one = Shards(tmp_path), np.array([0])
    with pytest.raises(IndexError):
        there.codes(np.array([10]), one, np.array([False]))
    with pytest.raises(IndexError):
        there.codes(one, np.array([3]), np.array([False]))
    with pytest.raises(KeyError, match="clip"):
        there.features("clip", one, one, np.array([False]))


CAPTIONS, ROWS, WIDTH = 3, 5, 2


def captions() -> list[Prompts]:
    """Of ten images 1, 2, 3, 0 (broken), ... captions of other lengths, padded in front."""
    random, made = torch.Generator().manual_seed(0), []
    for image in range(IMAGES):
        count = 0 if LABELS[image] < 0 else 1 + image % CAPTIONS
        lengths = (torch.arange(count) + image) % ROWS + 1
        valid = torch.arange(ROWS) >= ROWS - lengths[:, None]
        made.append(Prompts(torch.randn(count, ROWS, WIDTH, generator=random) * valid[..., None], valid))
    return made


def test_captions_come_back(tmp_path):
    shape, texts = replace(SHAPE, texts=(CAPTIONS, ROWS, WIDTH)), captions()
    writer = ShardWriter(tmp_path, ABOUT, shape)
    for start in (0, 5):
        rows = slice(start, start + 5)
        index, features = np.arange(IMAGES)[rows], {"dinov2-b": FEATURES[rows]}
        writer.add(index, CODES[rows], LABELS[rows], features, texts=texts[rows])
    there = Shards(tmp_path)
    assert there.shape == shape
    index = np.array([i for i in np.random.default_rng(3).permutation(IMAGES) if i not in there.broken])
    for which in (0.0, 0.3, 0.5, np.nextafter(1, 0)):
        got = there.texts(index, np.full(len(index), which))
        assert got.states.dtype == torch.float16
        for row, i in enumerate(index.tolist()):
            one = int(which * len(texts[i]))
            assert torch.equal(got.states[row], texts[i].states[one].half())
            assert torch.equal(got.valid[row], texts[i].valid[one])


def test_captions_that_do_not_fit(tmp_path):
    texts, shape = captions()[:1], replace(SHAPE, texts=(CAPTIONS, ROWS, WIDTH))
    behind = Prompts(texts[0].states, texts[0].valid.flip(1))
    too_many = Prompts(torch.zeros(4, ROWS, WIDTH), torch.ones(4, ROWS, dtype=torch.bool))
    short = Prompts(torch.zeros(1, ROWS - 1, WIDTH), torch.ones(1, ROWS - 1, dtype=torch.bool))
    infinite = Prompts(torch.full((1, ROWS, WIDTH), 1e6), torch.ones(1, ROWS, dtype=torch.bool))
    of_one = (np.arange(1), CODES[:1], LABELS[:1], {"dinov2-b": FEATURES[:1]})
    for wrong in ([behind], [too_many], [short], [infinite], [], None):
        with pytest.raises(ValueError, match=r"padded in front|of every image|finite"):
            ShardWriter(tmp_path, ABOUT, shape).add(*of_one, texts=wrong)
    with pytest.raises(ValueError, match="of none else"):
        ShardWriter(tmp_path, ABOUT, SHAPE).add(*of_one, texts=texts)


def test_a_folder_without_captions_stays_readable(tmp_path):
    """As it was written before there were any."""
    encode(tmp_path)
    index = json.loads((tmp_path / INDEX).read_text())
    assert index["shape"].pop("texts") is None
    (tmp_path / INDEX).write_text(json.dumps(index))
    there = Shards(tmp_path)
    assert there.shape == SHAPE
    assert encode(tmp_path) == []
    with pytest.raises(KeyError):
        there.texts(np.arange(1), np.zeros(1))
