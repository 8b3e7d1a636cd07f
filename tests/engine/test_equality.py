"""The same run for any number of ranks, whichever way the work is split: losses, weights, averages and moments, in
float64, where the order of summation is all that is left to differ. The ranks are real ones, started by torchrun."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

WORKER = Path(__file__).parent / "worker.py"
EVERY = ["gear VQ", "gear LFQ", "gear IBQ", "warm-up", "frozen", "naive", "gear text", "frozen text"]
TOLERANCE = 1e-9  # relative to the largest element of each tensor; of float64, whose resolution is 2e-16


def results(size: int, out: Path, names: list[str]) -> dict[str, torch.Tensor]:
    """By "CASE/ENGINE/KEY". One process is started without a launcher."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(size)] if size > 1 else []
    command, env = [sys.executable, *launcher, str(WORKER), str(out), *names], os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stderr[-5000:]
    assert "Warning" not in done.stderr
    return load_file(out)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    names = [f"{case}/" for case in [*EVERY, "each image", "frozen, each image"]]
    names += ["gear VQ/recompute", "each image/accumulate"]
    return results(1, tmp_path_factory.mktemp("alone") / "out", names)


def require_equal(
    found: dict[str, torch.Tensor], alone: dict[str, torch.Tensor], name: str, exactly: bool = False
) -> None:
    case = name.split("/")[0]
    mine = {key.removeprefix(f"{name}/"): t for key, t in found.items() if key.startswith(f"{name}/")}
    wanted = {key.removeprefix(f"{case}//"): t for key, t in alone.items() if key.startswith(f"{case}//")}
    assert mine.keys() == wanted.keys()
    assert len(wanted) > 50
    for key, t in wanted.items():
        if "accumulate" in name and key.endswith(".entropy"):  # of the parts' batches; its weight is 0 in these cases
            continue
        limit = 0.0 if exactly else TOLERANCE * max(1e-3, t.abs().max().item())
        assert (mine[key].double() - t.double()).abs().max() <= limit, (name, key)


@pytest.mark.parametrize("name", ["gear VQ/recompute", "each image/accumulate"])
def test_one_process(alone: dict[str, torch.Tensor], name: str) -> None:
    require_equal(alone, alone, name, exactly=name.endswith("recompute"))


def test_two_ranks(alone: dict[str, torch.Tensor], tmp_path: Path) -> None:
    names = [f"{case}/" for case in EVERY]
    names += [f"gear {quantizer}/shard" for quantizer in ("VQ", "LFQ", "IBQ")]
    names += ["frozen/shard", "gear VQ/shard, recompute", "naive/recompute", "gear text/shard, recompute"]
    names += ["gear VQ/compile", "gear IBQ/shard, compile", "frozen/compile", "gear text/compile"]
    names += ["each image/accumulate", "each image/shard, accumulate, recompute", "frozen, each image/accumulate"]
    found = results(2, tmp_path / "out", names)
    for name in names:
        require_equal(found, alone, name)


def test_four_ranks(alone: dict[str, torch.Tensor], tmp_path: Path) -> None:
    names = ["gear VQ/", "gear IBQ/shard", "each image/accumulate"]
    found = results(4, tmp_path / "out", names)
    for name in names:
        require_equal(found, alone, name)


def test_compiled_blocks(alone: dict[str, torch.Tensor], tmp_path: Path) -> None:
    for name in ("gear VQ/compile", "each image/compile, accumulate"):
        require_equal(results(1, tmp_path / "out", [name]), alone, name)
