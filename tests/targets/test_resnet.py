"""ResNet-50 from an archive as Keras has it to features, against a twin that folds nothing."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.numpy import save_file
from torch import Tensor

from gear import weights
from gear.store import keras
from gear.targets.resnet import ResNet50, load_resnet50

REAL = weights.cached(weights.find("resnet50"))  # before the tests get a cache of their own
WIDTH = 4
MODEL = "package/ResNet50/model.json"


def random_arrays() -> dict[str, np.ndarray]:
    """Keras's ResNet50, WIDTH instead of 64 channels wide; some channels hardly vary, for which epsilon matters."""
    rng, arrays = np.random.default_rng(0), {}

    def conv(name: str, norm: str, size: int, c_in: int, c_out: int) -> None:
        arrays[f"{name}/kernel"] = rng.normal(0, (2 / (size**2 * c_in)) ** 0.5, (size, size, c_in, c_out))
        arrays[f"{name}/bias"] = rng.normal(0, 0.3, c_out)
        variance = rng.uniform(0.5, 1.5, c_out)
        variance[0] = 1e-4
        shift, scale = rng.normal(0, 0.3, (2, c_out)), rng.uniform(0.3, 0.6, c_out)
        scale[0] *= 0.01
        arrays.update({f"{norm}/gamma": scale, f"{norm}/beta": shift[0]})
        arrays.update({f"{norm}/moving_mean": shift[1], f"{norm}/moving_variance": variance})

    conv("conv1", "bn_conv1", 7, 3, WIDTH)
    c_in = WIDTH
    for stage, blocks in enumerate((3, 4, 6, 3)):
        wide = WIDTH * 2**stage
        for block in "abcdef"[:blocks]:
            there = f"{stage + 2}{block}_branch"
            conv(f"res{there}2a", f"bn{there}2a", 1, c_in, wide)
            conv(f"res{there}2b", f"bn{there}2b", 3, wide, wide)
            conv(f"res{there}2c", f"bn{there}2c", 1, wide, 4 * wide)
            if block == "a":
                conv(f"res{there}1", f"bn{there}1", 1, c_in, 4 * wide)
            c_in = 4 * wide
    arrays["fc1000/kernel"], arrays["fc1000/bias"] = rng.normal(0, 0.1, (c_in, 1000)), rng.normal(0, 1, 1000)
    return {name: value.astype(np.float32) for name, value in arrays.items()}


