import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gear.data import prepared
from gear.store import cache
from gear.store.cache import CacheError

ROWS = np.random.default_rng(0).integers(0, 256, (5, 3, 4, 4), np.uint8)


def rows(array: np.ndarray = ROWS):
    yield from array


def write(path: Path, key: str = "k") -> prepared.Prepared:
    return prepared.write(path, key, 4, rows(), lambda: {"names": ["a"]})


def test_comes_back_mapped(tmp_path):
    written = write(tmp_path / "a.npy")
    read = prepared.read(tmp_path / "a.npy", "k")
    assert read is not None
    for one in (written, read):
        assert isinstance(one.pixels, np.memmap)
        assert np.array_equal(one.pixels, ROWS)
        assert one.about == {"names": ["a"]}
    assert np.array_equal(np.load(tmp_path / "a.npy"), ROWS)  # any numpy program can read it


def test_changing_an_image_in_memory_does_not_change_the_file(tmp_path):
    write(tmp_path / "a.npy").pixels[:] = 0
    assert np.array_equal(np.load(tmp_path / "a.npy"), ROWS)


def test_the_header_has_the_same_length_for_every_count():
    lengths = {len(prepared._header(n, 256)) for n in (0, 1, 999_999_999_999)}
    assert len(lengths) == 1


def test_another_key_is_a_miss(tmp_path):
    write(tmp_path / "a.npy")
    assert prepared.read(tmp_path / "a.npy", "other") is None
    assert prepared.read(tmp_path / "absent.npy", "k") is None


@pytest.mark.parametrize("damage", ["cut", "flip", "json", "no json", "no npy", "longer"])
def test_a_damaged_cache_is_a_miss(tmp_path, damage):
    path = tmp_path / "a.npy"
    write(path)
    data = path.read_bytes()
    match damage:
        case "cut":
            path.write_bytes(data[:-1])
        case "flip":
            path.write_bytes(data[:200] + bytes([data[200] ^ 1]) + data[201:])
        case "longer":
            path.write_bytes(data + b"\0")
        case "json":
            path.with_suffix(".json").write_text(path.with_suffix(".json").read_text().replace('"a"', '"b"'))
        case "no json":
            path.with_suffix(".json").unlink()
        case "no npy":
            path.unlink()
    assert prepared.read(path, "k") is None


def test_large_files_are_checked_in_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(prepared, "BLOCK", 16)
    monkeypatch.setattr(prepared, "BLOCKS", 4)
    path = tmp_path / "a.npy"
    write(path)
    assert prepared.read(path, "k") is not None
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))  # the last block is always among them
    assert prepared.read(path, "k") is None


def test_a_failure_while_writing_leaves_what_was_there(tmp_path):
    write(tmp_path / "a.npy")

    def broken():
        yield ROWS[0]
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        prepared.write(tmp_path / "a.npy", "new", 4, broken(), dict)
    assert prepared.read(tmp_path / "a.npy", "k") is not None
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.json", "a.npy"]


def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path):
    """In a process that may write 100 kB: the operating system refuses the rest."""
    code = f"""
import resource, sys
from pathlib import Path
import numpy as np
from gear.data import prepared
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    rows = (np.zeros((3, 64, 64), np.uint8) for _ in range(20))
    prepared.write(Path({str(tmp_path / "new" / "a.npy")!r}), "k", 64, rows, dict)
except OSError as error:
    print(type(error).__name__, error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("CacheError The disk is full: a.npy could not be written in ")
    assert "GEAR_CACHE" in done.stdout
    assert list((tmp_path / "new").iterdir()) == []


def test_no_space_is_said_before_anything_is_read(tmp_path):
    with pytest.raises(CacheError, match=r"a\.npy needs 1000\.0 TB in .*, where .* are free"):
        cache.require_space(tmp_path / "a" / "b" / "a.npy", 10**15)


def test_the_description_is_plain_json(tmp_path):
    write(tmp_path / "a.npy")
    text = (tmp_path / "a.json").read_text().partition("\n")[2]
    assert json.loads(text)["about"] == {"names": ["a"]}
