"""scripts/torchvision_ops.py: found by every interpreter of an environment, free until torchvision is imported.

The torchvision here is a stand-in that registers fake kernels for nms and qnms as the real one does, with or without a
library that loads: what happens beside another torch must not depend on the pair that is installed.
"""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "scripts" / "torchvision_ops.py"
STAND_IN = """
import torch
@torch.library.register_fake("torchvision::nms")
def _(dets, scores, iou_threshold): ...
@torch.library.register_fake("torchvision::qnms")
def _(dets, scores, iou_threshold): ...
"""


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """A folder with the stand-in for torchvision, whose compiled library was built for another torch."""
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text(STAND_IN)
    (package / "_C.so").write_text("not a library that can be loaded")
    return tmp_path


def interpreter(packages: Path, code: str, *, mended: bool) -> subprocess.CompletedProcess[str]:
    """Runs `code` in a fresh interpreter that sees the folder `packages`, its .pth files processed as at any start."""
    if mended:
        shutil.copyfile(SCRIPT, packages / "gear_torchvision_ops.py")
        (packages / "gear_torchvision_ops.pth").write_text(
            "import gear_torchvision_ops; gear_torchvision_ops.watch()\n"
        )
    start = f"""
import site, sys
sys.meta_path[:] = [finder for finder in sys.meta_path if type(finder).__name__ != "Watch"]  # of a mended environment
sys.modules.pop("gear_torchvision_ops", None)
sys.path.insert(0, {str(packages)!r})
site.addsitedir({str(packages)!r})
"""
    return subprocess.run([sys.executable, "-c", start + code], capture_output=True, text=True, check=False)


def test_without_it_the_import_fails(packages: Path) -> None:
    done = interpreter(packages, "import torchvision", mended=False)
    assert done.stderr.strip().endswith("operator torchvision::nms does not exist")


def test_with_it_the_import_works(packages: Path) -> None:
    code = """
assert 'gear_torchvision_ops' in sys.modules
assert not {'torch', 'subprocess'} & sys.modules.keys()  # nothing but itself at the start
finders = len(sys.meta_path)
import torchvision, torch
assert len(sys.meta_path) == finders - 1  # it has stepped aside
print(torch.ops.torchvision.nms.default._schema, torch.ops.torchvision.qnms.default._schema)
"""
    done = interpreter(packages, code, mended=True)
    assert done.returncode == 0, done.stderr
    arguments = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
    assert done.stdout.split("\n")[0] == f"torchvision::nms{arguments} torchvision::qnms{arguments}"


def test_no_torchvision_is_still_an_import_error(packages: Path) -> None:
    shutil.rmtree(packages / "torchvision")
    code = "sys.path[:] = [p for p in sys.path if 'site-packages' not in p]\nimport torchvision"
    done = interpreter(packages, code, mended=True)
    assert "ModuleNotFoundError: No module named 'torchvision'" in done.stderr


@pytest.mark.parametrize(
    ("errors", "written", "code"),
    [
        ([""], False, 0),  # the pair is fine
        (["RuntimeError: operator torchvision::nms does not exist", ""], True, 0),  # the trap, mended
        (
            ["RuntimeError: operator torchvision::nms does not exist", "ImportError: x"],
            False,
            1,
        ),  # mending did not help
        (["ModuleNotFoundError: No module named 'torch'"], False, 1),  # something else
    ],
)
def test_written_only_where_it_helps(
    errors: list[str], written: bool, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = importlib.util.spec_from_file_location("torchvision_ops", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    said = iter(errors)
    monkeypatch.setattr(script, "import_error", lambda: next(said))
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    obsolete = tmp_path / "gear_torchvision_ops.pth"
    obsolete.write_text("import gear_torchvision_ops")
    assert script.main() == code
    assert obsolete.exists() == (tmp_path / "gear_torchvision_ops.py").exists() == written
    assert next(said, None) is None
