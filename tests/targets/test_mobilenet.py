"""MobileNetV2 against a twin in float64, and, where its file is in the cache, what the real weights see."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor
from torchvision.models import mobilenet_v2

from gear import weights
from gear.targets import files
from gear.targets.mobilenet import MobileNetV2, load_mobilenet_v2

REAL = weights.cached(weights.find("mobilenet_v2"))  # before the tests get a cache of their own
STAGES = [(1, 1, 1), (6, 2, 2), (6, 3, 2), (6, 4, 2), (6, 3, 1), (6, 3, 2), (6, 1, 1)]  # Table 2: t, n, s
TINY: dict[str, Any] = {"width_mult": 0.25}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    state = mobilenet_v2(**TINY).state_dict()
    for name, tensor in state.items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5)
        elif tensor.ndim == 1 and tensor.is_floating_point():
            tensor.normal_().mul_(0.5).add_(name.endswith("weight"))
    path = tmp_path_factory.mktemp("weights") / "mobilenet.pth"
    torch.save(state, path)
    return path


def twin(state: dict[str, Tensor], x: Tensor, stages: int) -> Tensor:
    s = {name: tensor.double() for name, tensor in state.items()}

    def conv(x: Tensor, name: str, norm: str, stride: int = 1, groups: int = 1) -> Tensor:
        weight = s[f"{name}.weight"]
        x = F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2, groups=groups)
        mean, variance, scale, bias = (
            s[f"{norm}.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (variance + 1e-5).sqrt() * scale + bias

    x = conv(x, "features.0.0", "features.0.1", stride=2).clamp(0, 6)
    number = 1
    for expansion, blocks, first_stride in STAGES[:stages]:
        for i in range(blocks):
            name, y, stride = f"features.{number}.conv", x, first_stride if i == 0 else 1
            depthwise = 0
            if expansion > 1:
                y, depthwise = conv(y, f"{name}.0.0", f"{name}.0.1").clamp(0, 6), 1
            y = conv(y, f"{name}.{depthwise}.0", f"{name}.{depthwise}.1", stride, groups=y.shape[1]).clamp(0, 6)
            y = conv(y, f"{name}.{depthwise + 1}", f"{name}.{depthwise + 2}")
            x = x + y if stride == 1 and x.shape == y.shape else y
            number += 1
    return x


@pytest.mark.parametrize(("layer", "stages", "stride"), [(None, 5, 16), (1, 1, 2), (3, 3, 8), (7, 7, 32)])
def test_equals_the_twin(layer: int | None, stages: int, stride: int, saved: Path) -> None:
    """Without resizing, on a grid that is not square."""
    target = MobileNetV2(saved, layer, **TINY)
    pixels = torch.randint(0, 256, (2, 3, 2 * stride, 3 * stride), dtype=torch.uint8)
    mean, std = torch.tensor([0.485, 0.456, 0.406]).double(), torch.tensor([0.229, 0.224, 0.225]).double()
    x = (pixels.double() / 255 - mean[:, None, None]) / std[:, None, None]
    expected = twin(files.read(saved), x, stages)
    assert expected.shape == (2, target.channels, 2, 3)
    got = target.features(pixels, (2, 3)).double()
    torch.testing.assert_close(got, expected.flatten(2).mT, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


def test_frozen_and_resized(saved: Path, tmp_path: Path) -> None:
    target, pixels = MobileNetV2(saved, **TINY), torch.randint(0, 256, (1, 3, 40, 40), dtype=torch.uint8)
    assert not any(p.requires_grad for p in target.parameters())
    before = target.features(pixels, (2, 2))
    assert (target.name, before.shape, before.requires_grad) == ("mobilenet_v2", (1, 4, target.channels), False)
    with torch.autocast("cpu", torch.bfloat16):
        assert target.train().features(pixels, (2, 2)).dtype == torch.float32
    save_file(files.read(saved), tmp_path / "mobilenet.safetensors")
    assert torch.equal(MobileNetV2(tmp_path / "mobilenet.safetensors", **TINY).features(pixels, (2, 2)), before)


def test_refuses_what_is_not_there(saved: Path) -> None:
    with pytest.raises(ValueError, match=r"weights of MobileNetV2: its classifier\.1\.weight|its features"):
        MobileNetV2(saved)
    for layer in (0, 8):
        with pytest.raises(ValueError, match=f"mobilenet_v2 has the stages 1 to 7; layer is {layer}"):
            MobileNetV2(saved, layer, **TINY)


@pytest.mark.skipif(not REAL.is_file(), reason="`gear fetch mobilenet_v2` brings the weights")
def test_the_real_weights_know_what_they_see(drawn_pictures: tuple[Tensor, list[int]]) -> None:
    pixels, labels = drawn_pictures
    target = MobileNetV2(REAL)
    assert target.channels == 96
    assert load_mobilenet_v2(REAL)(target.preprocess(pixels, (14, 14))).argmax(1).tolist() == labels
