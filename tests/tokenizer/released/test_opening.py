"""Files that are damaged, are something else, or would run code: each gets a sentence, and nothing is run."""

import os
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from gear.tokenizer.released import NoTokenizer, ReleasedError, read

HTML = b'<!DOCTYPE html>\n<html lang="en"><head><title>\n  Sign in </title></head><body></body></html>'
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 287920114\n"


class Bomb:
    """Makes a folder when its pickle is loaded."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


class Settings:
    """As a trainer may put it beside its weights."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tokenizer.pt"


@pytest.mark.parametrize(
    ("place", "new"), [("beside", True), ("in args", True), ("as a weight", True), ("beside", False)]
)
def test_a_pickle_with_code_is_refused_and_not_run(small, path: Path, place: str, new: bool) -> None:
    marker = path.with_name("marker")
    model, bomb = small.public("VQ-16"), Bomb(marker)
    checkpoint = {"beside": {"model": model, "x": bomb}, "in args": {"model": model, "args": {"y": [bomb]}}}
    torch.save(
        checkpoint.get(place, {"model": model | {"quant_conv.bias": bomb}}), path, _use_new_zipfile_serialization=new
    )
    torch.load(path, weights_only=False)
    assert marker.is_dir(), "the bomb must be live, or this test shows nothing"
    marker.rmdir()
    with pytest.raises(ReleasedError, match=r"asks for (posix|nt)\.mkdir when .* refused, and nothing of it was run"):
        read(path, families=small.families)
    assert not marker.exists()


def test_harmless_classes_are_refused_by_name_with_advice(small, path: Path) -> None:
    torch.save({"model": small.public("VQ-16"), "args": Settings(), "path": Path("x")}, path)
    with pytest.raises(ReleasedError, match=r"\.Settings, .* which could be code.*save its tensors alone") as caught:
        read(path, families=small.families)
    assert "pathlib" in str(caught.value)
    advice = str(caught.value).split("`")[1]
    again = path.with_name("tensors.pt")
    exec(advice.replace("file,", "old,").replace("'tensors.pt'", "new"), {"torch": torch, "old": path, "new": again})
    assert read(again, families=small.families).family == "VQ-16"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", r"is empty"),
        (b"Not Found", r'is text \("Not Found"\), not weights: download it again'),
        (bytes(range(200, 256)), r"neither a torch nor a safetensors file"),
        (HTML, r'is a web page \("Sign in"\): the link was not one to the file itself'),
        (b"\n <html><body>404</body></html>", r"is a web page: the link was not"),
        (POINTER, r"is a Git LFS pointer to a file of 287\.9 MB: run `git lfs pull`"),
        (
            b"PK\x03\x04" + b"x" * 100,
            r"is cut short: it begins as a torch file, and after 104 bytes its end is missing",
        ),
        (b"\x80\x02" + b"x" * 100, r"is a pickle, but not of torch, or a damaged one"),
        (b"\x50\x00\x00\x00\x00\x00\x00\x00{" + b"x" * 10, r"is not a whole safetensors file"),
    ],
    ids=["empty", "text", "binary", "page", "page without title", "pointer", "zip", "pickle", "safetensors"],
)
def test_what_is_no_file_of_weights_is_named(path: Path, content: bytes, said: str) -> None:
    path.write_bytes(content)
    with pytest.raises(ReleasedError, match=said) as caught:
        read(path)
    assert not isinstance(caught.value, NoTokenizer)  # no other reader needs to try


def test_a_missing_file_or_a_folder(tmp_path: Path) -> None:
    for path, said in ((tmp_path, "is a folder, where a file"), (tmp_path / "absent.pt", "There is no file at")):
        with pytest.raises(ReleasedError, match=said):
            read(path)


@pytest.mark.parametrize("kept", [0.02, 0.5, 0.99, 0.9999])
def test_a_truncated_torch_file(small, path: Path, kept: float) -> None:
    torch.save({"model": small.public("VQ-16")}, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(ReleasedError, match=r"is cut short: .* Download it again"):
        read(path, families=small.families)


@pytest.mark.parametrize("kept", [0.02, 0.5, 0.99])
def test_a_truncated_safetensors_file(small, tmp_path: Path, kept: float) -> None:
    path = tmp_path / "x.safetensors"
    save_file(small.public("VQ-16"), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(ReleasedError, match=r"is not a whole safetensors file .* Download it again"):
        read(path, families=small.families)


def test_a_changed_byte_is_noticed(small, path: Path) -> None:
    """torch.load does not: it returns one weight that is silently wrong."""
    tensors = small.public("VQ-16")
    torch.save({"model": tensors}, path)
    whole = bytearray(path.read_bytes())
    whole[whole.find(tensors["quant_conv.weight"].numpy().tobytes()) + 1] ^= 1
    path.write_bytes(whole)
    loaded = torch.load(path, weights_only=True)["model"]["quant_conv.weight"]
    assert not torch.equal(loaded, tensors["quant_conv.weight"])
    with pytest.raises(ReleasedError, match=r"is damaged: \S+ in it has another checksum"):
        read(path, families=small.families)


def test_a_file_zipped_anew_with_compression(small, path: Path) -> None:
    """Such members may not be mapped into memory."""
    torch.save({"model": small.public("VQ-16")}, path)
    again = path.with_name("again.pt")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(again, "w", zipfile.ZIP_DEFLATED) as new:
        for member in old.infolist():
            new.writestr(member.filename, old.read(member))
    found, wanted = read(again, families=small.families).tokenizer, small.tokenizer("VQ-16")
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    whole = bytearray(again.read_bytes())
    whole[len(whole) // 3] ^= 1
    again.write_bytes(whole)
    with pytest.raises(ReleasedError, match="is damaged"):
        read(again, families=small.families)


def test_a_zip_that_is_no_torch_file(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("readme.txt", "hello")
    with pytest.raises(ReleasedError, match="is not a whole torch file"):
        read(path)
