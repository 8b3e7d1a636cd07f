"""Features in chunks: each image once, in order, whatever was interrupted, and on however many ranks."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gear import ranks
from gear.evaluate import extract, frechet
from gear.evaluate.extract import CHUNK, FeatureError, features
from gear.train import distributed

ROOT = Path(__file__).parents[2]
N = 2 * CHUNK + 100


class Sums(nn.Module):
    """Of an image: its mean times 3 directions, and its first pixel."""

    name = "sums"

    def __init__(self, scale: float = 1.0):
        super().__init__()
        self.directions = nn.Parameter(torch.tensor([1.0, -2.0, 0.5]) * scale, requires_grad=False)
        self.channels = {"mean": 3, "first": 1}
        self.calls = 0

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        self.calls += len(pixels)
        x = pixels.float().flatten(1)
        return {"first": x[:, :1], "mean": x.mean(1, keepdim=True) * self.directions}

    def about(self) -> dict[str, Any]:
        return {"name": self.name, "scale": self.directions[0].item()}


class Numbers:
    """Image i is all i % 251; the source notes what was asked of it."""

    resolution: tuple[int, int] = (4, 4)

    def __init__(self, n: int = N, stop_at: int | None = None, kind: str = "numbers"):
        self.n, self.stop_at, self.kind = n, stop_at, kind
        self.asked: list[int] = []

    def __len__(self) -> int:
        return self.n

    def about(self) -> dict[str, Any]:
        return {"kind": self.kind, "n": self.n}

    def batches(self, start: int, stop: int, size: int) -> Iterator[Tensor]:
        for first in range(start, stop, size):
            if self.stop_at is not None and first >= self.stop_at:
                raise KeyboardInterrupt
            ids = torch.arange(first, min(first + size, stop))
            self.asked += ids.tolist()
            yield (ids % 251).to(torch.uint8)[:, None, None, None].expand(-1, 3, 4, 4).contiguous()


def wanted(n: int) -> np.ndarray:
    return (np.arange(n) % 251).astype(np.float32)


def check(stored: extract.Stored, n: int) -> None:
    assert np.array_equal(stored.array("first")[:, 0], wanted(n))
    np.testing.assert_allclose(stored.array("mean"), wanted(n)[:, None] * [1.0, -2.0, 0.5], rtol=1e-6)
    twin = np.cov(wanted(n).astype(np.float64)[:, None] * [1.0, -2.0, 0.5], rowvar=False)
    np.testing.assert_allclose(stored.moments("mean").gaussian().covariance.numpy(), twin, rtol=1e-6)
    rows = np.array([0, 5, CHUNK - 1, CHUNK, n - 1])
    assert np.array_equal(stored.array("first", rows)[:, 0], wanted(n)[rows])


@pytest.mark.parametrize("kept", [False, True])
def test_every_image_once_and_in_order(kept: bool, tmp_path: Path):
    source = Numbers()
    stored = features(Sums(), source, N, tmp_path if kept else None, batch=64, count=("mean",))
    assert source.asked == list(range(N))
    check(stored, N)


def test_an_interrupted_pass_continues_where_it_was(tmp_path: Path):
    with pytest.raises(KeyboardInterrupt):
        features(Sums(), Numbers(stop_at=CHUNK + 64), N, tmp_path, batch=32)
    again, detector = Numbers(), Sums()
    stored = features(detector, again, N, tmp_path, batch=64, count=("mean",))
    assert again.asked == list(range(CHUNK, N))
    check(stored, N)
    assert features(Sums(), Numbers(), N, tmp_path).pixels == stored.pixels == features(Sums(), Numbers(), N).pixels


def test_more_images_need_only_the_new_ones(tmp_path: Path):
    features(Sums(), Numbers(), CHUNK + 10, tmp_path)
    source = Numbers()
    check(features(Sums(), source, N, tmp_path), N)
    assert source.asked == list(range(CHUNK, N))  # the chunk that was short is made again
    fewer = features(Sums(), Numbers(), 30, tmp_path)
    assert fewer.array("first").shape == (30, 1)


def test_fewer_images_take_nothing_from_more(tmp_path: Path):
    """Two evaluations of different n share a reference, at the same time even."""
    detector = Sums()
    more = features(detector, Numbers(), N, tmp_path)
    few = features(detector, Numbers(), 64, tmp_path)
    assert np.array_equal(few.array("first")[:, 0], wanted(64))
    check(more, N)
    detector.calls = 0
    check(features(detector, Numbers(), N, tmp_path), N)
    assert detector.calls == 0


def test_a_chunk_that_is_damaged_is_made_again(tmp_path: Path):
    features(Sums(), Numbers(), N, tmp_path)
    (file,) = tmp_path.glob("*/000001.safetensors")
    file.write_bytes(file.read_bytes()[:-10])
    source = Numbers()
    check(features(Sums(), source, N, tmp_path), N)
    assert source.asked == list(range(CHUNK, 2 * CHUNK))


@pytest.mark.parametrize("other", ["detector", "source"])
def test_chunks_of_another_detector_or_source_are_not_taken(other: str, tmp_path: Path):
    features(Sums(), Numbers(), 20, tmp_path)
    detector = Sums(2.0 if other == "detector" else 1.0)
    features(detector, Numbers(kind="others" if other == "source" else "numbers"), 20, tmp_path)
    assert detector.calls == 20
    assert len(list(tmp_path.iterdir())) == 2


def test_the_digest_needs_no_detector():
    assert extract.pixels_sha256(Numbers(), N) == features(Sums(), Numbers(), N).pixels
    assert extract.pixels_sha256(Numbers(), 70) == features(Sums(), Numbers(), 70).pixels


def test_the_digest_is_of_the_pixels_that_were_read():
    pixels = [b"".join(bytes([i % 251] * 48) for i in range(a, min(a + CHUNK, N))) for a in range(0, N, CHUNK)]
    twin = hashlib.sha256("".join(hashlib.sha256(part).hexdigest() for part in pixels).encode()).hexdigest()
    assert features(Sums(), Numbers(), N).pixels == twin


def test_features_that_are_not_finite_are_refused_and_not_kept(tmp_path: Path):
    with pytest.raises(FeatureError, match=r"the features sums of 1 images, such as number 0, are not finite"):
        features(Sums(float("inf")), Numbers(1), 1, tmp_path)  # 0 x infinity
    assert not list(tmp_path.glob("*/*.safetensors"))


@pytest.mark.parametrize(
    ("n", "batch", "said"),
    [(0, 64, "n must be from 1"), (N + 1, 64, f"the {N} images there are; it is {N + 1}"), (N, 100, "divide 512")],
)
def test_impossible_requests_are_refused(n: int, batch: int, said: str):
    with pytest.raises(FeatureError, match=said):
        features(Sums(), Numbers(), n, batch=batch)


def test_features_that_are_not_asked_for_are_not_kept(tmp_path: Path):
    stored = features(Sums(), Numbers(), 20, tmp_path, only=("first",), count=("first",))
    assert (stored.channels, list(stored.read(0))) == ({"first": 1}, ["first"])
    check(features(Sums(), Numbers(), N, tmp_path), N)


def test_moments_along_the_way_are_those_of_all_features():
    stored = features(Sums(), Numbers(), N, count=("mean",))
    gaussian = frechet.gaussian(torch.from_numpy(stored.array("mean")))
    torch.testing.assert_close(stored.moments("mean").gaussian().covariance, gaussian.covariance)


# ------------------------------------------------------------------------------------------------ ranks


def on_a_rank(folder: Path, n: int) -> None:
    """What this file does as a program: one rank, which leaves what it saw in the folder."""
    source = Numbers(n)
    with distributed.joined(torch.device("cpu")):
        stored = features(Sums(), source, n, folder / "features", batch=64, count=("mean",))
        answer = [source.asked, stored.pixels, stored.array("first")[:, 0].tolist(), stored.moments("mean").n]
        (folder / f"{ranks.rank()}.json").write_text(json.dumps(answer))
        distributed.together()


@pytest.mark.parametrize("n", [N, 40])  # more chunks than ranks, and fewer
def test_ranks_share_the_images_and_the_first_gets_all(n: int, tmp_path: Path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", __file__]
    done = subprocess.run(
        [*command, str(tmp_path), str(n)], cwd=ROOT, capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert sorted(first[0] + second[0]) == list(range(n))
    assert first[1:] == [features(Sums(), Numbers(n), n).pixels, wanted(n).tolist(), n]
    assert second[2:] == [[], 0]


if __name__ == "__main__":
    on_a_rank(Path(sys.argv[1]), int(sys.argv[2]))
