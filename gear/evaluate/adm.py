"""The ADM protocol (Dhariwal and Nichol 2021): gFID, sFID, Inception Score, precision and recall; and KID beside them.

As OpenAI's evaluator.py computes them from its TensorFlow graph: moments and images of the reference as in its file,
the Inception Score of 5,000 images at a time in their order, neighbours among all samples and the reference's 10,000
images with k = 3. Distances between neighbours are in higher precision than its float16, see `neighbours`.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64

from gear.evaluate.bootstrap import frechet_jackknife, jackknife, mean_interval
from gear.evaluate.extract import Stored
from gear.evaluate.frechet import Gaussian, Moments, frechet
from gear.evaluate.inception_score import inception_score
from gear.evaluate.kernel import kid, mmd2_interval
from gear.evaluate.neighbours import precision_recall
from gear.evaluate.reference import Measured
from gear.evaluate.results import Metric
from gear.progress import bars

K = 3  # nearest neighbours
SPLIT = 5000  # images of one Inception Score
FEW = 10_000  # samples below which a Frechet distance is mostly its bias, and intervals are worth their time
ROUNDING = 1e-4  # of the largest feature: what is closer is the same image
BESIDE = 3  # neighbours along the direction that are looked at
COPIES = 0.01  # share of samples equal to an earlier one, above which it is said


class MeasureError(ValueError):
    """Samples that cannot be measured: what was needed, what came."""


@dataclass(frozen=True)
class Found:
    metrics: dict[str, Metric]
    warnings: list[str]


def adm(samples: Stored, reference: Measured, *, seed: int = 0, resamples: bool | None = None) -> Found:
    """All numbers that the features allow, on rank 0.

    samples: with "pool", "spatial" and, for the Inception Score, "logits". seed: of the subsets of KID and the groups
    of the intervals. resamples: whether the distances get intervals, which takes a minute; None: where n < `FEW`.
    Raises `MeasureError` for fewer than `K` + 1 samples, and for samples that are all the same.
    """
    n = samples.n
    if n <= K:
        raise MeasureError(f"the ADM protocol needs more than {K} samples, and means something with 50,000; {n} came.")
    pool = samples.array("pool")
    warnings = _few(n, pool.shape[1]) + alike(pool) + few_references(reference.moments["pool"].n, pool.shape[1])
    few = n < FEW if resamples is None else resamples
    metrics: dict[str, Metric] = {}
    for metric, name in (("gfid", "pool"), ("sfid", "spatial")):
        array = pool if name == "pool" else samples.array(name)
        metrics[metric] = distance(metric, array, samples.moments(name), reference.moments[name], few, seed)
    if "logits" in samples.channels:
        metrics["inception_score"] = _inception_score(samples.array("logits"), few, seed)
        if n < 2 * SPLIT:
            warnings.append(f"inception_score: {n:,} images make {-(-n // SPLIT)} of the 10 splits of {SPLIT:,}.")
    else:
        warnings.append(
            "inception_score is left out: these Inception weights have no classifier. `gear fetch "
            "inception-torch-fidelity` brings those that have one, or with --from weights-inception-2015-12-05-"
            "6726825d.pth of torch-fidelity (pt_inception-2015-12-05-6726825d.pth of pytorch-fid is the same file)."
        )
    compared = reference.compared
    if len(compared) > K:
        with counted("precision, recall") as progress:
            pr = precision_recall(compared, pool, K, progress=progress)
        note = f"k = {K}, against {len(compared):,} reference images"
        metrics |= {name: share(pr.each[name], n, few, note, seed) for name in ("precision", "recall")}
        metrics["kid"] = kernel_distance(pool, compared, few, seed)
    else:
        warnings.append(f"precision, recall and kid are left out: the reference has {len(compared)} images.")
    return Found(metrics, warnings)


def share(each: Float64[np.ndarray, "_"], n: int, interval: bool, note: str, seed: int = 0) -> Metric:
    """The mean of a value an image, with a 95 % bootstrap interval over these images, in which the other set and the
    reaches stay as they are. n: of the samples."""
    span = mean_interval(each, seed=seed) if interval else None
    return Metric(float(each.mean()), n, None if span is None else (span.low, span.high), note)


def _inception_score(logits: Float32[np.ndarray, "n _"], interval: bool, seed: int) -> Metric:
    """With a 95 % interval of the delete-a-group jackknife: copies, which a bootstrap makes, lower the score."""
    score = inception_score(logits, SPLIT)
    span = None
    if interval and len(logits) > 1:
        with counted("interval of inception_score"):
            found = jackknife(lambda kept: inception_score(logits[kept], SPLIT).mean, len(logits), seed=seed)
        span = (found.interval.low, found.interval.high)
    return Metric(score.mean, len(logits), span, f"mean of {score.splits} splits, sd {score.sd:.4g}")


def kernel_distance(
    samples: Float32[np.ndarray, "n D"], reference: Float32[np.ndarray, "m D"], interval: bool, seed: int = 0
) -> Metric:
    """KID, with a 95 % bootstrap interval over the images of both sets if `interval`."""
    with counted("kid") as progress:
        found = kid(samples, reference, seed=seed, progress=progress)
    note = f"{found.subsets} subsets of {found.size}, sd {found.sd:.4g}"
    if not interval:
        return Metric(found.mean, len(samples), note=note)
    with counted("interval of kid") as progress:
        span = mmd2_interval(samples, reference, seed=seed, progress=progress)
    return Metric(found.mean, len(samples), (span.low, span.high), note)


def distance(
    name: str,
    features: Float32[np.ndarray, "n D"],
    moments: Moments,
    reference: Gaussian,
    interval: bool,
    seed: int = 0,
) -> Metric:
    """The Frechet distance, with a 95 % interval of `frechet_jackknife` if `interval`: what other samples would give at
    this n, not what more samples would. name: on the progress bar."""
    n = len(features)
    if not interval:
        return Metric(frechet(moments.gaussian(), reference), n)
    with counted(f"interval of {name}") as progress:
        found = frechet_jackknife(features, reference, seed=seed, progress=progress)
    note = f"interval at this n; bias of few samples about {found.bias:.4g}"
    return Metric(found.value, n, (found.interval.low, found.interval.high), note)


@contextmanager
def counted(title: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar, as what takes the things done and all of them."""
    with bars() as shown:
        bar = shown.add_task(title, total=None, note="")
        yield lambda done, total: shown.update(bar, completed=done, total=total)