def twin(arrays: dict[str, np.ndarray], x: Tensor, stages: int) -> Tensor:
    """Keras's layers one by one in float64; x is what preprocessing gives."""
    s = {name: torch.from_numpy(value).double() for name, value in arrays.items()}

    def conv(x: Tensor, name: str, norm: str, stride: int = 1, padding: int = 0) -> Tensor:
        kernel = s[f"{name}/kernel"].permute(3, 2, 0, 1)
        x = F.conv2d(x, kernel, s[f"{name}/bias"], stride=stride, padding=padding)
        parts = ("moving_mean", "moving_variance", "gamma", "beta")
        mean, variance, gamma, beta = (s[f"{norm}/{part}"][:, None, None] for part in parts)
        return (x - mean) / (variance + 1.001e-5).sqrt() * gamma + beta

    x = conv(x, "conv1", "bn_conv1", 2, 3).relu()
    x = F.max_pool2d(F.pad(x, (1, 1, 1, 1)), 3, 2)
    for stage, blocks in enumerate((3, 4, 6, 3)[:stages]):
        for i, block in enumerate("abcdef"[:blocks]):
            there, stride = f"{stage + 2}{block}_branch", 2 if stage > 0 and i == 0 else 1
            y = conv(x, f"res{there}2a", f"bn{there}2a", stride).relu()
            y = conv(y, f"res{there}2b", f"bn{there}2b", padding=1).relu()
            y = conv(y, f"res{there}2c", f"bn{there}2c")
            x = (y + (conv(x, f"res{there}1", f"bn{there}1", stride) if i == 0 else x)).relu()
    return x


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `gear fetch resnet50` would make of a package with random weights in two shards."""
    folder, arrays = tmp_path_factory.mktemp("weights"), random_arrays()
    data = b"".join(value.tobytes() for value in arrays.values())
    shards = {"shard1.bin": data[:1000], "shard2.bin": data[1000:]}
    listed = [{"name": name, "shape": list(value.shape), "dtype": "float32"} for name, value in arrays.items()]
    model = json.dumps({"weightsManifest": [{"paths": list(shards), "weights": listed}]}).encode()
    with tarfile.open(folder / "net.tgz", "w:gz") as archive:
        for name, content in {MODEL: model, **{f"package/ResNet50/{k}": v for k, v in shards.items()}}.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    tensors = keras.resnet50(folder / "net.tgz", MODEL)
    assert {value.dtype for value in tensors.values()} == {np.dtype("float32")}
    save_file({name: np.ascontiguousarray(value) for name, value in tensors.items()}, folder / "resnet50.safetensors")
    return folder / "resnet50.safetensors"


@pytest.mark.parametrize(("layer", "stages", "stride"), [(None, 3, 16), (1, 1, 4), (4, 4, 32)])
def test_equals_keras(layer: int | None, stages: int, stride: int, saved: Path) -> None:
    """Without resizing, on a grid that is not square: blue first, means off, scale 255."""
    target = ResNet50(saved, layer, width=WIDTH)
    pixels = torch.randint(0, 256, (2, 3, 2 * stride, 3 * stride), dtype=torch.uint8)
    x = torch.stack([pixels[:, 2] - 103.939, pixels[:, 1] - 116.779, pixels[:, 0] - 123.68], dim=1).double()
    expected = twin(random_arrays(), x, stages)
    assert expected.shape == (2, target.channels, 2, 3)
    got = target.features(pixels, (2, 3)).double()
    torch.testing.assert_close(got, expected.flatten(2).mT, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


def test_the_classifier_reads_the_mean(saved: Path) -> None:
    arrays, net, x = random_arrays(), load_resnet50(saved, width=WIDTH), 50 * torch.randn(1, 3, 64, 64)
    logits = twin(arrays, x.double(), 4).mean((2, 3)) @ torch.from_numpy(arrays["fc1000/kernel"]).double()
    logits = logits + torch.from_numpy(arrays["fc1000/bias"])
    torch.testing.assert_close(net(x).double(), logits, rtol=1e-4, atol=1e-4 * logits.abs().max().item())


def test_frozen_and_resized(saved: Path) -> None:
    target, pixels = ResNet50(saved, width=WIDTH), torch.randint(0, 256, (1, 3, 40, 40), dtype=torch.uint8)
    assert not any(p.requires_grad for p in target.parameters())
    f = target.features(pixels, (2, 2))
    assert (target.name, target.channels, f.shape, f.requires_grad) == ("resnet50", 64, (1, 4, 64), False)
    with torch.autocast("cpu", torch.bfloat16):
        assert target.features(pixels, (2, 2)).dtype == torch.float32


def test_refuses_what_is_not_there(saved: Path) -> None:
    with pytest.raises(ValueError, match=r"weights of ResNet-50: its .* is \(.*\) and should be \(.*\)"):
        ResNet50(saved)
    for layer in (0, 5):
        with pytest.raises(ValueError, match=f"resnet50 has the stages 1 to 4; layer is {layer}"):
            ResNet50(saved, layer, width=WIDTH)


@pytest.mark.skipif(not REAL.is_file(), reason="`gear fetch resnet50` brings the weights")
def test_the_real_weights_know_what_they_see(drawn_pictures: tuple[Tensor, list[int]]) -> None:
    pixels, labels = drawn_pictures
    target = ResNet50(REAL)
    assert target.channels == 1024
    assert load_resnet50(REAL)(target.preprocess(pixels, (8, 8))).argmax(1).tolist() == labels
