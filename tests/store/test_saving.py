"""A safetensors file is whole or not there, and anybody's to read."""

import os
import stat
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from gear.store import saving
from gear.store.saving import save_safetensors
from gear.store.torch_file import read_safetensors
from gear.store.whole import WriteError

TENSORS = {"a": torch.rand(2, 3), "b": torch.tensor([1, 65535], dtype=torch.uint16), "none": torch.ones(0, 2)}


@pytest.mark.parametrize("metadata", [None, {"format": "pt", "said": "çédille"}])
def test_there_and_back(tmp_path: Path, metadata: dict[str, str] | None) -> None:
    path = tmp_path / "made" / "a.safetensors"
    save_safetensors(path, TENSORS, metadata)
    tensors, said = read_safetensors(path)
    assert said == (metadata or {})
    assert tensors.keys() == TENSORS.keys()
    assert all(torch.equal(tensors[name], t) for name, t in TENSORS.items())
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("error", [SafetensorError("I/O error: no space left"), OSError(28, "no space left")])
def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def full(tensors: object, path: Path, metadata: object) -> None:
        path.write_bytes(b"half")
        raise error

    path = tmp_path / "a.safetensors"
    path.write_bytes(b"before")
    monkeypatch.setattr(saving, "save_file", full)
    with pytest.raises(WriteError, match=r"a\.safetensors could not be written \(.*no space left\): free some space"):
        save_safetensors(path, TENSORS)
    assert path.read_bytes() == b"before"
    assert os.listdir(tmp_path) == [path.name]
