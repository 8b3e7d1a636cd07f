"""What `gear encode` leaves in a folder: the tokens, and if wanted the target features, of all squares of all images.

    index.json            what was encoded with what (`about`), the shape, and the size and SHA-256 of each shard
    00000.safetensors     the first images: codes (n, V, F, N), labels (n), features of each target (n, V, F, N, C);
                          of captions: caption_counts (n), texts (n, G, T, C), text_lengths (n, G)
    00001.safetensors     the next ones, and so on

V views (fixed crops) of an image, F = 2 where the flipped ones were encoded too and else 1, N tokens, C channels; up to
G captions of an image, as states of a text encoder in T rows, padded in front. A shard is whole or not there; one that
is missing or damaged is written again by the command that made the folder.
"""

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float16, Float64, Int64
from torch import Tensor

from gear.data import shard_texts
from gear.data.images import DataError
from gear.prompts import Prompts
from gear.store.saving import save_safetensors
from gear.store.whole import replacing

INDEX, FORMAT = "index.json", 1
SHARD_NAME = re.compile(r"\d{5,}\.safetensors")  # as `_file` has it
SHARD = 1 << 28  # bytes of a shard, at most, unless one image has more
SQUARES = 1 << 15  # views and flips in a shard, at most: a minute or so of a GPU, which is lost when it is stopped
DTYPES = {"U16": np.uint16, "I32": np.int32, "I64": np.int64, "F16": np.float16}  # by their names in the files


@dataclass(frozen=True)
class Shape:
    """Of all that is stored."""

    images: int
    views: int  # V
    flips: int  # F
    tokens: int  # N
    codebook_size: int  # K
    features: dict[str, int] = field(default_factory=dict)  # target -> C
    texts: tuple[int, int, int] | None = None  # G, T, C; None: no captions were encoded

    def arrays(self, images: int) -> dict[str, tuple[tuple[int, ...], Any]]:
        """Name -> shape and dtype of the arrays of a shard of so many images."""
        rows = (images, self.views, self.flips, self.tokens)
        codes = np.uint16 if self.codebook_size <= 1 << 16 else np.int32
        features = {_key(name): ((*rows, channels), np.float16) for name, channels in self.features.items()}
        arrays = {"codes": (rows, codes), "labels": ((images,), np.int64), **features}
        if self.texts is not None:
            arrays |= shard_texts.arrays(images, self.texts)
        return arrays


