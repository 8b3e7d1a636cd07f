"""A torch or safetensors file as groups of named tensors. Nothing in it is run, and whatever else it is gets a name."""

import argparse
import re
import zipfile
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from gear.store.cache import readable
from gear.tokenizer.released.names import PARTS, NoTokenizer, ReleasedError, clean

OURS = "gear-"  # how the format begins that our own files name in their header


def groups(path: Path) -> dict[str, dict[str, Tensor]]:
    """The tensors of a file by the part they are in ("vq", "state_dict", ...; "" for the file itself) and by name.

    They may lie in the file still. Names are without the wrappers of DDP and torch.compile. All else, such as optimiser
    states, is left out. Raises ReleasedError.
    """
    found: defaultdict[str, dict[str, Tensor]] = defaultdict(dict)

    def put(part: str, name: str, tensor: Tensor) -> None:
        if name in found[part]:
            raise ReleasedError(f"{path} holds {name} twice: with and without module. or _orig_mod. before it.")
        found[part][name] = tensor

    loaded = _loaded(path)
    for key, value in loaded.items():
        if isinstance(value, Mapping) and key in PARTS:
            for name, tensor in value.items():
                if isinstance(tensor, Tensor):
                    put(key, clean(str(name)), tensor)
        elif isinstance(value, Tensor):
            name = clean(str(key))
            part, _, rest = name.partition(".")
            put(*((part, rest) if part in PARTS else ("", name)), value)
    if not found:
        held = ", ".join(str(key) for key in list(loaded)[:6]) or "nothing"
        raise NoTokenizer(f"{path} holds {held}, and no weights of a tokenizer. Give a file that has them.")
    return dict(found)


def is_ours(path: Path) -> bool:
    """Whether a file is a checkpoint or a saved model of gear. Only its header is read."""
    if not _is_safetensors(_head(path)):
        return False
    try:
        with safe_open(path, "pt") as file:
            return (file.metadata() or {}).get("format", "").startswith(OURS)
    except (SafetensorError, OSError):
        return False


def _loaded(path: Path) -> Mapping[Any, Any]:
    """The dict that a file holds. What it is, is told by how it begins: names are given to files by hand."""
    if not path.is_file():
        raise ReleasedError(f"There is no file at {path}.")
    if is_ours(path):
        raise ReleasedError(f"{path} was written by gear itself, and is not a released file: give its folder instead.")
    head = _head(path)
    if _is_safetensors(head):
        return _safetensors(path)
    if head.startswith(b"PK\x03\x04"):
        return _torch(path, mmap=_checked(path))
    if head.startswith(b"\x80\x02"):  # before torch 1.6
        return _torch(path, mmap=False)
    raise ReleasedError(_no_weights(path, head))


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(1024)


def _is_safetensors(head: bytes) -> bool:
    """Eight bytes of length, little-endian, and a JSON object."""
    return len(head) > 8 and head[8:9] == b"{" and not any(head[5:8])


def _no_weights(path: Path, head: bytes) -> str:
    """What a file is that is none of weights."""
    text = head.decode("utf-8", "replace").strip()
    if not head:
        return f"{path} is empty. Download it again."
    if text.startswith("version https://git-lfs"):
        size = re.search(r"^size (\d+)", text, re.MULTILINE)
        of = f" of {readable(int(size[1]))}" if size else ""
        return f"{path} is only a git-lfs pointer to a file{of}. Run `git lfs pull` in its repository, or download it."
    if re.match(r"<(!doctype html|html|\?xml)", text, re.IGNORECASE):
        title = re.search(r"<title>\s*(.*?)\s*</title>", text, re.IGNORECASE | re.DOTALL)
        said = f' ("{" ".join(title[1].split())}")' if title else ""
        return (
            f"{path} is a web page{said} under the name of a file: the link was not one to the file itself, or wants a "
            "login. Download it again."
        )
    return f"{path} is neither a torch nor a safetensors file: it begins with {head[:16]!r}. Download it again."


def _safetensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dict)
    except (SafetensorError, OSError) as error:
        raise ReleasedError(f"{path} is not a whole safetensors file ({error}). Download it again.") from None


def _checked(path: Path) -> bool:
    """Whether a torch file may be mapped into memory, which leaves what is not needed, an optimiser's, on the disk.

    torch checks no checksums, and maps a compressed member as if it were none: both would end in weights that are
    silently wrong. Raises ReleasedError if the file is cut short or damaged.
    """
    if not zipfile.is_zipfile(path):
        size = readable(path.stat().st_size)
        raise ReleasedError(
            f"{path} is cut short: it begins as a torch file, and after {size} its end is missing. Download it again."
        )
    try:
        with zipfile.ZipFile(path) as file:
            damaged = file.testzip()
            mappable = all(member.compress_type == zipfile.ZIP_STORED for member in file.infolist())
    except Exception as error:  # the decompressors have their own
        raise ReleasedError(f"{path} is damaged ({error}). Download it again.") from None
    if damaged is not None:
        raise ReleasedError(f"{path} is damaged: {damaged} in it has another checksum. Download it again.")
    return mappable


def _torch(path: Path, mmap: bool) -> Mapping[Any, Any]:
    """By torch's restricted unpickler. Beyond what that allows, a file may hold an argparse.Namespace, into which
    trainers put their arguments: it runs nothing when its attributes are set, and these are restricted likewise."""
    with torch.serialization.safe_globals([argparse.Namespace]):
        try:
            loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
        except Exception as error:  # damaged and forbidden files end in nearly any exception
            raise ReleasedError(_refused(path, error)) from None
    if not isinstance(loaded, Mapping):
        raise ReleasedError(f"{path} holds a {type(loaded).__name__}, where a dict of tensors is expected.")
    return loaded


def _refused(path: Path, error: Exception) -> str:
    """Which names a file's pickle asks for that could be code, or else why torch cannot read it."""
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(str(path))
    except Exception:  # of a file before torch 1.6
        names = re.findall(r"GLOBAL (\S+)", str(error))[:1]
    if names:
        return (
            f"{path} was refused, nothing of it was run: besides tensors it holds {', '.join(sorted(names))}, which "
            "could be code. Where you trust its source, save its tensors alone, which runs that code: `c = torch.load("
            "file, weights_only=False); torch.save({k: c[k] for k in c if k in "
            f"{sorted(PARTS)}}}, 'tensors.pt')`."
        )
    lines = str(error).splitlines() or [type(error).__name__]
    return f"{path} cannot be read by torch ({lines[0]}). Download it again."
