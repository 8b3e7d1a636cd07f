"""Rules about the source as a whole: which way imports go, no pickle, no file called utils, annotations checked.

Imports go one way: spine <- parts <- uses <- top. A module may import its own layer and those to the left; parts do not
import each other. Every module is in exactly one layer, so a new one has to be placed here.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import jaxtyping
import pytest
import torch

from gear import losses

ROOT = Path(__file__).parent.parent
SPINE = {
    "assignment",
    "config",
    "config_check",
    "config_json",
    "cuda",
    "kernels",
    "losses",
    "noise",
    "progress",
    "prompts",
    "ranks",
    "recompute",
    "sharing",
    "step",
    "store",
    "tiles",
    "update",
    "usage",
    "weights",
}
PARTS = {"data", "generator", "targets", "text", "tokenizer"}
USES = {"evaluate", "figures", "probe", "train"}
TOP = {
    "__main__",
    "build",
    "cli",
    "commands",
    "demo",
    "demo_text",
    "choosing",
    "codes",
    "counting",
    "doctor",
    "encode",
    "evidence",
    "exporting",
    "fetch",
    "inference",
    "initial",
    "painting",
    "plan",
    "planning",
    "provenance",
    "recipes",
    "run",
    "sources",
    "status",
    "watching",
}
LAYERS = [SPINE, PARTS, USES, TOP | {""}]  # "" is gear itself
LEAVES = {
    "config",
    "config_check",
    "config_json",
    "progress",
    "sharing",
    "store",
    "weights",
}  # import nothing of gear but each other
PICKLE = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
# A restricted unpickler: its find_class refuses every name but the three that a numpy array is made of.
UNPICKLERS = {"gear/store/unpickle.py"}

GEAR = sorted((ROOT / "gear").rglob("*.py"))
SOURCES = [*GEAR, *sorted((ROOT / "bench").rglob("*.py")), *sorted((ROOT / "scripts").rglob("*.py"))]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def shelf(path: Path) -> str:
    """The unit that the rule speaks of: `tokenizer` for gear/tokenizer/*.py, `step` for gear/step.py, "" for gear."""
    first = path.relative_to(ROOT / "gear").parts[0]
    return first.removesuffix(".py").removesuffix("__init__")


def imports(tree: ast.AST, package: str) -> Iterator[str]:
    """Full names of all modules a tree imports, inside functions and `if TYPE_CHECKING` too.

    `package` resolves relative imports. `from a import b` yields a.b, as b may be a module.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def broken_import_rules(source: str, path: Path) -> list[str]:
    """Each import in `source`, taken to be the file at `path`, that goes the wrong way."""
    here = shelf(path)
    package = ".".join(path.relative_to(ROOT).parent.parts)
    rank = {name: i for i, layer in enumerate(LAYERS) for name in layer}
    if here not in rank:
        return [f"{here} is in no layer: place it in LAYERS"]
    broken = []
    for name in imports(ast.parse(source), package):
        if name != "gear" and not name.startswith("gear."):
            continue
        there = [*name.split("."), ""][1]
        if there not in rank:  # `from gear import VQ`: a public name, which only the top may use
            there = ""
        if here in LEAVES and there not in LEAVES:
            broken.append(f"{here} imports {name}, but is a leaf: it may import only {sorted(LEAVES)}")
        elif rank[there] > rank[here]:
            broken.append(f"{here} imports {name}, which lies above it")
        elif here in PARTS and there in PARTS and here != there:
            broken.append(f"{here} imports {name}: parts do not import each other")
    return broken


def unsafe_loads(source: str) -> list[str]:
    """Each way in `source` to run code from a data file: pickle and its kin, torch.load, np.load(allow_pickle=True)."""
    tree = ast.parse(source)
    broken = [f"imports {name}" for name in imports(tree, "") if name.split(".")[0] in PICKLE]
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        keywords = {k.arg: getattr(k.value, "value", None) for k in node.keywords}
        called = ast.unparse(node.func)
        if called == "torch.load" and keywords.get("weights_only") is not True:
            broken.append(f"line {node.lineno}: torch.load without weights_only=True")
        if keywords.get("allow_pickle", False) is not False:
            broken.append(f"line {node.lineno}: {called} with allow_pickle")
        if "trust_remote_code" in keywords:
            broken.append(f"line {node.lineno}: {called} with trust_remote_code")
    return broken


@pytest.mark.parametrize("path", GEAR, ids=name_of)
def test_imports_go_one_way(path: Path) -> None:
    assert broken_import_rules(path.read_text(), path) == []


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_no_data_file_can_run_code(path: Path) -> None:
    broken = unsafe_loads(path.read_text())
    if name_of(path) in UNPICKLERS:
        broken = [line for line in broken if not line.startswith("imports pickle")]
    assert broken == []


def test_one_reader_opens_the_files_of_others() -> None:
    """It has the checks that torch.load and load_file lack; beside it only cifar10 opens a file, of its own making."""
    opening = re.compile(r"\b(torch\.load|load_file|safe_open)\(")
    assert {name_of(path) for path in GEAR if opening.search(path.read_text())} == {
        "gear/data/cifar10.py",
        "gear/store/torch_file.py",
    }


def test_no_file_is_called_utils() -> None:
    assert [name_of(path) for path in SOURCES if path.stem in {"util", "utils", "helpers", "misc", "common"}] == []


def test_the_schema_needs_only_the_standard_library() -> None:
    names = imports(ast.parse((ROOT / "gear/config.py").read_text()), "gear")
    assert [name for name in names if name.split(".")[0] not in sys.stdlib_module_names] == []


def test_every_module_imports() -> None:
    """In a fresh interpreter without the hook, as a user imports them; no warning either."""
    compiled = set() if find_spec("triton") else {"kernels.py", "norm_kernels.py"}
    there = [path.relative_to(ROOT) for path in GEAR if path.name not in compiled]
    modules = [".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in there]
    code = "import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)"
    command = [sys.executable, "-W", "error", "-c", code, *(name for name in modules if "__main__" not in name)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_annotations_are_checked() -> None:
    """Else a wrong shape annotation would pass every test. Under pytest-xdist this runs in a worker."""
    with pytest.raises(jaxtyping.TypeCheckError):
        losses.next_token(torch.zeros(2, 3, 5), torch.zeros(7, 5), torch.zeros(2, 4, dtype=torch.int64))  # N: 3 and 4
    with pytest.raises(jaxtyping.TypeCheckError):
        losses.next_token(torch.zeros(2, 3, 5), torch.zeros(7, 5), torch.zeros(2, 3))  # indices are whole numbers


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("gear/step.py", "from gear.tokenizer import tokenizer"),  # spine -> part
        ("gear/step.py", "def f():\n    import gear.train.loop"),  # a late import counts
        ("gear/step.py", "from gear import VQ"),  # a public name is gear itself, the top
        ("gear/config.py", "from gear.update import frozen"),  # a leaf
        ("gear/tokenizer/quantizers.py", "from gear.generator.layers import Block"),  # part -> part
        ("gear/tokenizer/quantizers.py", "from ..generator import layers"),
        ("gear/tokenizer/quantizers.py", "from ..train.loop import train"),  # part -> use
        ("gear/train/loop.py", "from gear.build import build"),  # use -> top
        ("gear/novelty.py", ""),  # in no layer
    ],
)
def test_the_rule_catches(path: str, source: str) -> None:
    assert len(broken_import_rules(source, ROOT / path)) == 1


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("gear/step.py", "import torch\nfrom gear.losses import vq_loss\nfrom .update import frozen"),
        ("gear/tokenizer/tokenizer.py", "from gear.tokenizer.quantizers import VQ\nfrom . import backbone"),
        ("gear/train/loop.py", "from gear import step\nimport gear.data.images"),
        ("gear/cli.py", "from gear import train, VQ"),
    ],
)
def test_the_rule_allows(path: str, source: str) -> None:
    assert broken_import_rules(source, ROOT / path) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "import dill as d",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "torch.load(path, weights_only=flag)",
        "np.load(path, allow_pickle=True)",
    ],
)
def test_the_pickle_rule_catches(source: str) -> None:
    assert len(unsafe_loads(source)) == 1


def test_the_pickle_rule_allows() -> None:
    assert unsafe_loads("torch.load(path, weights_only=True)\nnp.load(path)\nsafetensors.torch.load_file(path)") == []
