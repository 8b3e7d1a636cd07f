import argparse
import os
import re
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import safetensors.torch
import torch

from gear.store.torch_file import UnreadableFile, read

TENSORS = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([1, 2])}
ZIP = "_use_new_zipfile_serialization"


class Runs:
    """What a hostile file holds: unpickling it makes a directory at `mark`."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "weights.pt"


def same(got, want) -> bool:
    return got.keys() == want.keys() and all(
        torch.equal(got[k], v) and got[k].dtype == v.dtype for k, v in want.items()
    )


@pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])
def test_torch_files(path, new):
    nested = {"model": OrderedDict(TENSORS), "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}}, "steps": 7}
    torch.save(nested, path, **{ZIP: new})
    got = read(path)
    assert same(got["model"], TENSORS)
    assert got["optimizer"]["state"][0]["step"] == 3
    assert got["steps"] == 7


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.bin"])
def test_safetensors_by_name_or_by_content(tmp_path, name):
    safetensors.torch.save_file(TENSORS, tmp_path / name)
    assert same(read(tmp_path / name), TENSORS)


def test_a_parameter_is_a_tensor_and_a_namespace_a_dict(path):
    torch.save({"w": torch.nn.Parameter(torch.ones(2)), "args": argparse.Namespace(lr=1e-4, name="x")}, path)
    got = read(path)
    assert type(got["w"]) is torch.Tensor
    assert not got["w"].requires_grad
    assert got["args"] == {"lr": 1e-4, "name": "x"}


def test_the_namespace_is_allowed_during_the_reading_only(path):
    torch.save({"args": argparse.Namespace()}, path)
    read(path)
    with pytest.raises(Exception, match=r"argparse\.Namespace"):
        torch.load(path, weights_only=True)


def test_what_is_not_used_takes_no_memory(path):
    torch.save({"a": torch.zeros(1 << 23), "b": torch.ones(4)}, path)  # 32 MiB
    before = resident()
    got = read(path)
    assert got["b"].sum() == 4
    assert resident() - before < 8 << 10
    assert (got["a"] == 0).all()  # now it is used
    assert resident() - before > 24 << 10


def resident() -> int:
    """KiB of this process that lie in memory."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1])


def test_an_archive_that_was_compressed_again_is_unpacked(path):
    torch.save(TENSORS, path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    assert same(read(path), TENSORS)


@pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("place", ["value", "namespace", "whole"])
def test_code_is_named_and_never_run(path, tmp_path, new, place):
    mark = tmp_path / "ran"
    evil = Runs(mark)
    contents = {"value": {"model": evil}, "namespace": {"args": argparse.Namespace(a=evil)}, "whole": evil}[place]
    torch.save(contents, path, **{ZIP: new})
    with pytest.raises(UnreadableFile, match=r"asks for posix\.mkdir .* nothing of it was run"):
        read(path)
    assert not mark.exists()
    torch.load(path, weights_only=False)
    assert mark.exists()  # so the file would have


def test_a_namespace_cannot_be_used_to_call_anything(path, tmp_path):
    """A hand-made pickle: a Namespace with an attribute `__setstate__`, which a second BUILD then calls."""
    mark = tmp_path / "ran"
    torch.save({"args": argparse.Namespace()}, path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    empty = b"cargparse\nNamespace\n)\x81"
    state = b"}X\x0c\x00\x00\x00__setstate__cposix\nmkdir\nsb"
    argument = b"X" + len(str(mark)).to_bytes(4, "little") + str(mark).encode()
    evil = b"\x80\x02" + empty + state + argument + b"b."
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, evil if name.endswith("data.pkl") else data)
    with pytest.raises(UnreadableFile, match=r"asks for posix\.mkdir"):
        read(path)
    assert not mark.exists()


def test_a_pickled_module_names_its_class(path):
    torch.save(torch.nn.Linear(2, 2), path)
    with pytest.raises(UnreadableFile, match=r"asks for torch\.nn\.modules\.linear\.Linear"):
        read(path)


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "is empty"),
        (b"just words\n", "is text"),
        (b'{"error": "Unauthorized"}', "is text"),
        (b"\n<!DOCTYPE html><html><head>", "is a web page"),
        (b"<?xml version='1.0'?><Error>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "is a Git LFS pointer"),
        (b"\x93NUMPY\x01\x00", "is no whole torch or safetensors file"),
        (bytes(range(256)) * 8, "is no whole torch or safetensors file"),
    ],
)
def test_what_is_found_in_place_of_weights(path, data, what):
    path.write_bytes(data)
    with pytest.raises(UnreadableFile, match=f"^{re.escape(str(path))} {what}"):
        read(path)


@pytest.mark.parametrize("share", [0.02, 0.5, 0.99])
@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_a_file_that_is_cut_short(tmp_path, share, kind):
    path = tmp_path / ("weights.safetensors" if kind == "safetensors" else "weights.pt")
    tensors = {f"layers.{i}": torch.randn(100) for i in range(20)}
    if kind == "safetensors":
        safetensors.torch.save_file(tensors, path)
    else:
        torch.save(tensors, path, **{ZIP: kind == "zip"})
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(UnreadableFile, match="cut short" if kind == "zip" else "no whole torch or safetensors file"):
        read(path)


def test_one_changed_bit(path):
    torch.save({"a": torch.arange(1000.0)}, path)
    data = bytearray(path.read_bytes())
    data[data.index(torch.tensor([500.0, 501.0]).numpy().tobytes())] ^= 1
    path.write_bytes(data)
    assert torch.load(path, weights_only=True)["a"][500] != 500  # torch does not mind
    with pytest.raises(UnreadableFile, match=r"is damaged: .* has another checksum"):
        read(path)


def test_a_zip_that_is_not_torchs(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "a")
    with pytest.raises(UnreadableFile, match="no whole torch or safetensors file"):
        read(path)


@pytest.mark.parametrize(
    ("contents", "what"), [(torch.ones(2), "a Tensor"), ([1], "a list"), ({1: 2}, "without names")]
)
def test_something_without_names(path, contents, what):
    torch.save(contents, path)
    with pytest.raises(UnreadableFile, match=what):
        read(path)


@pytest.mark.parametrize("tensor", [torch.eye(3).to_sparse(), torch.empty(3, device="meta")], ids=["sparse", "meta"])
def test_a_tensor_without_values_of_its_own(path, tensor):
    torch.save({"model": {"w": tensor}}, path)
    with pytest.raises(UnreadableFile, match=r"w of model of .* without values of its own"):
        read(path)


def test_a_path_that_is_no_file(tmp_path):
    with pytest.raises(UnreadableFile, match="does not exist"):
        read(tmp_path / "missing.pt")
    with pytest.raises(UnreadableFile, match="cannot be read"):
        read(tmp_path)
