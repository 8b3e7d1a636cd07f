"""The ADM protocol (Dhariwal and Nichol 2021): gFID, sFID, Inception Score, precision and recall; and KID beside them.

As OpenAI's evaluator.py computes them from its TensorFlow graph: moments and images of the reference as in its file,
the Inception Score of 5,000 images at a time in their order, neighbours among all samples and the reference's 10,000
images with k = 3. Distances between neighbours are in higher precision than its float16, see `neighbours`.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from gear.evaluate.bootstrap import frechet_jackknife
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
    warnings = _few(n, samples.channels) + _alike(pool)
    few = n < FEW if resamples is None else resamples
    metrics: dict[str, Metric] = {}
    for metric, name in (("gfid", "pool"), ("sfid", "spatial")):
        array = pool if name == "pool" else samples.array(name)
        metrics[metric] = distance(metric, array, samples.moments(name), reference.moments[name], few, seed)
    if "logits" in samples.channels:
        score = inception_score(samples.array("logits"), SPLIT)
        note = f"mean of {score.splits} splits, sd {score.sd:.4g}"
        metrics["inception_score"] = Metric(score.mean, n, note=note)
        if n < 2 * SPLIT:
            warnings.append(f"inception_score: {n:,} images make {score.splits} of the 10 splits of {SPLIT:,}.")
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
        metrics |= {"precision": Metric(pr.precision, n, note=note), "recall": Metric(pr.recall, n, note=note)}
        metrics["kid"] = kernel_distance(pool, compared, few, seed)
    else:
        warnings.append(f"precision, recall and kid are left out: the reference has {len(compared)} images.")
    return Found(metrics, warnings)


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


def _few(n: int, channels: dict[str, int]) -> list[str]:
    said = []
    if n < channels["pool"]:
        said.append(
            f"gfid, sfid: {n:,} samples are fewer than the {channels['pool']:,} dimensions of the features: their "
            "covariance is singular, and the distances say little. Read kid, or draw more."
        )
    if n < FEW:
        said.append(
            f"gfid, sfid: of {n:,} samples both are far above those of the usual 50,000, by a bias that falls with n: "
            "compare them only at equal n; kid has no such bias."
        )
    elif n < 50_000:
        said.append(f"gfid, sfid: published numbers are of 50,000 samples, these of {n:,}: theirs would be lower.")
    return said


def _alike(pool: Float32[np.ndarray, "n D"]) -> list[str]:
    """Raises `MeasureError` if all samples are the same."""
    different = len({row.tobytes() for row in pool})
    if different == 1:
        raise MeasureError(
            f"all {len(pool)} samples are the same image: look at them; a collapsed generator, or one seed for all, "
            "makes such."
        )
    copies = 1 - different / len(pool)
    return [f"{copies:.1%} of the samples are copies of others."] if copies > COPIES else []
