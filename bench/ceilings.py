"""How fast this machine can be: a large matrix product, large memory, many exponentials. Floors are made of these.

python -m bench.ceilings    # a line for each
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache

import torch

from bench.asked import add_device

SIDE = {"cpu": 2048, "cuda": 8192}  # of the matrix product
COPIED = {"cpu": 1 << 28, "cuda": 1 << 31}  # bytes, far more than a cache holds
EXPONENTIALS = {"cpu": 1 << 16, "cuda": 1 << 28}  # of a call: what a core's cache holds; enough to fill a GPU
REPEATED = {"cpu": 100, "cuda": 1}
TRIES = 7


@dataclass(frozen=True)
class Ceilings:
    """float32, bfloat16: operations a second of a matrix product, two for each multiply-add. bandwidth: bytes a second,
    read and written, of a copy or of a multiplication in place, whichever is faster: on a CPU a copy also reads what it
    writes over. exponentials: float32 ones a second, to
    the base 2 as gear takes them, by torch, in cache. Each the best of `TRIES`."""

    float32: float
    bfloat16: float
    bandwidth: float
    exponentials: float

    def floor(
        self, float32: float = 0.0, bfloat16: float = 0.0, moved: float = 0.0, exponentials: float = 0.0
    ) -> float:
        """Seconds: the products, the exponentials, or the bytes, whichever takes longer; all at once where a machine
        can."""
        products = float32 / self.float32 + bfloat16 / self.bfloat16
        return max(products, exponentials / self.exponentials, moved / self.bandwidth)


@cache
def ceilings(device: str) -> Ceilings:
    """Measured once in a process, on as many threads as torch has then."""
    source = torch.ones(COPIED[device] // 4, device=device)
    target = torch.empty_like(source)
    seconds = min(best(lambda: target.copy_(source), device), best(lambda: source.mul_(1.0), device))
    products = product(device, torch.float32), product(device, torch.bfloat16)
    return Ceilings(*products, 2 * COPIED[device] / seconds, exponential(device))


def product(device: str, dtype: torch.dtype) -> float:
    """Operations a second."""
    n = SIDE[device]
    a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    return 2 * n**3 / best(lambda: torch.mm(a, b), device)


def exponential(device: str) -> float:
    """Exponentials a second."""
    x, times = torch.linspace(-20, 0, EXPONENTIALS[device], device=device), REPEATED[device]
    y = torch.empty_like(x)

    def work() -> None:
        for _ in range(times):
            torch.exp2(x, out=y)

    return times * x.numel() / best(work, device)


def best(work: Callable[[], object], device: str) -> float:
    """Seconds of the fastest of `TRIES`."""
    seconds = []
    for _ in range(TRIES):
        start = time.perf_counter()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.ceilings", description=(__doc__ or "").partition("\n")[0])
    add_device(parser)
    for name, value in asdict(ceilings(parser.parse_args().device)).items():
        print(f"{name}: {value:.3g} a second")


if __name__ == "__main__":
    main()
