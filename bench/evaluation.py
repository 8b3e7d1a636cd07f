"""The statistics of an evaluation against the code that people use for them.

Frechet: in `D` channels, against the matrix square root of pytorch-fid and the ADM evaluator (scipy's sqrtm). What
bounds it: one symmetric eigenvalue problem, of which half is memory-bound.

precision, recall: `N` images of each set, k = 3, against torch-fidelity's way with all distances at once. Ours are in
float64, which copies of an image need; seconds here, and the growth of the resident set of a fresh process per side.
What bounds it: 3 N^2 D multiply-adds.

KID: 10 subsets of 1000, against torch-fidelity's. SSIM: of `IMAGES` images of `SIDE` px, against a loop over them
with scikit-image.

The large rows are measured once: the sides differ by more than the machine does.
"""

import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from scipy.linalg import sqrtm
from skimage.metrics import structural_similarity
from torch import Tensor
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import calculate_precision_recall_full

from bench.memory import growth
from bench.table import Row, alternating
from gear.evaluate.frechet import Gaussian, frechet
from gear.evaluate.kernel import kid
from gear.evaluate.neighbours import precision_recall
from gear.evaluate.similarity import ssim

D, N, SUBSET = 2048, 5000, 1000
IMAGES, SIDE = 16, 256
ROUNDS = 2


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def gaussians() -> tuple[Gaussian, Gaussian]:
    """Of 5/4 as many images as channels, whose variances span three decades, as Inception's do."""
    random = torch.Generator().manual_seed(0)
    n, spread = D * 5 // 4, torch.logspace(0, -1.5, D, dtype=torch.float64)

    def one() -> Gaussian:
        x = torch.randn(n, D, dtype=torch.float64, generator=random) * spread
        return Gaussian(x.mean(0), torch.cov(x.T), n)

    return one(), one()


def by_root(a: Gaussian, b: Gaussian) -> float:
    root: Any = sqrtm(a.covariance.numpy() @ b.covariance.numpy())
    within = a.covariance.trace() + b.covariance.trace()
    return ((a.mean - b.mean).square().sum() + within).item() - 2 * float(np.trace(root).real)


def features() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    a, b = (np.abs(random.standard_normal((N, D), np.float32)) for _ in range(2))
    return a, b


def ours(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    found = precision_recall(a, b)
    return found.precision, found.recall


def all_at_once(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    return calculate_precision_recall_full(torch.from_numpy(b), torch.from_numpy(a), 3)


SIDES = {"ours": ours, "plain": all_at_once}


def peak(side: str) -> float:
    """MiB above the features, in a process of its own."""
    command = [sys.executable, "-m", "bench.evaluation", side]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def photos() -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (IMAGES, 3, SIDE, SIDE), dtype=torch.uint8, generator=random)
    return x, x // 2


def one_by_one(x_hat: Tensor, x: Tensor) -> Tensor:
    pairs = zip(x_hat.numpy(), x.numpy(), strict=True)
    return torch.tensor([structural_similarity(a / 255, b / 255, data_range=1, channel_axis=0) for a, b in pairs])


def run() -> list[Row]:
    a, b = gaussians()
    start = time.perf_counter()
    expected = by_root(a, b)
    plain = time.perf_counter() - start
    assert abs(frechet(a, b) - expected) < 1e-6 * expected  # a fast wrong answer is worth nothing
    t, spread = alternating({"ours": lambda: seconds(lambda: frechet(a, b))}, ROUNDS)
    rows = [Row("Frechet", "s", t["ours"], plain, 0.3, spread, "eigenvalues")]

    x, y = features()
    found: dict[str, tuple[float, float]] = {}
    t = {name: seconds(lambda name=name, side=side: found.update({name: side(x, y)})) for name, side in SIDES.items()}
    np.testing.assert_allclose(found["ours"], found["plain"], atol=2 / len(x))
    m = {name: peak(name) for name in SIDES}
    rows += [
        Row("precision, recall", "s", t["ours"], t["plain"], 2.0, None, "float64 products"),
        Row("precision, recall", "MiB", m["ours"], m["plain"], 0.5, None, "N D in float64"),
    ]
    options = {"kid_subsets": 10, "kid_subset_size": SUBSET, "rng_seed": 0, "verbose": False}
    sides = {
        "ours": lambda: seconds(lambda: kid(x, y, 10, SUBSET)),
        "plain": lambda: seconds(lambda: kid_features_to_metric(torch.from_numpy(x), torch.from_numpy(y), **options)),
    }
    t, spread = alternating(sides, ROUNDS)
    rows.append(Row("KID, 10 subsets", "s", t["ours"], t["plain"], 1.1, spread, "products"))

    x_hat, original = photos()
    torch.testing.assert_close(ssim(x_hat, original), one_by_one(x_hat, original).double(), rtol=0, atol=1e-9)
    sides = {
        "ours": lambda: seconds(lambda: ssim(x_hat, original)),
        "plain": lambda: seconds(lambda: one_by_one(x_hat, original)),
    }
    t, spread = alternating(sides, ROUNDS)
    return [*rows, Row("SSIM", "s", t["ours"], t["plain"], 1.0, spread, "memory")]


if __name__ == "__main__":
    x, y = features()
    _ = torch.from_numpy(x[:64]) @ torch.from_numpy(y[:64]).T  # the libraries' own first allocations are nobody's
    print(growth(partial(SIDES[sys.argv[1]], x, y), "cpu"))