def few_references(m: int, channels: int) -> list[str]:
    """m: images behind the reference's moments; 0 where its file does not say."""
    if 0 < m <= channels:
        return [
            f"the reference: {m:,} images are no more than the {channels:,} dimensions of the features: its covariance "
            "is singular, and Frechet distances to it say little. Give more, or read kid."
        ]
    if 0 < m < FEW:
        return [f"the reference: of {m:,} images, Frechet distances to it are higher than to more; compare at equal m."]
    return []


def _few(n: int, channels: int) -> list[str]:
    said = []
    if n <= channels:
        said.append(
            f"gfid, sfid: {n:,} samples are no more than the {channels:,} dimensions of the features: their covariance "
            "is singular, and the distances say little. Read kid, or draw more."
        )
    if n < FEW:
        said.append(
            f"gfid, sfid: of {n:,} samples both are far above those of the usual 50,000, by a bias that falls with n: "
            "compare them only at equal n; kid has no such bias."
        )
    elif n < 50_000:
        said.append(f"gfid, sfid: published numbers are of 50,000 samples, these of {n:,}: theirs would be lower.")
    return said


def alike(features: Float32[np.ndarray, "n D"]) -> list[str]:
    """Whether samples are copies of others. Raises `MeasureError` if all are the same.

    A network rounds differently in a batch of another size, so copies are close to the last digits, not equal: they are
    looked for beside each other along a random direction.
    """
    along = features @ np.random.default_rng(0).standard_normal(features.shape[1], np.float32)
    order, copy = np.argsort(along), np.zeros(len(features), dtype=bool)
    for gap in range(1, min(BESIDE, len(order) - 1) + 1):
        for some in np.array_split(np.arange(len(order) - gap), len(order) // 4096 + 1):
            a, b = order[some], order[some + gap]
            apart = np.abs(features[b] - features[a]).max(1)
            copy[b] |= apart <= ROUNDING * np.abs(features[a]).max(1)
    same = int(copy.sum())
    if same == len(features) - 1:
        raise MeasureError(
            f"all {len(features)} samples are the same image: look at them; a collapsed generator, or one seed for "
            "all, makes such."
        )
    copies = same / len(features)
    return [f"{copies:.1%} of the samples are copies of others."] if copies > COPIES else []
