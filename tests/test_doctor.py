"""`gear doctor`: every shortage is named with a cure, nothing crashes, the exit code says if there is a problem."""

import io
import os
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console

from gear import doctor, weights
from gear.doctor import Finding, diagnose, print_report

ROOT = Path(__file__).parent.parent


def only(findings: list[Finding]) -> Finding:
    assert len(findings) == 1
    return findings[0]


def report(findings: list[Finding], width: int = 80) -> tuple[int, str]:
    console = Console(file=io.StringIO(), width=width)
    code = print_report(findings, console)
    assert isinstance(console.file, io.StringIO)
    return code, console.file.getvalue()


def test_this_machine(tmp_path: Path) -> None:
    findings = diagnose(tmp_path / "runs" / "not yet")
    names = [f.name for f in findings]
    for name in ("Python", "torch", "torchvision", "CPU", "memory", "disk", "runs folder", "cache folder"):
        assert name in names
    assert all(f.cure for f in findings if f.state != "ok")
    assert not any("this check failed" in f.found for f in findings)
    assert not (tmp_path / "runs").exists()  # diagnosing leaves nothing behind


def test_importing_the_doctor_imports_no_torch() -> None:
    code = (
        "import sys, importlib.util as u; s = u.spec_from_file_location('d', 'gear/doctor.py');"
        "m = sys.modules['d'] = u.module_from_spec(s); s.loader.exec_module(m); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_a_check_that_raises_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> list[Finding]:
        raise KeyError("[/red] no such thing")

    monkeypatch.setattr(doctor, "memory", broken)
    monkeypatch.setattr(doctor, "torch_pair", list)  # takes seconds
    finding = only([f for f in diagnose() if f.name == "memory"])
    assert finding.state == "problem"
    assert "KeyError" in finding.found
    code, text = report([finding])
    assert code == 1
    assert "[/red] no such thing" in text  # not read as markup


@pytest.mark.parametrize(
    ("body", "state", "said"),
    [
        ("", "ok", ""),
        ("raise RuntimeError('operator torchvision::nms does not exist')", "problem", "scripts/torchvision_ops.py"),
        ("import os; os.abort()", "problem", "--force-reinstall"),
    ],
)
def test_torchvision_beside_torch(
    body: str, state: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torchvision.py").write_text(body)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    finding = only(doctor.torch_pair())
    assert finding.state == state
    assert said in finding.cure


def test_old_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.metadata, "version", lambda name: "2.5.1+cu121")
    finding = only(doctor.torch_version())
    assert (finding.state, finding.found) == ("problem", "2.5.1+cu121; gear needs 2.6")


def test_no_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise doctor.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(doctor.metadata, "version", missing)
    states = {f.name: f.state for f in diagnose()}
    assert states["torch"] == states["torchvision"] == "problem"


@pytest.mark.parametrize(
    ("version", "state", "cure"),
    [
        (None, "warn", "pip install 'gear[text]'"),
        ("4.57.1", "warn", "pip install --upgrade 'gear[text]'"),
        ("5.0.0rc1", "ok", ""),
    ],
)
def test_transformers(version: str | None, state: str, cure: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def installed(_: str) -> str:
        if version is None:
            raise metadata.PackageNotFoundError
        return version

    monkeypatch.setattr(doctor.metadata, "version", installed)
    finding = only(doctor.transformers())
    assert (finding.state, finding.cure) == (state, cure)
    assert f'"transformers>={doctor.TRANSFORMERS}"' in (ROOT / "pyproject.toml").read_text()


@pytest.mark.parametrize(("major", "state"), [(9, "ok"), (7, "warn")])
def test_gpu(major: int, state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    properties = SimpleNamespace(name="Card", major=major)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: properties)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: (10 * 2**30, 24 * 2**30))
    findings = doctor.gpus()
    assert [f.name for f in findings] == ["GPU 0", "GPU 1"]
    assert findings[1].state == state
    assert "10 of 24 GiB free" in findings[1].found


@pytest.mark.parametrize(("driver", "state"), [(None, "ok"), ("/usr/bin/nvidia-smi", "warn")])
def test_no_gpu(driver: str | None, state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(doctor.shutil, "which", lambda name: driver)
    finding = only(doctor.gpus())
    assert finding.state == state
    assert "the CPU is used" in finding.found


@pytest.mark.parametrize(("free", "state"), [(0.5, "problem"), (5, "warn"), (50, "ok")])
def test_disk(free: float, state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda folder: SimpleNamespace(free=free * 2**30))
    assert only(doctor.disk(tmp_path)).state == state


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs a folder that not even root can write to")
def test_unwritable_folder() -> None:
    finding = only(doctor.write_permission("runs folder", Path("/proc"), "elsewhere"))
    assert (finding.name, finding.state, finding.cure) == ("runs folder", "problem", "elsewhere")
    assert "/proc" in finding.found


def test_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What is here, what is damaged, and in one line how many there are besides."""
    monkeypatch.setenv("GEAR_CACHE", str(tmp_path))
    damaged = weights.cached(weights.find("lpips-vgg"))
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(b"not it")
    found = {f.name: f for f in doctor.cached_weights()}
    assert found["lpips-alex"].state == "ok"
    assert (found["lpips-vgg"].state, str(damaged) in found["lpips-vgg"].found) == ("problem", True)
    assert "gear fetch lpips-vgg" in found["lpips-vgg"].cure
    assert "dinov2-b" not in found
    missing = sum(not w.present for w in weights.status()) - 1
    assert found["weights"].found.startswith(f"{missing} more can be fetched")


@pytest.mark.parametrize(("state", "code"), [("ok", 0), ("warn", 0), ("problem", 1)])
def test_exit_code(state: str, code: int) -> None:
    assert report([Finding("a", "ok", "b"), Finding("c", state, "d", "e")])[0] == code  # pyright: ignore[reportArgumentType]


def test_a_cure_is_one_line_however_narrow_the_terminal() -> None:
    cure = "pip install " + " ".join(f"package{i}" for i in range(20))
    assert cure in report([Finding("a", "warn", "b " * 60, cure)], width=40)[1]


def test_nearest_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    find: Callable[[str], Path] = lambda name: doctor.nearest_folder(Path(name))  # noqa: E731
    assert find("a/b") == find("file/b") == tmp_path
    assert find("/no/such/folder") == Path("/")
    assert os.path.samefile(find("."), tmp_path)
