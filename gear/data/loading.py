"""`load`: the built-in images, CIFAR-10, or a folder, prepared once and mapped from the cache from then on."""

import hashlib
import json
import logging
import os
import zlib
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from rich.console import Console

from gear.data import builtin, captions, cifar10, emoji, prepared
from gear.data.crop import Interpolation, square
from gear.data.decode import UNREADABLE, Skip, any_size, decode
from gear.data.folder import Listing, scan
from gear.data.images import DataError, Images, count, describe, position
from gear.data.members import File, Member
from gear.progress import bars
from gear.store import cache

VERSION = 2  # of the preparation: another number prepares everything anew
FEWEST = 8  # images
EMPTY = "class without a usable image"
PASSING = (UNREADABLE, captions.UNREADABLE)  # reasons that may be gone at another time, with no file changed
IN_MEMORY = 1 << 29  # bytes; larger resized sets are kept in the cache

Row = TypeVar("Row")

log = logging.getLogger("gear")


def load(
    path: str,
    resolution: int,
    *,
    interpolation: Interpolation = "bicubic",
    classes: str = "folders",
    progress: bool = True,
    captioned: bool = False,
) -> Images:
    """The images of `path` at `resolution` x `resolution` pixels: the short side resized, the middle cropped.

    path: "builtin", "cifar10" or "emoji" (after `gear fetch` of it), or a folder: of class folders, of images of one
        class, or of tars, see `scan`.
    classes: the labels of class folders and tars, see `class_list` and `label_list`; with "folders", those without a
        usable image have none.
    captioned: `Images.captions` are there: those of "builtin" and "emoji", or what `scan` finds, and then `path` may be
        a .csv, .jsonl or .json; images without a caption are left out.
    A folder is decoded on the first call, with a progress bar on stderr if `progress`; later calls map the result,
    until a file is added, removed or changed, or one that could not be read can be. Several processes should not
    prepare the same folder at once.
    Raises `DataError` (a ValueError) for images that cannot be used and `CacheError` (an OSError) for the cache.
    """
    if resolution < 1:
        raise DataError(f"data.resolution must be at least 1; it is {resolution}.")
    match path:
        case "builtin":
            return _resized(builtin.images(), path, resolution, interpolation, progress)
        case "emoji":
            return _resized(emoji.images(), path, resolution, interpolation, progress)
        case "cifar10" if captioned:
            raise DataError(
                'cifar10 has classes and no captions: for a text-to-image run give data.path "builtin", "emoji" '
                "or images with captions."
            )
        case "cifar10":
            return _resized(cifar10.images("train"), path, resolution, interpolation, progress)
        case _:
            return _folder(Path(path), resolution, interpolation, classes, progress, captioned)


def load_cifar10_test(resolution: int, *, interpolation: Interpolation = "bicubic", progress: bool = True) -> Images:
    """The 10,000 test images of CIFAR-10, as `load("cifar10", resolution)` gives the 50,000 of the training set."""
    return _resized(cifar10.images("test"), "cifar10-test", resolution, interpolation, progress)


def _folder(
    path: Path, resolution: int, interpolation: Interpolation, classes: str, progress: bool, captioned: bool
) -> Images:
    """Images lie in the order of `position`, so that a split need not copy them."""
    listing = scan(path, classes, progress, captioned)
    places = [(position(group), name) for group, name in zip(listing.groups, listing.names, strict=True)]
    listing = listing.rows(sorted(range(len(listing)), key=places.__getitem__))
    states = [_state(listing.file(i)) for i in range(len(listing))]
    parts = [resolution, interpolation, listing.classes, tuple(listing.names), states, listing.problems]
    of = [str(listing.folder)]
    if listing.captions is not None:
        parts.append([_caption_state(listing.captions[i]) for i in range(len(listing))])
        of.append(str(path.expanduser().resolve()))  # several lists may be of one folder
    key = recipe_key(str(listing.folder), *parts)
    cached = place_in_cache(f"{listing.folder.name}-{recipe_key(*of)[:12]}", resolution, interpolation)
    found = prepared.read(cached, key)
    if found is None or _readable(listing, found.about.get("unreadable", []), resolution, interpolation):
        found = _prepare(listing, resolution, interpolation, classes == "folders", cached, key, progress)
    about = found.about
    used = listing.rows(about["rows"])
    return Images(
        pixels=found.pixels,
        labels=np.array(about["labels"], dtype=np.int64),
        classes=tuple(about["classes"]),
        names=tuple(used.names),
        groups=used.groups,
        captions=None if listing.captions is None else tuple(map(tuple, about["captions"])),
        skipped=about["skipped"],
        examples={reason: tuple(names) for reason, names in about["examples"].items()},
    )


