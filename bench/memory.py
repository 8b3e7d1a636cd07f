"""What a piece of code adds to the memory of its process, which should be a fresh one, or of the GPU."""

import ctypes
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch


def growth(work: Callable[[], object], device: str) -> float:
    """MiB that the peak of `work` is above what was held before it: of the resident set on the CPU, of the allocator on
    CUDA."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    before = held()
    work()
    return (resident_peak() - before) / 2**10


def held() -> int:
    """KiB resident now; the peak starts there anew, where Linux lets it."""
    with suppress(AttributeError):  # glibc's alone
        ctypes.CDLL(None).malloc_trim(0)  # what is free would take in the first of what the work needs, unseen
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return resident_peak()


def resident_peak() -> int:
    """KiB, of this process alone (ru_maxrss would start at the parent's)."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])
