"""Reads the tensors out of somebody's weights file, torch's or safetensors', without running anything of it.

A torch file is a pickle, and unpickling calls whatever the file names. `torch.load(weights_only=True)` has its own
interpreter, which knows the names that tensors are made of and refuses any other before it is called. One name is
allowed besides, `argparse.Namespace`, because LlamaGen's trainer keeps its command line in one. It is a bag of
attributes: its constructor takes no positional arguments, so the interpreter can only make an empty one and set
attributes, and one that shadows a method or the class can only be something that the file may name and call anyway.

What is read is bounded by the size of the file: a member that unpacks to many times it, a tensor of one number that
says it is of 10^15, a pickle of a gigabyte and dicts that hold each other are refused or cost nothing.
"""

import stat
import warnings
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from gear.store import foreign, torch_zip
from gear.store.cache import readable
from gear.store.foreign import UnreadableFile, first_line

LEGACY = 5  # pickles in a file from before torch 1.6: a number, a version, the machine, the contents, the storages
ADVICE = (
    "Ask its maker for a .safetensors file or a state dict. Where you trust it, save its tensors alone, which runs "
    "that code: `c = torch.load(file, weights_only=False); torch.save({k: v for k, v in c.items() if "
    "torch.is_tensor(v) or (isinstance(v, dict) and all(map(torch.is_tensor, v.values())))}, 'tensors.pt')`."
)


def read(path: Path) -> dict[str, Any]:
    """The file's dict: nested dicts with tensors on the CPU, numbers, text and lists as leaves.

    Tensors keep their dtype. Those of a torch file are mapped into memory, where an optimizer that nobody looks at
    takes no room; the file must not be written to as long as they live. A Namespace comes as the dict of its
    attributes. Raises `UnreadableFile`.
    """
    head = _beginning(path)
    if foreign.kind(head) in ("zip", "pickle") and path.suffix != ".safetensors":  # by which torch.load goes too
        return _Plain(path)(_torch(path, head))
    if foreign.kind(head) == "safetensors" or path.suffix == ".safetensors":
        return read_safetensors(path)[0]
    raise _neither(path, head)


def require_whole(path: Path) -> None:
    """Raises `UnreadableFile` unless `path` has, up to its end, the form of a torch or safetensors file, whatever its
    name; a torch file from before 1.6, up to the end of its pickles. No tensor is made, and nothing unpickled."""
    head = _beginning(path)
    match foreign.kind(head):
        case "zip":
            torch_zip.checked(path)
        case "pickle":
            _checked_legacy(path, head)
        case "safetensors":
            read_safetensors(path, lambda _: False)
        case None:
            raise _neither(path, head)


