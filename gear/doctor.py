"""What this machine has and lacks for GEAR, each shortage with its cure: `gear doctor`.

`diagnose` runs every check and never raises: a check that fails becomes a finding. torch and the weights are imported
inside the checks, so that importing this module is quick and a broken torch is a finding too.
"""

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

GIB = 2**30
TRANSFORMERS = 5  # major version, of the extra `text` in pyproject.toml
IMPORT_TIMEOUT = 120  # seconds for `import torchvision` in a fresh interpreter; it takes 2 to 10 from a cold disk


@dataclass(frozen=True)
class Finding:
    """One line of the report. `cure` is the next thing to do; empty where nothing is to be done."""

    name: str
    state: Literal["ok", "warn", "problem"]  # warn: works, with a limit; problem: some command will fail
    found: str
    cure: str = ""


def diagnose(runs: Path | str = "runs") -> list[Finding]:
    """Every check in a fixed order. `runs` is the folder that runs would be written to; it need not exist."""
    folder = nearest_folder(Path(runs))
    checks: dict[str, Callable[[], list[Finding]]] = {
        "Python": python,
        "torch": torch_version,
        "torchvision": torch_pair,
        "transformers": transformers,
        "GPU": gpus,
        "CPU": cores,
        "memory": memory,
        "disk": lambda: disk(folder),
        "runs folder": lambda: write_permission("runs folder", folder, "write runs elsewhere"),
        "cache folder": cache_folder,
        "weights": cached_weights,
    }
    return [finding for name, check in checks.items() for finding in attempt(name, check)]


def attempt(name: str, check: Callable[[], list[Finding]]) -> list[Finding]:
    """The findings of one check; an exception becomes a finding called `name`."""
    try:
        return check()
    except Exception as error:
        found = f"this check failed with {type(error).__name__}: {error}"
        return [Finding(name, "problem", found, "please report this line with your versions of Python and torch")]


def print_report(findings: list[Finding], console: Console | None = None) -> int:
    """Prints a table, then the cures. Returns the exit code: 1 if there is a problem, else 0."""
    console = console or Console()
    colours = {"ok": "green", "warn": "yellow", "problem": "red"}
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for f in findings:
        # Text, not str: a path or an error message may hold square brackets, which rich would read as markup.
        table.add_row(Text(f.state, style=colours[f.state]), Text(f.name), Text(f.found, overflow="fold"))
    console.print(table)
    console.print()
    for f in findings:
        if f.cure:  # outside the table and not wrapped, so that a command can be copied
            console.print(Text.assemble((f.name, colours[f.state]), f": {f.cure}"), soft_wrap=True)
    problems = [f.name for f in findings if f.state == "problem"]
    console.print(Text(f"Problems: {', '.join(problems)}." if problems else "No problems."))
    return int(bool(problems))


# ------------------------------------------------------------------------------------------------------- software


def python() -> list[Finding]:
    return [Finding("Python", "ok", f"{platform.python_version()} in {sys.prefix}")]


def torch_version() -> list[Finding]:
    found = metadata.version("torch")
    major, minor = (int(part) for part in found.split(".")[:2])
    if (major, minor) < (2, 6):
        return [Finding("torch", "problem", f"{found}; gear needs 2.6", "pip install --upgrade torch torchvision")]
    import torch

    build = "CPU only" if torch.version.cuda is None else f"CUDA {torch.version.cuda}"
    return [Finding("torch", "ok", f"{found}, {build}")]


def torch_pair() -> list[Finding]:
    """Imports torchvision in a fresh interpreter: a failed import in this one would leave half of it behind."""
    pair = f"{metadata.version('torchvision')} beside torch {metadata.version('torch')}"
    command = [sys.executable, "-c", "import torchvision"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=IMPORT_TIMEOUT, check=False)
    if done.returncode == 0:
        return [Finding("torchvision", "ok", pair)]
    error = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    cure = "pip install --force-reinstall torch torchvision"
    if "torchvision::nms" in error:
        pair += ", which it was not built for"
        cure = (
            f"in a clone of the project, {sys.executable} scripts/torchvision_ops.py; anywhere else, install torch and "
            "torchvision again, both from the same index (both for CPU or both for CUDA)"
        )
    return [Finding("torchvision", "problem", f"{pair}: {error}", cure)]


