"""What samples are measured against: ADM's reference .npz, or any images. Checked before anything is sampled."""

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from gear import ranks
from gear.data import DataError
from gear.data.crop import Interpolation
from gear.evaluate import images, npz
from gear.evaluate.extract import Detector, features
from gear.evaluate.frechet import Gaussian
from gear.evaluate.images import ImageSource
from gear.store import cache
from gear.store.packages import sha256

LEAST = 4  # images, of which each has the 3 neighbours of precision and recall
COMPARED = 10_000  # images of a reference for precision, recall and KID, as many as ADM's files have
MOMENTS = {"pool": ("mu", "sigma"), "spatial": ("mu_s", "sigma_s")}  # what ADM's files call them
SIZES = {"pool": 2048, "spatial": 2023}
COUNT = 0  # images behind the moments of an ADM file, which does not say


@dataclass(frozen=True)
class Reference:
    """
    source: its images. moments: of "pool" and "spatial", which an ADM file has of more images than are in it; None
    where they are those of `source`. about: for results.json.
    """

    source: ImageSource
    moments: dict[str, Gaussian] | None
    about: dict[str, Any]


@dataclass(frozen=True)
class Measured:
    """
    moments: by the names of features. compared: features of at most `COMPARED` images for precision, recall and KID.
    On rank 0; on others both are empty.
    """

    moments: dict[str, Gaussian]
    compared: Float32[np.ndarray, "m D"]
    about: dict[str, Any]


def opened(
    where: str | Path,
    resolution: tuple[int, int],
    interpolation: Interpolation = "bicubic",
    *,
    n: int | None = None,
    other_resolution: bool = False,
) -> Reference:
    """The reference at `where`, for samples of `resolution`, height and width.

    where: an ADM reference (.npz with arr_0, mu, sigma, mu_s, sigma_s), or what `images.opened` takes; folders, zips
    and data sets are brought to the samples' resolution. n: how many of its images count, as of `images.part`; None:
    all. other_resolution: images of another one are meant. Raises `DataError` for a file that is no reference or not
    for this resolution.
    """
    path = Path(where).expanduser()
    moments = None
    if path.suffix.lower() == ".npz" and path.is_file():
        source = images.opened(path, what="a reference")
        if source.resolution != resolution and not other_resolution:
            raise DataError(
                f"the reference {path} is of {_px(source.resolution)} and the samples of {_px(resolution)}: give the "
                "reference of that resolution, or resize the samples (--resize of a model's, --resolution of images), "
                "or say --other-resolution if this is meant."
            )
        moments = _moments(path)
    else:
        square = resolution[0] if resolution[0] == resolution[1] and not other_resolution else None
        source = images.opened(where, square, interpolation, what="a reference")
        if source.resolution != resolution and not other_resolution:
            raise DataError(
                f"the reference {where} is of {_px(source.resolution)} and the samples of {_px(resolution)}: say "
                "--resolution, to which both are resized and cropped, of a model --resize, which resizes its samples, "
                "or --other-resolution if this is meant."
            )
    if len(source) < LEAST:
        raise DataError(
            f"{where} has {len(source)} images: a reference needs at least {LEAST}, and means something with thousands."
        )
    if n is not None and not LEAST <= n <= len(source):
        raise DataError(
            f"{where} has {len(source)} images: as a reference take from {LEAST} to all of them; {n} were asked."
        )
    source = source if n is None else images.part(source, n)
    about = source.about() | {"n": len(source) if n is None else n}
    about |= {"sha256": sha256(path)} if path.is_file() else {}
    return Reference(source, moments, about | {"moments": "its images'" if moments is None else "as in the file"})


def measured(reference: Reference, detector: Detector, *, seed: int = 0, batch: int | None = None) -> Measured:
    """The features of the reference, kept in the cache for the next time. Every rank must call it.

    seed: chooses the `COMPARED` images where there are more.
    """
    n = reference.about["n"]
    wanted = ("pool", "spatial") if reference.moments is None else ()
    store = cache.directory() / "features"
    found = features(
        detector, reference.source, n, store, batch=batch, title="reference", count=wanted, only=("pool", *wanted)
    )
    if ranks.rank() > 0:
        return Measured({}, np.zeros((0, detector.channels["pool"]), np.float32), reference.about)
    rows = np.sort(np.random.default_rng(seed).permutation(n)[:COMPARED])
    moments = reference.moments or {name: found.moments(name).gaussian() for name in wanted}
    about = reference.about | {"pixels_sha256": found.pixels, "compared": len(rows)}
    return Measured(moments, found.array("pool", rows), about)


def _moments(path: Path) -> dict[str, Gaussian] | None:
    """None for samples in the same layout, which have images only. Raises `DataError`."""
    there = set(npz.keys(path))
    wanted = {key: size for name, pair in MOMENTS.items() for key, size in zip(pair, _shapes(name), strict=True)}
    if not there & wanted.keys():
        return None
    if missing := [key for key in wanted if key not in there]:
        raise DataError(
            f"{path} lacks {', '.join(missing)}: an ADM reference has {npz.KEY}, {', '.join(wanted)}; it has "
            f"{', '.join(sorted(there))}. One with {npz.KEY} alone is read, too: as images."
        )
    found: dict[str, Tensor] = {}
    try:
        with np.load(path) as arrays:
            for key, shape in wanted.items():
                value = arrays[key]
                if value.shape != shape or value.dtype.kind != "f":
                    raise DataError(
                        f"{path}: {key} must be numbers of shape {shape}, of the Inception of 2015; it is "
                        f"{value.dtype} of shape {value.shape}."
                    )
                if not np.isfinite(value).all():
                    raise DataError(f"{path}: {key} holds NaN or infinity: make or download it again.")
                found[key] = torch.from_numpy(value.astype(np.float64))
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} is not a whole .npz file ({error}): make it or download it again.") from error
    return {name: Gaussian(found[mean], found[covariance], COUNT) for name, (mean, covariance) in MOMENTS.items()}


def _shapes(name: str) -> tuple[tuple[int, ...], ...]:
    return (SIZES[name],), (SIZES[name], SIZES[name])


def _px(resolution: tuple[int, int]) -> str:
    return f"{resolution[1]} x {resolution[0]} px"