def read_safetensors(path: Path, only: Callable[[str], bool] | None = None) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a safetensors file, or those whose names `only` takes, and the text in its header.

    Raises `UnreadableFile`.
    """
    head = _beginning(path, "not a whole safetensors file, but ")
    try:
        with safe_open(path, "pt") as file:
            wanted = [name for name in file.keys() if only is None or only(name)]  # noqa: SIM118  (not a dict)
            return {name: file.get_tensor(name) for name in wanted}, file.metadata() or {}
    except Exception as error:  # of torch's too, for numbers that this version of it lacks
        kind = ", but a torch file or a pickle" if foreign.kind(head) in ("zip", "pickle") else ""
        raise UnreadableFile(
            f"{path} is not a whole safetensors file{kind} ({first_line(error)}). Download it again, or save it again."
        ) from error


def header(path: Path) -> dict[str, str] | None:
    """The text in the header of a safetensors file, of which no more is read; None if `path` is none."""
    try:
        if foreign.kind(_beginning(path)) != "safetensors":
            return None
        with safe_open(path, "pt") as file:
            return file.metadata() or {}
    except (UnreadableFile, SafetensorError, OSError):
        return None


def _neither(path: Path, head: bytes) -> UnreadableFile:
    return UnreadableFile(
        f"{path} is neither a torch nor a safetensors file: it begins with {head[:16]!r}. Download it again."
    )


def _beginning(path: Path, but: str = "") -> bytes:
    """How a file begins that may be one of weights. `but` only words the message."""
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise UnreadableFile(f"{path} is a folder, where a file of weights is expected: give the file in it.")
        if not stat.S_ISREG(mode):  # to open a pipe would wait for ever
            raise UnreadableFile(f"{path} is a pipe or a device, where a file of weights is expected.")
        with path.open("rb") as file:
            head = file.read(foreign.HEAD)
    except FileNotFoundError:
        raise UnreadableFile(f"There is no file at {path}.") from None
    except OSError as error:
        raise UnreadableFile(f"{path} cannot be read ({error.strerror or error}).") from error
    if instead := foreign.instead(head):
        raise UnreadableFile(f"{path} is {but}{instead}.")
    return head


# ------------------------------------------------------------------------------------------------ torch


def _torch(path: Path, head: bytes) -> Any:
    """What a torch file holds, if it is named tensors and plain values."""
    try:
        mapped = torch_zip.checked(path) if foreign.kind(head) == "zip" else _checked_legacy(path, head)
        with torch.serialization.safe_globals([Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of storages and pickle protocols, which nobody can do anything about
            contents = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except UnreadableFile:
        raise
    except Exception as error:  # damaged and forbidden files end in nearly any exception
        if asked := _asked(path, head):
            raise UnreadableFile(_refusal(path, asked)) from error
        said = str(error).rpartition("WeightsUnpickler error: ")[2] or type(error).__name__
        raise UnreadableFile(
            f"{path} is not a whole torch file ({said.splitlines()[0]}): download it again."
        ) from error
    if not isinstance(contents, dict):
        kind = type(contents).__name__
        raise UnreadableFile(f"{path} holds a {kind}, where a dict of tensors is expected: take its state dict.")
    if strange := [name for name in contents if not isinstance(name, str)]:
        raise UnreadableFile(
            f"{path} holds things without names (one is called {strange[0]!r:.40}), where a dict of tensors is "
            "expected: take its state dict."
        )
    return contents


def _checked_legacy(path: Path, head: bytes) -> bool:
    """False, as files from before torch 1.6 cannot be mapped. Raises `UnreadableFile` for any other pickle."""
    with path.open("rb") as file:
        pickles = foreign.parsed(file.read(foreign.LARGEST), LEGACY if head.startswith(foreign.TORCH) else 1)
    if head.startswith(foreign.TORCH) and pickles.whole:
        return False
    if pickles.names:
        raise UnreadableFile(_refusal(path, pickles.names))
    if head.startswith(foreign.TORCH):
        raise UnreadableFile(
            f"{path} is not a whole torch file: it begins as one from before torch 1.6, and its pickle does not end. "
            "Download it again."
        )
    raise UnreadableFile(f"{path} is a pickle, but not of torch, or a damaged one: ask its maker for a state dict.")


def _asked(path: Path, head: bytes) -> list[str]:
    """What the pickle in a file that torch refused asks for besides what tensors are made of."""
    if foreign.kind(head) == "zip":
        return torch_zip.asked(path)
    with path.open("rb") as file:
        return foreign.parsed(file.read(foreign.LARGEST), LEGACY).names


def _refusal(path: Path, names: list[str]) -> str:
    more = f" and {len(names) - 6} more" if len(names) > 6 else ""
    listed = ", ".join(name if len(name) <= 80 else name[:77] + "..." for name in names[:6])
    return (
        f"{path} asks for {listed}{more} when it is opened, which could be code; it was refused, and nothing of it was "
        f"run. {ADVICE}"
    )


# ------------------------------------------------------------------------------------------------ values


class _Plain:
    """Tensors as plain tensors, Namespaces as dicts. A dict that is held many times, or by itself, is walked once."""

    def __init__(self, path: Path):
        self.path, self.size, self.seen = path, path.stat().st_size, dict[int, dict[Any, Any]]()

    def __call__(self, contents: dict[Any, Any]) -> dict[str, Any]:
        """Without recursion, as a file may be deeper than the stack. Raises `UnreadableFile`."""
        whole: dict[str, Any] = {}
        left = [(contents, whole, f"of {self.path}")]
        while left:
            given, made, where = left.pop()
            for key, value in given.items():
                if isinstance(value, Namespace):
                    value = vars(value)
                if not isinstance(value, dict):
                    made[key] = self.tensor(value, f"{key} {where}") if isinstance(value, Tensor) else value
                    continue
                if id(value) not in self.seen:
                    self.seen[id(value)] = {}
                    left.append((value, self.seen[id(value)], f"of {key} {where}" if len(where) < 1000 else where))
                made[key] = self.seen[id(value)]
        return whole

    def tensor(self, value: Tensor, name: str) -> Tensor:
        """By `Tensor`'s own function: a file may give a tensor attributes that hide its methods."""
        made = Tensor.detach(value)
        if type(made) is not Tensor or made.layout != torch.strided or made.device.type != "cpu" or made.is_quantized:
            kind = f"{made.layout}, {made.dtype}, {made.device}"
            raise UnreadableFile(f"{name} is no plain tensor, but one without values of its own ({kind}).")
        if made.nbytes > max(self.size, made.untyped_storage().nbytes()):
            raise UnreadableFile(
                f"{name} stands for {readable(made.nbytes)}, in a file of {readable(self.size)}: it repeats what it "
                "holds; save it with .contiguous()."
            )
        return made