def _prepare(
    listing: Listing,
    resolution: int,
    interpolation: Interpolation,
    drop: bool,
    cached: Path,
    key: str,
    progress: bool,
) -> prepared.Prepared:
    """Decodes all files and writes the ones that can be used to the cache. drop: classes without any have no label."""
    kept: list[int] = []
    unreadable: list[int] = []
    texts: list[tuple[str, ...]] = []
    problems = list(listing.problems)

    def rows() -> Generator[np.ndarray, None, None]:
        decoded = _decoded(listing, resolution, interpolation)
        for i, row in enumerate(_counted(decoded, len(listing), f"Preparing {listing.folder.name}", progress)):
            if isinstance(row, Skip):
                problems.append((str(row), listing.names[i]))
                if str(row) in PASSING:
                    unreadable.append(i)
            else:
                kept.append(i)
                texts.append(row.captions)
                yield row.pixels
        if len(kept) < FEWEST:  # raised while the cache is being written, so that nothing is kept
            raise DataError(_too_few(listing, len(kept), problems))

    def about() -> dict[str, object]:
        labels = listing.labels[kept]
        used = np.unique(labels) if drop else np.arange(len(listing.classes))
        unused = [name for label, name in enumerate(listing.classes) if label not in used]
        skipped, examples = count([*problems, *((EMPTY, name) for name in unused)])
        return {
            "rows": kept,
            "unreadable": unreadable,
            "labels": np.searchsorted(used, labels).tolist(),
            "classes": [listing.classes[label] for label in used],
            "captions": texts if listing.captions is not None else None,
            "skipped": skipped,
            "examples": examples,
        }

    if len(listing) >= FEWEST:
        cache.require_space(cached, len(listing) * 3 * resolution**2)
    return prepared.write(cached, key, resolution, rows(), about)


def _readable(listing: Listing, rows: Sequence[int], resolution: int, interpolation: Interpolation) -> bool:
    """Whether any of the images `rows` can be used now."""
    return any(isinstance(row, _Decoded) for row in _decoded(listing.rows(rows), resolution, interpolation))


@dataclass(frozen=True, eq=False)
class _Decoded:
    pixels: UInt8[np.ndarray, "3 R R"]
    captions: tuple[str, ...]  # none where they were not asked for


def _decoded(listing: Listing, resolution: int, interpolation: Interpolation) -> Iterator[_Decoded | Skip]:
    """Each image, or why there is none, in order. Threads suffice: Pillow decodes and resizes without the GIL."""

    def attempt(i: int) -> _Decoded | Skip:
        try:
            texts = () if listing.captions is None else captions.read(listing.captions[i])
            return _Decoded(decode(listing.file(i), resolution, interpolation), texts)
        except Skip as skip:
            return skip

    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with any_size(), ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[_Decoded | Skip]] = deque()
        try:
            for i in range(len(listing)):
                waiting.append(pool.submit(attempt, i))
                if len(waiting) > 4 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _resized(images: Images, name: str, resolution: int, interpolation: Interpolation, progress: bool) -> Images:
    """The same images at another resolution, antialiased; said in the log where that enlarges them."""
    native = images.pixels.shape[-1]
    if resolution == native:
        return images
    if resolution > native:
        log.warning("The images of %s are %d px; they are enlarged to %d px.", name, native, resolution)

    def rows() -> Generator[np.ndarray, None, None]:
        for pixels in _counted(images.pixels, len(images), f"Resizing {name}", progress):
            yield square(Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0))), resolution, interpolation)

    size = len(images) * 3 * resolution**2
    if size <= IN_MEMORY:
        return replace(images, pixels=np.stack(list(rows())))
    cached = place_in_cache(name, resolution, interpolation)
    key = recipe_key(
        name, resolution, interpolation, images.names, zlib.crc32(np.ascontiguousarray(images.pixels).data)
    )
    found = prepared.read(cached, key)
    if found is None:
        cache.require_space(cached, size)
        found = prepared.write(cached, key, resolution, rows(), dict)
    return replace(images, pixels=found.pixels)


def _counted(items: Iterable[Row], total: int, what: str, progress: bool) -> Iterator[Row]:
    """The same items, counted on stderr if `progress`."""
    with bars(Console(stderr=True, quiet=not progress)) as shown:
        bar = shown.add_task(what, total=total, note="")
        for item in items:
            yield item
            shown.advance(bar)


def _too_few(listing: Listing, usable: int, problems: list[tuple[str, str]]) -> str:
    looked = len(listing) + len(listing.problems)
    usables = f"{usable} usable image{'' if usable == 1 else 's'}"
    said = f"{listing.folder} has {usables} and {FEWEST} are needed; {looked} image files were found"
    if problems:
        said += f", of which {describe(*count(problems))} left out"
    if listing.others:
        said += f", and {sum(listing.others.values())} other files ({', '.join(sorted(listing.others)[:5])})"
    return f"{said}. Give data.path a folder of JPEG, PNG or WebP images, or of class folders or tars with such images."


def _caption_state(source: captions.Source) -> object:
    """The captions of an image, or the state of the file they lie in."""
    return _state(source.file) if isinstance(source, captions.CaptionFile) else source


def _state(file: File) -> tuple[int, ...] | None:
    """Size and time of the last change, for a member of its tar, and where it lies there; None for a file that cannot
    be asked."""
    path, place = (file.tar, (file.offset, file.size)) if isinstance(file, Member) else (Path(file), ())
    try:
        at = path.stat()
    except OSError:
        return None
    return at.st_size, at.st_mtime_ns, *place


def place_in_cache(name: str, resolution: int, interpolation: Interpolation) -> Path:
    """Where prepared images of that name lie."""
    return cache.directory() / "data" / f"{name}-{resolution}-{interpolation}.npy"


def recipe_key(*parts: object) -> str:
    """What prepared images are known by: a digest of all that they depend on, as JSON values."""
    return hashlib.sha256(json.dumps([VERSION, *parts]).encode()).hexdigest()
