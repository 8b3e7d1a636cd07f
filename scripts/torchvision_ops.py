"""Lets `import torchvision` work beside a torch that torchvision's compiled operators were not built for.

The torchvision on PyPI is built against CUDA torch. Beside a CPU-only torch of the same version its compiled operators
do not load, and `import torchvision` (hence timm and lpips) fails with "operator torchvision::nms does not exist",
although transforms and models need no compiled operator. Declaring the schemas of the two operators that the import
asks for, nms and qnms, is enough.

    python scripts/torchvision_ops.py     # with the python of the environment to mend; the Makefile does this

If `import torchvision` works as it is, nothing is written. Otherwise a copy of this file goes into that environment's
site-packages, beside a `.pth` file that calls `watch()` when an interpreter starts. So it reaches subprocesses, data
workers and torchrun ranks. `watch` costs nothing until something imports torchvision: only then is torch imported.
"""

import sys

NAME = "gear_torchvision_ops"  # of the copy and of its .pth
SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


class Watch:
    """A finder that finds nothing: it declares the operators when torchvision is first looked for, then steps aside."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name == "torchvision" and self in sys.meta_path:
            sys.meta_path.remove(self)
            declare()


def watch() -> None:
    """Called by the .pth file at interpreter start, so this module imports nothing but sys."""
    sys.meta_path.insert(0, Watch())


def declare() -> None:
    """Declares torchvision::nms and torchvision::qnms, unless torchvision's own library loads and defines them."""
    import importlib.util
    from pathlib import Path

    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return
    import torch

    for library in Path(spec.origin).parent.glob("_C*.*"):
        try:
            torch.ops.load_library(library)
            return
        except OSError:  # built for another torch
            continue
    global fragment  # the schemas live as long as this object
    fragment = torch.library.Library("torchvision", "FRAGMENT")
    fragment.define("nms" + SCHEMA)
    fragment.define("qnms" + SCHEMA)


def main() -> int:
    """Mends the environment of the running interpreter if it needs it. Returns the exit code."""
    import shutil
    import sysconfig
    from pathlib import Path

    packages = Path(sysconfig.get_path("purelib"))
    module, pth = packages / f"{NAME}.py", packages / f"{NAME}.pth"

    def remove() -> None:
        pth.unlink(missing_ok=True)
        module.unlink(missing_ok=True)

    remove()  # so that what is tried is torchvision as it was installed
    error = import_error()
    if "torchvision::nms" in error:
        shutil.copyfile(__file__, module)
        pth.write_text(f"import {NAME}; {NAME}.watch()\n")
        error = import_error()
        if not error:
            print(f"torchvision's compiled operators do not load beside this torch; {pth} lets it be imported anyway.")
        else:
            remove()
    if error:
        print(f"`import torchvision` fails, so gear cannot work in {sys.prefix}: {error}", file=sys.stderr)
    return 1 if error else 0


def import_error() -> str:
    """The last line of what a fresh interpreter says to `import torchvision`; empty if it imports."""
    import subprocess

    done = subprocess.run([sys.executable, "-c", "import torchvision"], capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]


if __name__ == "__main__":
    sys.exit(main())
