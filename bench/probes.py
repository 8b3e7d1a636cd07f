"""What a probe costs for each feature map beyond the networks' own passes, against the plain way.

A map is 1,000 images of 16 x 16 tokens and 1,024 channels, as a layer of LlamaGen-L at 256 px, against a target of 768
channels (DINOv2-B), with 4,096 patches. 24 layers are 28 such maps, of the embedding, the tokenizer and the target too,
and may take 300 s on two cores: 10 s each. Here half of its images and patches are read and compared.

Reading: the mean, the patches, Moran's I and the high frequencies of each image. Comparing: CKA, both ways, and CKNNA,
by image and by patch. The plain way transforms every channel of whole batches, and holds every kernel: n x n.
What bounds reading is memory, of which a map is read some ten times, and comparing n^2 D products.
"""

import time
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.table import Row, alternating
from gear.probe.features import Keeper, Kept, draw_positions
from gear.probe.measure import compare
from gear.probe.spatial import RADIUS

IMAGES, SIDE, CHANNELS, TARGET, PATCHES, K = 500, 16, 1024, 768, 2048, 10
BATCH = 32
ROUNDS = 2


def ours_reading(f: Tensor) -> Kept:
    """A batch of maps, as often as there are batches."""
    grid, N = (SIDE, SIDE), SIDE * SIDE
    keeper = Keeper(grid, draw_positions(IMAGES, N, PATCHES, 0), N)
    for start in range(0, IMAGES, BATCH):
        keeper.add("a map", f[: min(BATCH, IMAGES - start)], 0, start)
    return keeper.done()


def plain_reading(f: Tensor) -> Kept:
    drawn, N, parts = draw_positions(IMAGES, SIDE * SIDE, PATCHES, 0), SIDE * SIDE, []
    for start in range(0, IMAGES, BATCH):
        x = f[: min(BATCH, IMAGES - start)]
        at = drawn[(drawn >= start * N) & (drawn < (start + len(x)) * N)] - start * N
        parts.append((x.mean(1), x[at // N, at % N], plain_moran(x), plain_high(x)))
    return Kept(*(torch.cat(part) for part in zip(*parts, strict=True)))


def plain_moran(x: Tensor) -> Tensor:
    m = (x - x.mean(1, keepdim=True)).unflatten(1, (SIDE, SIDE))
    joined = (m[:, 1:] * m[:, :-1]).sum((1, 2)) + (m[:, :, 1:] * m[:, :, :-1]).sum((1, 2))
    return (joined / m.square().sum((1, 2))).mean(1) * SIDE / (2 * (SIDE - 1))


def plain_high(x: Tensor) -> Tensor:
    power = torch.fft.fft2(x.unflatten(1, (SIDE, SIDE)), dim=(1, 2)).abs().square().sum(3)
    v = torch.fft.fftfreq(SIDE)
    r = torch.hypot(v[:, None], v)
    return (power * (r > RADIUS)).sum((1, 2)) / (power * (r > 0)).sum((1, 2))


def ours_comparing(X: Tensor, Y: Tensor) -> tuple[float, float, float]:
    found = compare(X, Y, K)
    return found.cka, found.cka_unbiased, found.cknna


def plain_comparing(X: Tensor, Y: Tensor) -> tuple[float, float, float]:
    """By kernels, as papers write it and the code of CKNNA's authors computes it."""
    K_, L = (t - t.mean(0) for t in (X, Y))
    K_, L = K_ @ K_.T, L @ L.T
    cka = (K_ * L).sum() / (K_.norm() * L.norm())
    unbiased = eq5(K_, L) / (eq5(K_, K_) * eq5(L, L)).sqrt()
    K_, L = (t @ t.T for t in (F.normalize(X, dim=1), F.normalize(Y, dim=1)))
    k, l = near(K_), near(L)  # noqa: E741
    local = eq5(K_ * k * l, L * k * l) / (eq5(K_ * k, K_ * k) * eq5(L * l, L * l)).sqrt()
    return float(cka), float(unbiased), float(local)


def near(K_: Tensor) -> Tensor:
    top = K_.clone().fill_diagonal_(-torch.inf).topk(K, 1).indices
    return torch.zeros_like(K_).scatter_(1, top, 1)


def eq5(K_: Tensor, L: Tensor) -> Tensor:
    n, K_, L = len(K_), K_.clone().fill_diagonal_(0), L.clone().fill_diagonal_(0)
    between = K_.sum(0) @ L.sum(1)
    return (K_ * L.T).sum() + K_.sum() * L.sum() / ((n - 1) * (n - 2)) - 2 * between / (n - 2)


def run() -> list[Row]:
    torch.manual_seed(0)
    f = torch.randn(BATCH, SIDE * SIDE, CHANNELS).cumsum(1)
    a, b = ours_reading(f), plain_reading(f)
    for x, y in zip(vars(a).values(), vars(b).values(), strict=True):  # a fast wrong answer is worth nothing
        torch.testing.assert_close(x, y, rtol=1e-3, atol=1e-3)
    sets = [(X, X @ torch.randn(CHANNELS, TARGET) + 30 * torch.randn(len(X), TARGET)) for X in vectors()]
    for X, Y in sets:
        torch.testing.assert_close(
            torch.tensor(ours_comparing(X, Y)), torch.tensor(plain_comparing(X, Y)), rtol=0, atol=1e-3
        )

    def seconds(work, inputs: list[tuple[Tensor, ...]]) -> float:
        start = time.perf_counter()
        for each in inputs:
            work(*each)
        return time.perf_counter() - start

    reading = {"ours": partial(seconds, ours_reading, [(f,)]), "plain": partial(seconds, plain_reading, [(f,)])}
    comparing = {"ours": partial(seconds, ours_comparing, sets), "plain": partial(seconds, plain_comparing, sets)}
    r, r_spread = alternating(reading, ROUNDS)
    c, c_spread = alternating(comparing, ROUNDS)
    return [
        Row("probe: reading a map", "s", r["ours"], r["plain"], 0.5, r_spread, "memory"),
        Row("probe: comparing it", "s", c["ours"], c["plain"], 1.0, c_spread, "n^2 D products"),
    ]


def vectors() -> list[Tensor]:
    """Of images, and of patches."""
    return [torch.randn(IMAGES, CHANNELS), torch.randn(PATCHES, CHANNELS)]


if __name__ == "__main__":
    from bench.table import show

    show(run(), f"{torch.get_num_threads()} threads, torch {torch.__version__}")
