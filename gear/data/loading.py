"""`load`: the built-in images, CIFAR-10, or a folder, prepared once and mapped from the cache from then on."""

import hashlib
import json
import logging
import os
import zlib
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from gear.data import builtin, cifar10, prepared
from gear.data.decode import Skip, any_size, decode, square
from gear.data.folder import File, Listing, scan
from gear.data.images import DataError, Images, describe, position
from gear.data.progress import counting
from gear.store import cache

VERSION = 1  # of the preparation: another number prepares everything anew
FEWEST = 8  # images
EXAMPLES = 3  # names given for each reason to leave images out
EMPTY = "class folder without a usable image"
IN_MEMORY = 1 << 29  # bytes; larger resized sets are kept in the cache

log = logging.getLogger("gear")
NAMED = ("builtin", "cifar10")  # what `load` takes beside folders


def load(path: str, resolution: int, *, progress: bool = True) -> Images:
    """The images of `path` at `resolution` x `resolution` pixels.

    path: "builtin", "cifar10" (after `gear fetch cifar10`), or a folder: of class folders, or of images of one class.
    A folder is decoded on the first call, with a progress bar on stderr if `progress`; later calls map the result,
    until a file is added, removed or changed. Several processes should not prepare the same folder at once.
    Raises `DataError` (a ValueError) for images that cannot be used and `CacheError` (an OSError) for the cache.
    """
    if resolution < 1:
        raise DataError(f"data.resolution must be at least 1; it is {resolution}.")
    match path:
        case "builtin":
            return _resized(builtin.images(), path, resolution, progress)
        case "cifar10":
            return _resized(cifar10.images("train"), path, resolution, progress)
        case _:
            return load_folder(Path(path), resolution, progress=progress)


def load_cifar10_test(resolution: int, *, progress: bool = True) -> Images:
    """The 10,000 test images of CIFAR-10, as `load("cifar10", resolution)` gives the 50,000 of the training set."""
    return _resized(cifar10.images("test"), "cifar10-test", resolution, progress)


def load_folder(path: Path, resolution: int, *, progress: bool = True) -> Images:
    """`load` for a folder. Images lie in the order of `position`, so that a split need not copy them."""
    listing = scan(path)
    files = sorted(listing.files, key=lambda file: (position(_group(file.name)), file.name))
    names = [(file.name, file.size, file.changed) for file in files]
    key = _key(str(listing.folder), resolution, listing.classes, names, listing.problems)
    cached = _cache_path(f"{listing.folder.name}-{_key(str(listing.folder))[:12]}", resolution)
    found = prepared.read(cached, key) or _prepare(listing, files, resolution, cached, key, progress)
    about = found.about
    return Images(
        pixels=found.pixels,
        labels=np.array(about["labels"], dtype=np.int64),
        classes=tuple(about["classes"]),
        names=tuple(about["names"]),
        groups=tuple(_group(name) for name in about["names"]),
        skipped=about["skipped"],
        examples={reason: tuple(names) for reason, names in about["examples"].items()},
    )


def _prepare(
    listing: Listing, files: list[File], resolution: int, cached: Path, key: str, progress: bool
) -> prepared.Prepared:
    """Decodes all files and writes the ones that can be used to the cache."""
    kept: list[File] = []
    problems = list(listing.problems)

    def rows() -> Generator[np.ndarray, None, None]:
        with any_size(), counting(f"Preparing {listing.folder.name}", len(files), progress) as advance:
            for file, row in zip(files, _decoded(files, resolution), strict=True):
                if isinstance(row, Skip):
                    problems.append((str(row), file.name))
                else:
                    kept.append(file)
                    yield row
                advance()
        if len(kept) < FEWEST:  # raised while the cache is being written, so that nothing is kept
            raise DataError(_too_few(listing, len(kept), problems))

    def about() -> dict[str, object]:
        used = sorted({file.label for file in kept})
        unused = [name for label, name in enumerate(listing.classes) if label not in used]
        skipped, examples = _count([*problems, *((EMPTY, name) for name in unused)])
        return {
            "labels": [used.index(file.label) for file in kept],
            "classes": [listing.classes[label] for label in used],
            "names": [file.name for file in kept],
            "skipped": skipped,
            "examples": examples,
        }

    if len(files) >= FEWEST:
        cache.require_space(cached, len(files) * 3 * resolution**2)
    return prepared.write(cached, key, resolution, rows(), about)


def _decoded(files: list[File], resolution: int) -> Iterator[np.ndarray | Skip]:
    """Each file's image, or why it has none, in order. Threads suffice: Pillow decodes and resizes without the GIL."""

    def attempt(file: File) -> np.ndarray | Skip:
        try:
            return decode(file.path, resolution)
        except Skip as skip:
            return skip

    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[np.ndarray | Skip]] = deque()
        try:
            for file in files:
                waiting.append(pool.submit(attempt, file))
                if len(waiting) > 4 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _resized(images: Images, name: str, resolution: int, progress: bool) -> Images:
    """The same images at another resolution, antialiased; said in the log where that enlarges them."""
    native = images.pixels.shape[-1]
    if resolution == native:
        return images
    if resolution > native:
        log.warning("The images of %s are %d px; they are enlarged to %d px.", name, native, resolution)

    def rows() -> Generator[np.ndarray, None, None]:
        with counting(f"Resizing {name}", len(images), progress) as advance:
            for pixels in images.pixels:
                yield square(Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0))), resolution)
                advance()

    size = len(images) * 3 * resolution**2
    if size <= IN_MEMORY:
        return replace(images, pixels=np.stack(list(rows())))
    cached, key = (
        _cache_path(name, resolution),
        _key(name, resolution, images.names, zlib.crc32(np.ascontiguousarray(images.pixels).data)),
    )
    found = prepared.read(cached, key)
    if found is None:
        cache.require_space(cached, size)
        found = prepared.write(cached, key, resolution, rows(), dict)
    return replace(images, pixels=found.pixels)


def _too_few(listing: Listing, usable: int, problems: list[tuple[str, str]]) -> str:
    looked = len(listing.files) + len(listing.problems)
    usables = f"{usable} usable image{'' if usable == 1 else 's'}"
    said = f"{listing.folder} has {usables} and {FEWEST} are needed; {looked} image files were found"
    if problems:
        said += f", of which {describe(*_count(problems))} left out"
    if listing.others:
        said += f", and {sum(listing.others.values())} other files ({', '.join(sorted(listing.others)[:5])})"
    return f"{said}. Give data.path a folder of JPEG, PNG or WebP images, or of class folders with such images."


def _count(problems: list[tuple[str, str]]) -> tuple[dict[str, int], dict[str, tuple[str, ...]]]:
    names: dict[str, list[str]] = {}
    for reason, name in problems:
        names.setdefault(reason, []).append(name)
    return {r: len(n) for r, n in names.items()}, {r: tuple(sorted(n)[:EXAMPLES]) for r, n in names.items()}


def _group(name: str) -> str:
    """A file's name without its suffix: a.png and a.jpg are held to be one picture."""
    return name.rpartition(".")[0]


def _cache_path(name: str, resolution: int) -> Path:
    return cache.directory() / "data" / f"{name}-{resolution}.npy"


def _key(*parts: object) -> str:
    return hashlib.sha256(json.dumps([VERSION, *parts]).encode()).hexdigest()