@dataclass(frozen=True)
class Index:
    about: dict[str, Any]
    shape: Shape
    per_shard: int  # images in each but the last
    shards: dict[int, tuple[int, str]]  # number -> bytes and SHA-256 of those that were written

    @property
    def count(self) -> int:
        return -(-self.shape.images // self.per_shard)

    def images(self, shard: int) -> range:
        return range(self.shape.images)[shard * self.per_shard : (shard + 1) * self.per_shard]


class ShardWriter:
    """Writes the shards of a folder, or those that it lacks.

    about: plain JSON values that say what is encoded with what: the images, the crops, the SHA-256 of the weights.
    Raises `DataError` for a folder that holds something else. Whatever is there already is read once, to be sure of it.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any], shape: Shape):
        one = sum(math.prod(size) * np.dtype(dtype).itemsize for size, dtype in shape.arrays(1).values())
        per_shard = max(1, min(SHARD // one, SQUARES // (shape.views * shape.flips)))
        self.folder, self.index = folder, Index(json.loads(json.dumps(about)), shape, per_shard, {})
        if (folder / INDEX).exists():
            found = _read(folder)
            if different := sorted(_differences(asdict(self.index), asdict(found), ("about", "shape"))):
                raise DataError(
                    f"{folder} holds other codes ({'; '.join(different[:5])}): encode into another folder, or delete "
                    "this one."
                )
            self.index = found
        elif others := _others(folder):
            raise DataError(f"{folder} holds other files, such as {others[0]}: encode into a folder of its own.")
        self._arrays: dict[str, np.ndarray] = {}  # of the shard that is being filled
        self._filled = 0

    def missing(self) -> list[range]:
        """Images that are not stored yet, to be given to `add` in this order."""
        parts: list[range] = []
        for shard in range(self.index.count):
            if self.index.shards.get(shard) == _state(_file(self.folder, shard)):
                continue
            self.index.shards.pop(shard, None)
            images = self.index.images(shard)
            if parts and parts[-1].stop == images.start:
                images = range(parts.pop().start, images.stop)
            parts.append(images)
        return parts

    @property
    def stored(self) -> int:
        """How many images are, in whole shards that were found or written."""
        return sum(len(self.index.images(shard)) for shard in self.index.shards)

    def add(
        self,
        index: Int64[np.ndarray, "n"],
        codes: Int64[Tensor, "n V F N"],
        labels: Int64[Tensor, "n"],
        features: Mapping[str, Float[Tensor, "n V F N _"]],
        texts: Sequence[Prompts] | None = None,
    ) -> None:
        """Images `index`, one after the other; a shard is written when its last one has come. labels: -1 where the
        image was broken. texts: of each image its captions, up to G of T rows padded in front, none of a broken one.
        Raises ValueError for codes outside [0, K), features or states that float16 cannot hold, texts that do not fit
        the shape, or images out of order, and `WriteError`."""
        if codes.numel() and not 0 <= int(codes.min()) <= int(codes.max()) < self.index.shape.codebook_size:
            raise ValueError(f"codes must lie in [0, {self.index.shape.codebook_size}).")
        arrays = {"codes": codes, "labels": labels, **{_key(name): f.half() for name, f in features.items()}}
        arrays |= shard_texts.packed(texts, len(index), self.index.shape.texts)
        if broken := [name for name, values in arrays.items() if not torch.isfinite(values).all()]:
            raise ValueError(f"{broken[0]} must be finite in float16.")
        rows = {name: values.cpu().numpy() for name, values in arrays.items()}
        for shard in np.unique(index // self.index.per_shard).tolist():
            chosen = index // self.index.per_shard == shard
            self._fill(shard, index[chosen], {name: values[chosen] for name, values in rows.items()})

    def _fill(self, shard: int, index: np.ndarray, rows: dict[str, np.ndarray]) -> None:
        images = self.index.images(shard)
        if not self._filled:
            kinds = self.index.shape.arrays(len(images))
            self._arrays = {name: np.empty(shape, dtype) for name, (shape, dtype) in kinds.items()}
        local = index - images.start
        if not np.array_equal(local, np.arange(self._filled, self._filled + len(index))):
            raise ValueError(f"images must come one after the other, from the first of a shard; {index[0]} does not.")
        for name, array in self._arrays.items():
            array[local] = rows[name]
        self._filled += len(index)
        if self._filled == len(images):
            file, self._filled = _file(self.folder, shard), 0
            save_safetensors(file, {name: torch.from_numpy(array) for name, array in self._arrays.items()})
            self.index.shards[shard] = _state(file)
            with replacing(self.folder / INDEX) as temporary:
                temporary.write_text(json.dumps({"format": FORMAT, **asdict(self.index)}, indent=1) + "\n")


class Shards:
    """A folder of codes, mapped and not read; any (image, view, flip) is as near as any other. No file stays open:
    there may be more of them than a process may open.

    Raises `DataError` for a folder that is not whole, with what to do.
    """

    def __init__(self, folder: Path):
        index = _read(folder)
        self.about, self.shape = index.about, index.shape
        self._per_shard = index.per_shard
        if len(index.shards) < index.count:
            raise DataError(
                f"{folder} holds {len(index.shards)} of {index.count} shards: give the same `gear encode` command "
                "again, it goes on from there."
            )
        self._shards = [_mapped(_file(folder, s), index.shards[s][0], index, s) for s in range(index.count)]
        self.labels = np.concatenate([np.asarray(shard["labels"]) for shard in self._shards])
        self.broken = frozenset(np.flatnonzero(self.labels < 0).tolist())  # images to be replaced, see `draw`

    def __len__(self) -> int:
        return self.shape.images

    def codes(
        self,
        index: Int64[np.ndarray, "B"],
        view: Int64[np.ndarray, "B"],
        flipped: Bool[np.ndarray, "B"],
        pin: bool = False,
    ) -> Int64[Tensor, "B N"]:
        """The tokens of view `view` of images `index`, flipped where `flipped`. pin: in memory that a GPU reads.
        Raises IndexError for what is not there."""
        return self._rows("codes", torch.int64, index, view, flipped, pin)

    def features(
        self,
        name: str,
        index: Int64[np.ndarray, "B"],
        view: Int64[np.ndarray, "B"],
        flipped: Bool[np.ndarray, "B"],
        pin: bool = False,
    ) -> Float16[Tensor, "B N C"]:
        """The features of target `name`, likewise. Raises KeyError for a target whose features are not there."""
        return self._rows(_key(name), torch.float16, index, view, flipped, pin)

    def texts(self, index: Int64[np.ndarray, "B"], which: Float64[np.ndarray, "B"], pin: bool = False) -> Prompts:
        """Of each of the images `index` the caption that `which`, uniform in [0, 1), falls on, as
        captions[int(u * len(captions))]; states float16. Raises KeyError where no captions are stored."""
        if self.shape.texts is None:
            raise KeyError("texts")
        numbers, inside = np.divmod(index, self._per_shard)
        arrays = [self._shards[shard] for shard in numbers]
        return shard_texts.chosen(arrays, inside, which, self.shape.texts, pin)

    def _rows(
        self, name: str, dtype: torch.dtype, index: np.ndarray, view: np.ndarray, flipped: np.ndarray, pin: bool
    ) -> Tensor:
        out = torch.empty(len(index), *self._shards[0][name].shape[3:], dtype=dtype, pin_memory=pin)
        into = out.numpy()
        numbers, inside = np.divmod(index, self._per_shard)
        # A row at a time: a large set has more shards than a batch has rows, and copying features is what takes long.
        for row, (shard, image, v, f) in enumerate(zip(numbers, inside, view, flipped.astype(np.int64), strict=True)):
            into[row] = self._shards[shard][name][image, v, f]
        return out


def _key(target: str) -> str:
    return f"features/{target}"


def _file(folder: Path, shard: int) -> Path:
    return folder / f"{shard:05d}.safetensors"


def _others(folder: Path) -> list[str]:
    """What lies there and is no shard, whole or half written."""
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    return [name for name in names if not (name.startswith(".") or SHARD_NAME.fullmatch(name))]


def _state(file: Path) -> tuple[int, str]:
    """Its bytes and SHA-256; of a missing file (0, "")."""
    if not file.exists():
        return 0, ""
    with file.open("rb") as opened:
        return file.stat().st_size, hashlib.file_digest(opened, "sha256").hexdigest()


def _read(folder: Path) -> Index:
    path = folder / INDEX
    if not path.exists():
        raise DataError(f"{folder} holds no codes: `gear encode` makes such a folder.")
    try:
        found = json.loads(path.read_text())
        if found.pop("format") != FORMAT:
            raise ValueError("another format")
        shards = {int(number): (size, digest) for number, (size, digest) in found.pop("shards").items()}
        shape = found.pop("shape")
        texts = shape.pop("texts", None)  # which folders written before have not
        return Index(shape=Shape(**shape, texts=None if texts is None else tuple(texts)), shards=shards, **found)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(f"{path} cannot be read ({error}): delete {folder} and encode again.") from error


def _mapped(file: Path, size: int, index: Index, shard: int) -> dict[str, np.ndarray]:
    """The arrays of a shard. A safetensors file is 8 bytes of length, a JSON header of that length, the arrays."""
    there = file.stat().st_size if file.exists() else 0
    fault = f"has {there} bytes instead of {size}" if there else "is missing"
    if there == size:
        try:
            with file.open("rb") as opened:
                length = int.from_bytes(opened.read(8), "little")
                header = json.loads(opened.read(length if length < size else 0))
            arrays, data = {}, _bytes(file, size)
            for name, (shape, dtype) in index.shape.arrays(len(index.images(shard))).items():
                entry = header[name]
                if tuple(entry["shape"]) != shape or DTYPES[entry["dtype"]] != dtype:
                    raise ValueError(f"{name} has another shape")
                at = 8 + length + entry["data_offsets"][0]
                arrays[name] = data[at : at + math.prod(shape) * np.dtype(dtype).itemsize].view(dtype).reshape(shape)
            return arrays
        except (OSError, ValueError, KeyError, TypeError) as error:
            fault = f"is damaged ({error})"
    raise DataError(f"{file} {fault}: give the same `gear encode` command again, it writes what is missing.")


def _bytes(file: Path, size: int) -> np.ndarray:
    """A file, mapped. By torch, since np.memmap keeps a file descriptor for each array."""
    mapped = torch.from_file(str(file), shared=False, size=size, dtype=torch.uint8).numpy()
    mapped.flags.writeable = False
    return mapped


def _differences(asked: Any, found: Any, names: tuple[str, ...] | None = None, at: str = "") -> Iterator[str]:
    """Each value in two trees of dicts that is not the same: "resolution is 256 there, not 384"."""
    if not isinstance(asked, dict) or not isinstance(found, dict):
        if asked != found:
            yield f"{at} is {_short(found)} there and {_short(asked)} here"
        return
    for name in names or sorted(asked.keys() | found.keys()):
        yield from _differences(asked.get(name), found.get(name), at=f"{at}.{name}" if at else name)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
