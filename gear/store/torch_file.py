"""Reads the tensors out of somebody's weights file, torch's or safetensors', without running anything of it.

A torch file is a pickle, and unpickling calls whatever the file names. `torch.load(weights_only=True)` has its own
interpreter, which knows the names that tensors are made of and refuses any other before it is called. One name is
allowed besides, `argparse.Namespace`, because LlamaGen's trainer keeps its command line in one. It is a bag of
attributes: its constructor takes no positional arguments, so the interpreter can only make an empty one and set
attributes, and one that shadows a method or the class can only be something that the file may name and call anyway.
"""

import re
import zipfile
from argparse import Namespace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

HEAD = 512  # bytes that tell what a file is


class UnreadableFile(ValueError):
    """A file that is not whole weights, or more than weights: which, what it is instead, what to do."""


def read(path: Path) -> dict[str, Any]:
    """The file's dict: nested dicts with tensors on the CPU, numbers, text and lists as leaves.

    Tensors keep their dtype. Those of a torch file are mapped into memory, where an optimizer that nobody looks at
    takes no room; the file must not be written to as long as they live. A Namespace comes as the dict of its
    attributes. Raises `UnreadableFile`.
    """
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
        size = path.stat().st_size
    except FileNotFoundError:
        raise UnreadableFile(f"{path} does not exist.") from None
    except OSError as error:
        raise UnreadableFile(f"{path} cannot be read ({error.strerror or error}).") from error
    if instead := _instead(head):
        raise UnreadableFile(f"{path} is {instead}, not weights: download it again.")
    try:
        contents = load_file(path) if _is_safetensors(path, head, size) else _load(path)
        if not isinstance(contents, dict) or not all(isinstance(name, str) for name in contents):
            kind = f"a {type(contents).__name__}" if not isinstance(contents, dict) else "things without names"
            raise UnreadableFile(f"{path} holds {kind} where named tensors belong: take its state dict.")
        return {name: _plain(value, f"{name} of {path}") for name, value in contents.items()}
    except UnreadableFile:
        raise
    except Exception as error:  # a broken file can raise nearly anything
        raise UnreadableFile(_reason(path, head, error)) from error


def _instead(head: bytes) -> str | None:
    """What the file is, if it is one of the things that are found in place of weights."""
    if not head:
        return "empty (0 bytes)"
    if head.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer (`git lfs pull` brings the file)"
    if any(byte < 32 and byte not in b"\t\n\r\f" for byte in head):  # as in every binary format
        return None
    return "a web page" if head.lstrip().startswith(b"<") else "text"


def _is_safetensors(path: Path, head: bytes, size: int) -> bool:
    """By its beginning, the length of a JSON header and the header, or by its name."""
    return path.suffix == ".safetensors" or (head[8:9] == b"{" and int.from_bytes(head[:8], "little") < size)


def _load(path: Path) -> Any:
    mapped = zipfile.is_zipfile(path)
    if mapped:  # torch checks no checksum, and maps a compressed member as if it were none
        with zipfile.ZipFile(path) as archive:
            if damaged := archive.testzip():
                raise UnreadableFile(f"{path} is damaged: {damaged} in it has another checksum. Download it again.")
            mapped = all(member.compress_type == zipfile.ZIP_STORED for member in archive.infolist())
    with torch.serialization.safe_globals([Namespace]):
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)


def _plain(value: Any, name: str) -> Any:
    if isinstance(value, Namespace):
        value = vars(value)
    if isinstance(value, dict):
        return {key: _plain(inner, f"{key} of {name}") for key, inner in value.items()}
    if isinstance(value, Tensor):
        if value.layout != torch.strided or value.device.type != "cpu":
            raise UnreadableFile(f"{name} is a tensor without values of its own ({value.layout}, {value.device}).")
        return value.detach()
    return value


def _reason(path: Path, head: bytes, error: Exception) -> str:
    if named := re.search(r"GLOBAL ([\w.]+)", str(error)):
        return (
            f"{path} asks for {named[1]} when it is opened, so it may run code; nothing of it was run. "
            "Ask its maker for a state dict (tensors only) or a .safetensors file."
        )
    if head.startswith(b"PK") and not zipfile.is_zipfile(path):
        return f"{path} is cut short: its end is missing. Download it again."
    first = str(error).splitlines()[0] if str(error) else "no more is known"
    return f"{path} is no whole torch or safetensors file ({type(error).__name__}: {first}): download it again."
