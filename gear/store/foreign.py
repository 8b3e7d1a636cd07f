"""What somebody's file is, told by its first bytes, and what a pickle in it would call. Nothing is run."""

import codecs
import pickletools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import Literal

from gear.store.cache import readable

HEAD = 1024  # bytes that tell what a file is
TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # how torch's files began before 1.6: a pickle of a number
LARGEST = 1 << 25  # bytes of a pickle that are worth reading: that of a 7B model with its optimizer has 1 MB
OTHERS = {  # and what they are
    b"\x1f\x8b": "a gzip archive: unpack it",
    b"BZh": "a bzip2 archive: unpack it",
    b"\xfd7zXZ": "an xz archive: unpack it",
    b"Rar!": "a rar archive: unpack it",
    b"7z\xbc\xaf": "a 7z archive: unpack it",
    b"\x93NUMPY": "a numpy array, not named tensors: save those with safetensors",
    b"\x89HDF": "an HDF5 file, as of Keras: convert it to safetensors",
    b"GGUF": "a GGUF file: find the safetensors file that it was made of",
    b"\x89PNG": "an image: give a file of weights",
    b"\xff\xd8\xff": "an image: give a file of weights",
}
TEXT = {"SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE", "STRING", "BINSTRING", "SHORT_BINSTRING"}
TENSORS = re.compile(  # the names of which torch makes tensors, and the one that `torch_file` allows besides
    r"torch\.(\w*Storage|Size|Tensor|device|bool|[a-z]+\d\w*|_utils\._rebuild\w+|_tensor\._rebuild\w+"
    r"|storage\.\w+|nn\.parameter\.\w+|serialization\._get_layout)"
    r"|collections\.(OrderedDict|Counter)|_codecs\.encode|(builtins|__builtin__)\.(set|bytearray|complex)"
    r"|argparse\.Namespace"
)


class UnreadableFile(ValueError):
    """A file that is not whole weights, or more than weights: which, what it is instead, what to do."""


def first_line(error: Exception) -> str:
    """Of what it says, or its name."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def instead(head: bytes) -> str | None:
    """What a file that begins so is, and what to do, if it is one of the things that are found in place of weights."""
    text = head.decode("utf-8", "replace").strip()
    if not head:
        return "empty (0 bytes): download it again"
    if text.startswith("version https://git-lfs"):
        size = re.search(r"^size (\d{1,15})$", text, re.MULTILINE)
        of = f" to a file of {readable(int(size[1]))}" if size else ""
        return f"a Git LFS pointer{of}: run `git lfs pull` in its repository, or download the file itself"
    if re.match(r"<(!doctype html|html|\?xml)", text, re.IGNORECASE):
        title = re.search(r"<title>(.*?)</title>", text, re.IGNORECASE | re.DOTALL)
        said = f' ("{_shown(title[1])}")' if title else ""
        return f"a web page{said}: the link was not one to the file itself, or wants a login; download it again"
    if head[257:262] == b"ustar":
        return "a tar archive; torch's first versions wrote some, which cannot be read safely: ask for a state dict"
    for beginning, what in OTHERS.items():
        if head.startswith(beginning):
            return what
    if _is_text(head):
        return f'text ("{_shown(text)}"), not weights: download it again'
    return None


def kind(head: bytes) -> Literal["safetensors", "zip", "pickle"] | None:
    """What a file of weights that begins so is; by its name no file can be told."""
    json = head[8:9] == b"{"  # of safetensors, after its length in eight bytes, little-endian
    if json and not any(head[5:8]):  # shorter than 1 TB; its first byte may be that of a pickle
        return "safetensors"
    if head.startswith(b"PK\x03\x04"):
        return "zip"
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "pickle"
    return "safetensors" if json else None


def _is_text(head: bytes) -> bool:
    """UTF-8, whose last character may be cut, without the control codes that every binary format has."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return not any(byte < 32 and byte not in b"\t\n\r\f" for byte in head)


def _shown(text: str) -> str:
    line = "".join(c for c in " ".join(text.split()) if c.isprintable())
    return line if len(line) <= 60 else line[:57] + "..."


@dataclass(frozen=True)
class Pickles:
    """
    names: what they ask for besides what tensors are made of, as "os.system"; "?" for what is put together on the way.
    whole: whether they all end, within `LARGEST` bytes.
    """

    names: list[str]
    whole: bool


def parsed(beginning: bytes, count: int = 1) -> Pickles:
    """What `count` pickles, one after the other, are, of which no more than `LARGEST` bytes are given. They are not
    run."""
    found: list[str] = []
    file, whole = BytesIO(beginning), True
    try:
        for _ in range(count):
            for name in _names(file):
                found.append(name)
    except Exception:  # a broken pickle can raise nearly anything
        whole = False
    return Pickles(list(dict.fromkeys(name for name in found if not TENSORS.fullmatch(name))), whole)


def _names(file: BytesIO) -> Iterator[str]:
    """In the order in which they are asked for. Text is followed through the memo, but no other operation."""
    texts, memo = ["?", "?"], dict[int, str]()
    text, count = False, 0  # whether the last operation put text there; how often MEMOIZE was
    for opcode, argument, _ in pickletools.genops(file):
        match opcode.name:
            case "GLOBAL" | "INST":
                yield str(argument).replace(" ", ".")
            case "STACK_GLOBAL":
                yield f"{texts[-2]}.{texts[-1]}"
            case "MEMOIZE" | "PUT" | "BINPUT" | "LONG_BINPUT":
                place = count if opcode.name == "MEMOIZE" else int(str(argument))
                count += 1
                if text:
                    memo[place] = texts[-1]
                continue
            case "GET" | "BINGET" | "LONG_BINGET":
                texts = [texts[-1], memo.get(int(str(argument)), "?")]
            case name if name in TEXT:
                texts = [texts[-1], str(argument)]
        text = opcode.name in TEXT
