import argparse
import os
import pickle
import re
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import safetensors.torch
import torch

from gear.store import foreign
from gear.store.foreign import UnreadableFile
from gear.store.torch_file import header, read, read_safetensors

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
        (b"\x93NUMPY\x01\x00", "is a numpy array, not named tensors: save those"),
        (bytes(range(256)) * 8, "is neither a torch nor a safetensors file: it begins with b"),
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
    said = {"zip": "is cut short", "legacy": "is not a whole torch file"}.get(kind, "is not a whole safetensors file")
    with pytest.raises(UnreadableFile, match=said):
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
    with pytest.raises(UnreadableFile, match=r"is not a whole torch file .* a\.txt"):
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
    with pytest.raises(UnreadableFile, match="There is no file at"):
        read(tmp_path / "missing.pt")
    with pytest.raises(UnreadableFile, match="is a folder, where a file of weights is expected"):
        read(tmp_path)
    os.mkfifo(tmp_path / "pipe.pt")
    with pytest.raises(UnreadableFile, match="is a pipe or a device"):
        read(tmp_path / "pipe.pt")


def test_a_dict_that_is_held_twice_or_by_itself_is_walked_once(path):
    inner = {"w": torch.ones(1)}
    torch.save({"a": inner, "b": inner, "args": argparse.Namespace(x=inner)}, path)
    got = read(path)
    assert got["a"] is got["b"] is got["args"]["x"]
    loop: dict[str, object] = {"w": torch.ones(1)}
    loop["again"] = loop
    torch.save({"a": loop}, path)
    got = read(path)
    assert got["a"]["again"] is got["a"]


def test_a_tensor_may_share_but_not_multiply_what_the_file_holds(path):
    table = torch.arange(1000.0)
    torch.save({"tied": table, "view": table[10:20], "small": torch.ones(1, 1).expand(1, 7)}, path)
    got = read(path)
    assert got["tied"].data_ptr() + 40 == got["view"].data_ptr()
    assert got["small"].tolist() == [[1.0] * 7]
    torch.save({"w": torch.ones(1).expand(10**6)}, path)
    with pytest.raises(UnreadableFile, match=r"w of .* stands for 4\.0 MB, in a file of .* kB"):
        read(path)


@pytest.mark.parametrize("length", [0x80, 0x280, 0x04034B50])
def test_a_safetensors_file_may_begin_as_a_pickle_or_a_zip(tmp_path, length):
    """Its first bytes are the length of its header, which is any number."""
    text = b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    data = length.to_bytes(8, "little") + text + b" " * (length - len(text)) + torch.ones(1).numpy().tobytes()
    (tmp_path / "weights").write_bytes(data)
    assert read(tmp_path / "weights")["w"].tolist() == [1]


def test_headers_and_some_tensors_of_a_safetensors_file(tmp_path):
    path = tmp_path / "weights.safetensors"
    safetensors.torch.save_file(TENSORS, path, {"format": "pt", "step": "3"})
    assert header(path) == {"format": "pt", "step": "3"}
    tensors, said = read_safetensors(path, lambda name: name == "b")
    assert same(tensors, {"b": TENSORS["b"]})
    assert said == {"format": "pt", "step": "3"}
    torch.save(TENSORS, tmp_path / "a.pt")
    assert header(tmp_path / "a.pt") is None
    assert header(tmp_path / "none") is None
    (tmp_path / "text.safetensors").write_text("words")
    with pytest.raises(UnreadableFile, match=r'is not a whole safetensors file, but text \("words"\)'):
        read_safetensors(tmp_path / "text.safetensors")
    torch.save(TENSORS, tmp_path / "renamed.safetensors")
    for reader in (read, read_safetensors):
        with pytest.raises(UnreadableFile, match="is not a whole safetensors file, but a torch file or a pickle"):
            reader(tmp_path / "renamed.safetensors")


def test_members_that_overlap_and_names_that_come_twice(path):
    torch.save({"a": torch.zeros(1000)}, path)
    with zipfile.ZipFile(path) as archive:
        name = next(name for name in archive.namelist() if name.endswith("data/0"))
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr(name, b"x")
    with pytest.raises(UnreadableFile, match="is damaged: a name comes twice in it"):
        read(path)


@pytest.mark.parametrize("protocol", range(6))
def test_what_a_pickle_asks_for(protocol):
    data = pickle.dumps([Runs(Path("x")), OrderedDict(a=1), Runs(Path("y")), re.compile("a")], protocol)
    said = foreign.parsed(data)
    assert said.whole
    assert said.names[0] == "posix.mkdir"
    assert "re._compile" in said.names
    assert not any("OrderedDict" in name for name in said.names)
    assert not foreign.parsed(data[:-1]).whole
    assert foreign.parsed(data[:-1]).names == said.names
