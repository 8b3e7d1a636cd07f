"""Which modules of Triton kernels can be had: a CPU build of torch comes without Triton."""

from functools import cache
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType


@cache
def compiled(module: str) -> ModuleType | None:
    """The module of kernels called so, or None where there is no Triton."""
    return import_module(module) if find_spec("triton") is not None else None