def transformers() -> list[Finding]:
    """Of its versions, those that the extra `text` asks for; the library itself, slow to import, is left alone."""
    needed = "captions (text-to-image), the CLIP score and the judges of prompts need it"
    try:
        found = metadata.version("transformers")
    except metadata.PackageNotFoundError:
        return [Finding("transformers", "warn", f"not installed; {needed}", "pip install 'gear[text]'")]
    if int(found.split(".")[0]) < TRANSFORMERS:
        cure = "pip install --upgrade 'gear[text]'"
        return [Finding("transformers", "warn", f"{found}, and {TRANSFORMERS} or newer is needed; {needed}", cure)]
    return [Finding("transformers", "ok", found)]


# ------------------------------------------------------------------------------------------------------- hardware


def gpus() -> list[Finding]:
    import torch

    if torch.cuda.is_available():
        return [gpu(index) for index in range(torch.cuda.device_count())]
    if shutil.which("nvidia-smi") and torch.version.cuda is None:
        found = "there is an NVIDIA driver, but this torch is built for the CPU: the CPU is used"
        return [Finding("GPU", "warn", found, "install a torch and a torchvision built for CUDA")]
    return [Finding("GPU", "ok", "none: the CPU is used")]


def gpu(index: int) -> Finding:
    import torch

    device = torch.cuda.get_device_properties(index)
    free, total = torch.cuda.mem_get_info(index)
    found = f"{device.name}, {free / GIB:.0f} of {total / GIB:.0f} GiB free"
    if device.major < 8:  # bfloat16 matrix units came with Ampere, compute capability 8
        return Finding(f"GPU {index}", "warn", f"{found}, no bfloat16 units", "train with --precision float32")
    return Finding(f"GPU {index}", "ok", found)


def cores() -> list[Finding]:
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    flags = cpuinfo.read_text() if (cpuinfo := Path("/proc/cpuinfo")).exists() else ""
    unit = next((unit for unit in ("amx_bf16", "avx512_bf16") if unit in flags), None)
    bfloat16 = f"bfloat16 in hardware ({unit})" if unit else "no bfloat16 in hardware: --precision float32 is faster"
    return [Finding("CPU", "ok", f"{count} core{'s' * (count != 1)}, {bfloat16}")]


def memory() -> list[Finding]:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
    if total < 4:
        return [Finding("memory", "warn", f"{total:.1f} GiB", "where 4 GiB are not there, use a smaller --batch")]
    return [Finding("memory", "ok", f"{total:.1f} GiB")]


def disk(folder: Path) -> list[Finding]:
    free = shutil.disk_usage(folder).free / GIB
    found = f"{free:.1f} GiB free at {folder}"
    if free < 1:
        return [Finding("disk", "problem", found, "free at least 1 GiB, or write runs elsewhere")]
    if free < 10:  # LlamaGen-L and its tokenizer, 0.41e9 parameters: float32 weights, EMA and two AdamW moments
        return [Finding("disk", "warn", found, "enough for small runs; a checkpoint of LlamaGen-L takes about 7 GiB")]
    return [Finding("disk", "ok", found)]


def write_permission(name: str, folder: Path, cure: str) -> list[Finding]:
    try:
        with tempfile.TemporaryFile(dir=folder):
            return [Finding(name, "ok", f"{folder} can be written to")]
    except OSError as error:
        return [Finding(name, "problem", f"cannot write to {folder}: {error.strerror}", cure)]


def cache_folder() -> list[Finding]:
    from gear.store import cache

    cure = "set GEAR_CACHE to a folder that can be written to"
    return write_permission("cache folder", nearest_folder(cache.directory()), cure)


def nearest_folder(path: Path) -> Path:
    """`path`, or the closest parent of it that exists."""
    path = path.absolute()
    return next(p for p in (path, *path.parents) if p.is_dir())


# -------------------------------------------------------------------------------------------------------- weights


def cached_weights() -> list[Finding]:
    """What is here, each; what is not, in one line: no recipe needs more than a few of them."""
    from gear.weights import status

    found, missing = [], 0
    for w in status():
        if w.present:
            found.append(Finding(w.name, "ok", str(w.path)))
        elif w.path.is_file():
            found.append(Finding(w.name, "problem", f"damaged: {w.path}", f"delete that file and run `{w.how}`"))
        else:
            missing += 1
    if missing:
        found.append(Finding("weights", "ok", f"{missing} more can be fetched: `gear fetch` lists them"))
    return found
