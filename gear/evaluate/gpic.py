"""The GPIC protocol (Chandrasegaran et al. 2026; Table 2): FDD, precision, recall, density, coverage and MMD, all of
the class token of DINOv2 ViT-L/14.

FDD of all samples against the reference's moments; neighbours (k = 5) among 10,000 of each, MMD of 100 subsets of 1000.
The official toolkit draws both without a seed; here `seed` chooses them, so that a number can be had again.
"""

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32

from gear import ranks
from gear.data import DataError
from gear.data.crop import Interpolation
from gear.evaluate import images, npz
from gear.evaluate.adm import FEW, Found, MeasureError, alike, counted, distance, kernel_distance, share
from gear.evaluate.dino import FEATURES
from gear.evaluate.extract import Detector, Stored, features
from gear.evaluate.frechet import Gaussian
from gear.evaluate.neighbours import prdc
from gear.store import cache
from gear.store.packages import sha256

K = 5  # nearest neighbours
COMPARED = 10_000  # of each set, for neighbours
USUAL = 50_000  # samples of published numbers
MEAN, COVARIANCE, EMBEDDINGS = "dino_mu", "dino_sigma", "dino_embeddings"  # in test_stats.npz
APART = 0.01  # of a channel's spread, by which a mean may differ from that of the embeddings without a warning


@dataclass(frozen=True)
class Reference:
    """
    gaussian: for FDD. embeddings: of single images, for the rest. about: for results.json. warnings: sentences.
    """

    gaussian: Gaussian
    embeddings: Float32[np.ndarray, "m D"]
    about: dict[str, Any]
    warnings: list[str]


def from_file(path: Path, channels: int) -> Reference:
    """test_stats.npz: dino_mu (D), dino_sigma (D, D), dino_embeddings (m, D); "key" and "tar_idx" are not needed.

    Raises `DataError` for a file without these, of another network than one of `channels`, or damaged.
    """
    there = npz.keys(path)
    if missing := [key for key in (MEAN, COVARIANCE, EMBEDDINGS) if key not in there]:
        raise DataError(
            f"{path} lacks {', '.join(missing)}: a reference of GPIC is its test_stats.npz; this holds "
            f"{', '.join(there)}."
        )
    try:
        with np.load(path) as arrays:
            mu, sigma, embeddings = (arrays[key] for key in (MEAN, COVARIANCE, EMBEDDINGS))
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError) as error:
        raise DataError(f"{path} is not a whole .npz file ({error}): download it again.") from error
    for key, value, shape in (
        (MEAN, mu, (channels,)),
        (COVARIANCE, sigma, (channels, channels)),
        (EMBEDDINGS, embeddings, (len(embeddings) if embeddings.ndim else 0, channels)),
    ):
        if value.shape != shape or value.dtype.kind != "f":
            raise DataError(
                f"{path}: {key} must be real numbers of shape {shape}, of a network of {channels} channels; it is "
                f"{value.dtype} of shape {value.shape}."
            )
        if not np.isfinite(value).all():
            raise DataError(f"{path}: {key} holds NaN or infinity: download it again.")
    embeddings = embeddings.astype(np.float32, copy=False)
    mean, covariance = (torch.from_numpy(value.astype(np.float64)) for value in (mu, sigma))
    spread = np.sqrt(np.clip(sigma.diagonal(), 1e-12, None))
    apart = float((np.abs(embeddings.mean(0, dtype=np.float64) - mu) / spread).max()) if len(embeddings) else 0.0
    warnings = []
    if apart > APART:
        warnings.append(
            f"{path.name}: {MEAN} is up to {apart:.2g} standard deviations from the mean of {EMBEDDINGS}: FDD and the "
            "other numbers are against different images."
        )
    about = {"kind": "gpic", "path": str(path), "n": len(embeddings), "sha256": sha256(path)}
    return Reference(Gaussian(mean, covariance, len(embeddings)), embeddings, about, warnings)


def opened(
    where: str, detector: Detector, resolution: int | None = None, interpolation: Interpolation = "bicubic"
) -> Reference:
    """`from_file` of an .npz that has no images in it, else `from_images`. Every rank must call it."""
    path = Path(where).expanduser()
    if path.suffix.lower() == ".npz" and path.is_file() and npz.KEY not in npz.keys(path):
        return from_file(path, detector.channels[FEATURES])
    return from_images(where, detector, resolution, interpolation)


def from_images(
    where: str, detector: Detector, resolution: int | None = None, interpolation: Interpolation = "bicubic"
) -> Reference:
    """Of any images; features are kept in the cache. Every rank must call it; only rank 0's is to be used."""
    source = images.opened(where, resolution, interpolation, what="a reference")
    found = features(
        detector, source, len(source), cache.directory() / "features", title="reference", count=(FEATURES,)
    )
    about = source.about() | {"pixels_sha256": found.pixels}
    if ranks.rank() > 0:
        nothing = torch.zeros(0, dtype=torch.float64)
        return Reference(Gaussian(nothing, nothing[:, None], 0), np.zeros((0, 1), np.float32), about, [])
    return Reference(found.moments(FEATURES).gaussian(), found.array(FEATURES), about, [])


def gpic(samples: Stored, reference: Reference, *, seed: int = 0, interval: bool | None = None) -> Found:
    """All numbers, on rank 0. samples: with "cls". seed: of what is chosen, and of the interval's groups. interval:
    whether FDD gets one, which takes half a minute; None: where n < 10,000. Raises `MeasureError` for 5 samples or
    fewer, on either side, and for samples that are all the same."""
    n, m = samples.n, len(reference.embeddings)
    if min(n, m) <= K:
        raise MeasureError(
            f"neighbours need more than {K} images in each set; there are {n} samples, {m} in the reference."
        )
    fake, real = samples.array(FEATURES), reference.embeddings
    copies = alike(fake)
    few = n < FEW if interval is None else interval
    metrics = {"fdd": distance("fdd", fake, samples.moments(FEATURES), reference.gaussian, few, seed)}
    random = np.random.default_rng(seed)
    some = [np.sort(random.permutation(len(of))[:COMPARED]) for of in (real, fake)]
    with counted("neighbours") as progress:
        near = prdc(real[some[0]], fake[some[1]], K, progress=progress)
    note = f"k = {K}, {len(some[0]):,} of the reference"
    for name in ("precision", "recall", "density", "coverage"):
        metrics[name] = share(near.each[name], len(some[1]), few, note, seed)
    metrics["mmd"] = kernel_distance(fake, real, few, seed)  # KID's kernel and estimator, of DINOv2's features
    return Found(metrics, reference.warnings + copies + _few(n, m, samples.channels[FEATURES]))


def _few(n: int, m: int, channels: int) -> list[str]:
    said = []
    if n <= channels:
        said.append(
            f"fdd: {n:,} samples are no more than the {channels:,} dimensions of the features: their covariance is "
            "singular, and the distance says little. Read mmd, or draw more."
        )
    elif n < USUAL:
        said.append(f"fdd: published numbers are of {USUAL:,} samples, these of {n:,}: theirs would be lower.")
    if min(n, m) < COMPARED:
        said.append(
            f"precision, recall, density, coverage: published numbers are of {COMPARED:,} images of each set, these of "
            f"{min(n, COMPARED):,} and {min(m, COMPARED):,}; they depend on that."
        )
    return said
