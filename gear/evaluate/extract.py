"""Images through a detector, so that 50,000 of them can be interrupted, and go over any number of ranks.

Features come in chunks of `CHUNK` images, which are files of their own where a folder is given: calling again continues
after the last whole one. Ranks take contiguous shares of the chunks, rank 0 gets all features; no image counts twice.
While one batch is in the network, threads prepare the next ones, and another checks, writes and counts the last chunk.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from torch import Tensor

from gear import ranks
from gear.evaluate.frechet import Moments
from gear.evaluate.images import ImageSource
from gear.progress import bars
from gear.store.foreign import UnreadableFile
from gear.store.saving import save_safetensors
from gear.store.torch_file import read_safetensors
from gear.train.distributed import told

CHUNK = 512  # images
BATCH = {"cpu": 64, "cuda": 256}  # divide `CHUNK`
DIGEST = "pixels"  # of a chunk, among its text

Arrays = dict[str, Float32[np.ndarray, "n _"]]


class FeatureError(ValueError):
    """Features that cannot be measured: which images, what is wrong, what to do."""


@runtime_checkable
class Detector(Protocol):
    """uint8 images of any size to named features, float32, on its own device; an `nn.Module`."""

    name: str
    channels: dict[str, int]

    def __call__(self, pixels: UInt8[Tensor, "B 3 H W"]) -> dict[str, Float32[Tensor, "B _"]]: ...

    def about(self) -> dict[str, Any]: ...

    def parameters(self) -> Iterator[Any]: ...


@dataclass
class Stored:
    """The features of n images, in their order; of ranks other than the first, of none.

    read: chunk i as arrays by their names. digests: the SHA-256 of the pixels of each chunk, in hexadecimal.
    """

    n: int
    channels: dict[str, int]
    read: Callable[[int], Arrays]
    digests: list[str]
    _moments: dict[str, Moments] = field(default_factory=dict)

    def array(self, name: str, rows: np.ndarray | None = None) -> Float32[np.ndarray, "n _"]:
        """All features called `name`, or those of some images, sorted. Raises KeyError for a name there is not."""
        wanted = np.arange(self.n) if rows is None else rows
        out = np.empty((len(wanted), self.channels[name]), np.float32)
        for i in range(len(self.digests)):
            here = slice(*np.searchsorted(wanted, (i * CHUNK, (i + 1) * CHUNK)))
            if here.start < here.stop:
                out[here] = self.read(i)[name][wanted[here] - i * CHUNK]
        return out

    def moments(self, name: str) -> Moments:
        """Of all features called `name`, in float64. Raises KeyError for a name there is not."""
        if name not in self._moments:
            moments = Moments(self.channels[name])
            for i in range(len(self.digests)):
                moments.add(torch.from_numpy(self.read(i)[name]))
            self._moments[name] = moments
        return self._moments[name]

    @property
    def pixels(self) -> str:
        """The SHA-256 of the SHA-256s of the pixels of all chunks: the same for the same images in the same order."""
        return hashlib.sha256("".join(self.digests).encode()).hexdigest()


def features(
    detector: Detector,
    source: ImageSource,
    n: int,
    store: Path | None = None,
    *,
    batch: int | None = None,
    title: str = "features",
    count: tuple[str, ...] = (),
    only: tuple[str, ...] | None = None,
) -> Stored:
    """The features of the first n images of `source`. Every rank must call it.

    store: the folder whose chunks are continued, if they are of this detector and these images; None: in memory.
    batch: images in one pass, which must divide `CHUNK`; None: by the device. count: features whose moments are taken
    along the way. only: features to keep; None: all. Raises `FeatureError` for n out of range, and for features that
    are not finite, before they are kept.
    """
    on = next(iter(detector.parameters())).device
    batch = BATCH.get(on.type, 64) if batch is None else batch
    if not 1 <= n <= len(source):
        raise FeatureError(f"n must be from 1 to the {len(source)} images there are; it is {n}.")
    if batch < 1 or CHUNK % batch:
        raise FeatureError(f"batch must divide {CHUNK}; it is {batch}.")
    channels = {name: width for name, width in detector.channels.items() if only is None or name in only}
    keep = _Keep(store and store / _key(detector, source, channels), detector.name, channels, n)
    todo = told([i for i in range(len(keep)) if not keep.has(i)] if ranks.rank() == 0 else None)
    turns = -(-len(todo) // ranks.size())
    mine = todo[ranks.rank() * turns : (ranks.rank() + 1) * turns]
    made = _made(detector, source, mine, n, batch, on, list(channels))
    moments = {name: Moments(channels[name]) for name in count}
    with bars() as shown, ThreadPoolExecutor(1, "features") as writer:
        shown.disable = shown.disable or ranks.rank() > 0
        bar = shown.add_task(title, total=n, completed=n - keep.images(todo), note="")
        pending: Future[None] | None = None
        for turn in range(turns):
            own = next(made) if turn < len(mine) else None
            for i, chunk in _exchanged(own, todo, turn, turns, keep, on):
                if pending is not None:
                    pending.result()  # what it raised; and no more than one waits in memory
                pending = writer.submit(keep.take, i, chunk, moments)
                shown.advance(bar, keep.images([i]))
        if pending is not None:
            pending.result()
    if ranks.rank() > 0:
        return Stored(0, channels, keep.read, [])
    return keep.stored({} if len(todo) < len(keep) else moments)


def pixels_sha256(source: ImageSource, n: int) -> str:
    """What `Stored.pixels` of the first n images is, without a detector."""
    digests = []
    with bars() as shown:
        bar = shown.add_task("digest", total=n, note="")
        for start in range(0, n, CHUNK):
            digest = hashlib.sha256()
            for pixels in source.batches(start, min(start + CHUNK, n), CHUNK):
                digest.update(pixels.contiguous().cpu().numpy().data)
            digests.append(digest.hexdigest())
            shown.update(bar, completed=min(start + CHUNK, n))
    return hashlib.sha256("".join(digests).encode()).hexdigest()


@dataclass
class _Chunk:
    rows: Float32[Tensor, "b D"]  # all features beside each other
    digest: bytes


def _made(
    detector: Detector,
    source: ImageSource,
    chunks: list[int],
    n: int,
    batch: int,
    on: torch.device,
    names: list[str],
) -> Iterator[_Chunk]:
    """Chunks by their numbers. Those that follow each other are one pass over the source, which is not held up."""
    with ThreadPoolExecutor(1, "digests") as hashing:
        for first, last in _runs(chunks):
            rows: list[Tensor] = []
            hashed: list[Future[None]] = []
            done, digest = first * CHUNK, hashlib.sha256()
            stop = min((last + 1) * CHUNK, n)
            for drawn in source.batches(done, stop, batch):
                pixels = drawn.contiguous()  # in one layout, in which sums round alike
                hashed.append(hashing.submit(digest.update, pixels.cpu().numpy().data))
                found = detector(pixels.to(on, non_blocking=True))
                rows.append(torch.cat([found[name] for name in names], dim=1))
                done += len(pixels)
                if done % CHUNK == 0 or done == stop:
                    for each in hashed:
                        each.result()
                    yield _Chunk(torch.cat(rows), digest.digest())
                    rows, hashed, digest = [], [], hashlib.sha256()


def _exchanged(
    own: _Chunk | None, todo: list[int], turn: int, turns: int, keep: "_Keep", on: torch.device
) -> Iterator[tuple[int, _Chunk]]:
    """The chunks that the ranks made in this turn, on rank 0."""
    if ranks.size() == 1:
        assert own is not None
        yield todo[turn], _Chunk(own.rows.cpu(), own.digest)
        return
    width = sum(keep.channels.values())
    mine = torch.zeros(CHUNK + 1, max(width, 32), device=on)  # of unequal lengths; the last row is the digest
    if own is not None:
        mine[: len(own.rows), :width] = own.rows
        mine[-1, :32] = torch.tensor(list(own.digest), dtype=torch.float32)
    every = ranks.gathered(mine).cpu()
    if ranks.rank() == 0:
        for rank in range(ranks.size()):
            at = rank * turns + turn
            if turn < turns and at < len(todo) and at < (rank + 1) * turns:
                rows = every[rank, : keep.images([todo[at]]), :width]
                yield todo[at], _Chunk(rows, bytes(every[rank, -1, :32].to(torch.uint8).tolist()))


class _Keep:
    """The chunks of n images: files in `folder`, or in memory."""

    def __init__(self, folder: Path | None, name: str, channels: dict[str, int], n: int):
        self.folder, self.n, self.channels, self.name = folder, n, channels, name
        self.memory: dict[int, Arrays] = {}
        self.digests: dict[int, str] = {}

    def __len__(self) -> int:
        return -(-self.n // CHUNK)

    def images(self, chunks: list[int]) -> int:
        return sum(min(CHUNK, self.n - i * CHUNK) for i in chunks)

    def has(self, i: int) -> bool:
        """Whether chunk i is there, whole."""
        if self.folder is None:
            return False
        try:
            arrays, said = read_safetensors(self._path(i))
        except UnreadableFile:
            return False
        expected = {name: (self.images([i]), width) for name, width in self.channels.items()}
        self.digests[i] = said.get(DIGEST, "")
        return {name: tuple(t.shape) for name, t in arrays.items()} == expected

    def take(self, i: int, chunk: _Chunk, moments: Mapping[str, Moments]) -> None:
        """Raises `FeatureError`."""
        parts = chunk.rows.split(list(self.channels.values()), dim=1)
        tensors = {name: part.contiguous() for name, part in zip(self.channels, parts, strict=True)}
        if not chunk.rows.isfinite().all():
            bad = (~chunk.rows.isfinite().all(1)).nonzero()[:, 0].tolist()
            raise FeatureError(
                f"the features {self.name} of {len(bad)} images, such as number {i * CHUNK + bad[0]}, are not finite: "
                "look at these images, and at the weights of the detector."
            )
        for name, counted in moments.items():
            counted.add(tensors[name])
        self.digests[i] = chunk.digest.hex()
        if self.folder is None:
            self.memory[i] = {name: t.numpy() for name, t in tensors.items()}
        else:
            save_safetensors(self._path(i), tensors, {DIGEST: self.digests[i]})

    def read(self, i: int) -> Arrays:
        if self.folder is None:
            return self.memory[i]
        return {name: t.numpy() for name, t in read_safetensors(self._path(i))[0].items()}

    def stored(self, moments: dict[str, Moments]) -> Stored:
        return Stored(self.n, self.channels, self.read, [self.digests[i] for i in range(len(self))], moments)

    def _path(self, i: int) -> Path:
        """A short last chunk has a name of its own, so that fewer images never take the place of more."""
        assert self.folder is not None
        rows = self.images([i])
        return self.folder / (f"{i:06d}.safetensors" if rows == CHUNK else f"{i:06d}-{rows}.safetensors")


def _key(detector: Detector, source: ImageSource, channels: dict[str, int]) -> str:
    """A folder for what these images look like to this detector, however many of them."""
    about = {name: value for name, value in source.about().items() if name != "n"}
    text = json.dumps([1, CHUNK, detector.about(), list(channels.items()), about], sort_keys=True)
    return f"{detector.name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _runs(numbers: list[int]) -> Iterator[tuple[int, int]]:
    """(first, last) of those that follow each other."""
    start = 0
    for end in range(1, len(numbers) + 1):
        if end == len(numbers) or numbers[end] != numbers[end - 1] + 1:
            yield numbers[start], numbers[end - 1]
            start = end
