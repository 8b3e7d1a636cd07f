"""EfficientNet-Lite against a twin of the TensorFlow network, and what the shipped weights see in drawn pictures."""

import math
from pathlib import Path
from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from gear import weights
from gear.targets import EfficientNetLite0
from gear.targets.efficientnet import load_efficientnet_lite, network_input

# EfficientNet-Lite0, Tan & Le 2019 Table 1 with the Lite changes: (blocks, kernel, stride, expansion, channels)
STAGES = [(1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112)]
REST = [(4, 5, 2, 6, 192), (1, 3, 1, 6, 320)]


def random_file() -> dict[str, Tensor]:
    """Random weights under the package's names, with statistics far from those of initialisation."""
    state: dict[str, Tensor] = {}

    def conv(name: str, c_out: int, c_in: int, kernel: int) -> None:
        state[f"{name}.weight"] = torch.randn(c_out, c_in, kernel, kernel) * (2 / (c_in * kernel**2)) ** 0.5

    def norm(name: str, c: int) -> None:
        state[f"{name}.weight"], state[f"{name}.bias"] = 0.5 + torch.rand(c), torch.randn(c) / 2
        state[f"{name}.running_mean"], state[f"{name}.running_var"] = torch.randn(c) / 2, 0.5 + torch.rand(c)
        state[f"{name}.num_batches_tracked"] = torch.tensor(1)

    conv("_conv_stem", 32, 3, 3)
    norm("_bn0", 32)
    c_in, block = 32, 0
    for blocks, kernel, _, expansion, c_out in STAGES + REST:
        for _ in range(blocks):
            name, wide = f"_blocks.{block}", c_in * expansion
            if expansion > 1:
                conv(f"{name}._expand_conv", wide, c_in, 1)
                norm(f"{name}._bn0", wide)
            conv(f"{name}._depthwise_conv", wide, 1, kernel)
            norm(f"{name}._bn1", wide)
            conv(f"{name}._project_conv", c_out, wide, 1)
            norm(f"{name}._bn2", c_out)
            c_in, block = c_out, block + 1
    conv("_conv_head", 1280, 320, 1)
    norm("_bn1", 1280)
    state["_fc.weight"], state["_fc.bias"] = torch.randn(1000, 1280) / 36, torch.randn(1000)
    return state


def twin(state: dict[str, Tensor], x: Tensor, stages: int = 5) -> Tensor:
    """The map after so many stages, in float64: TensorFlow's SAME padding, norms and ReLU6 written out."""

    def conv(x: Tensor, name: str, stride: int = 1, groups: int = 1) -> Tensor:
        weight = state[f"{name}.weight"].double()
        missing = [
            max((math.ceil(n / stride) - 1) * stride + weight.shape[-1] - n, 0) for n in (x.shape[3], x.shape[2])
        ]
        x = F.pad(x, (missing[0] // 2, missing[0] - missing[0] // 2, missing[1] // 2, missing[1] - missing[1] // 2))
        return F.conv2d(x, weight, stride=stride, groups=groups)

    def norm(x: Tensor, name: str) -> Tensor:
        parts = ("running_mean", "running_var", "weight", "bias")
        mean, variance, weight, bias = (state[f"{name}.{part}"].double()[:, None, None] for part in parts)
        return (x - mean) / (variance + 1e-3).sqrt() * weight + bias

    x = norm(conv(x, "_conv_stem", stride=2), "_bn0").clamp(0, 6)
    block = 0
    for blocks, _, stride, expansion, c_out in (STAGES + REST)[:stages]:
        for i in range(blocks):
            name, y = f"_blocks.{block}", x
            if expansion > 1:
                y = norm(conv(y, f"{name}._expand_conv"), f"{name}._bn0").clamp(0, 6)
            y = norm(conv(y, f"{name}._depthwise_conv", stride if i == 0 else 1, y.shape[1]), f"{name}._bn1").clamp(
                0, 6
            )
            y = norm(conv(y, f"{name}._project_conv"), f"{name}._bn2")
            x = x + y if x.shape[1] == c_out else y
            block += 1
    return x


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "lite0.pth"
    torch.manual_seed(0)
    torch.save(random_file(), path)
    return path


def test_equals_the_twin(file: Path) -> None:
    """Without resizing: pixels of the input size, on a grid that is not square."""
    pixels = torch.randint(0, 256, (2, 3, 32, 48), dtype=torch.uint8)
    expected = twin(torch.load(file, weights_only=True), (pixels.double() - 127) / 128)
    assert expected.shape == (2, 112, 2, 3)
    got = EfficientNetLite0(file).features(pixels, (2, 3))
    rows = torch.stack([expected[:, :, i, j] for i in range(2) for j in range(3)], dim=1)
    torch.testing.assert_close(got.double(), rows, rtol=1e-4, atol=1e-4 * rows.abs().max().item())


def resize_matrix(n_out: int, n_in: int) -> Tensor:
    """Antialiased bicubic interpolation along one axis: Keys' kernel (a = -1/2) stretched by the reduction."""
    scale = n_in / n_out
    matrix = torch.zeros(n_out, n_in, dtype=torch.float64)
    for i in range(n_out):
        for j in range(n_in):
            t = abs((j + 0.5) - (i + 0.5) * scale) / max(scale, 1)
            if t < 1:
                matrix[i, j] = 1.5 * t**3 - 2.5 * t**2 + 1
            elif t < 2:
                matrix[i, j] = -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2
    return matrix / matrix.sum(1, keepdim=True)


def test_the_image_is_resized_to_16_pixels_a_token(file: Path) -> None:
    """With antialias, and kept in range, which the bicubic kernel leaves on black and white noise."""
    pixels = (torch.rand(1, 3, 100, 20) > 0.5).to(torch.uint8) * 255
    unclamped = resize_matrix(48, 100) @ pixels.double() @ resize_matrix(32, 20).T
    assert unclamped.min() < -20
    resized = (network_input(pixels, (48, 32)) * 128 + 127).double()
    torch.testing.assert_close(resized, unclamped.clamp(0, 255), rtol=0, atol=1e-3)
    target, direct = EfficientNetLite0(file), resized.round().to(torch.uint8)
    similar = F.cosine_similarity(target.features(pixels, (3, 2)), target.features(direct, (3, 2)), dim=-1)
    assert similar.min() > 0.99


def test_frozen(file: Path) -> None:
    target = EfficientNetLite0(file)
    assert not any(p.requires_grad for p in target.parameters())
    pixels = torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8)
    before = target.features(pixels, (2, 2))
    assert not before.requires_grad
    with torch.autocast("cpu", torch.bfloat16):
        assert target.train().features(pixels, (2, 2)).dtype == torch.float32
    assert torch.equal(target.features(pixels, (2, 2)), before)


def test_reads_safetensors_and_half_precision(file: Path, tmp_path: Path) -> None:
    pixels = torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8)
    state = torch.load(file, weights_only=True)
    save_file({n: t.half() if t.is_floating_point() else t for n, t in state.items()}, tmp_path / "lite0.safetensors")
    got = EfficientNetLite0(tmp_path / "lite0.safetensors").features(pixels, (2, 2))
    assert got.dtype == torch.float32
    assert F.cosine_similarity(got, EfficientNetLite0(file).features(pixels, (2, 2)), dim=-1).min() > 0.999


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"_blocks.15._bn2.bias": None}, r"EfficientNet-Lite0: it lacks blocks\.6\.0\.bn3\.bias"),
        (
            {"_blocks.16._bn2.bias": torch.zeros(320)},
            r"EfficientNet-Lite0: _blocks\.16\._bn2\.bias has no place here",
        ),
        ({"_fc.bias": torch.zeros(10)}, r"its classifier\.bias is \(10,\) and should be \(1000,\)"),
    ],
)
def test_refuses_another_network(change: dict[str, Tensor | None], message: str, file: Path, tmp_path: Path) -> None:
    state = torch.load(file, weights_only=True) | change
    torch.save({name: t for name, t in state.items() if t is not None}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=message):
        EfficientNetLite0(tmp_path / "other.pth")


@pytest.mark.parametrize(("layer", "stages", "stride"), [(1, 1, 2), (7, 7, 32)])
def test_another_stage(layer: int, stages: int, stride: int, file: Path) -> None:
    target = EfficientNetLite0(file, layer)
    pixels = torch.randint(0, 256, (1, 3, 2 * stride, 3 * stride), dtype=torch.uint8)
    expected = twin(torch.load(file, weights_only=True), (pixels.double() - 127) / 128, stages)
    assert expected.shape == (1, target.channels, 2, 3)
    got = target.features(pixels, (2, 3)).double()
    torch.testing.assert_close(got, expected.flatten(2).mT, rtol=1e-4, atol=1e-4 * expected.abs().max().item())
    with pytest.raises(ValueError, match="efficientnet_lite0 has the stages 1 to 7; layer is 8"):
        EfficientNetLite0(file, 8)


@pytest.mark.parametrize("variant", [0, 1])
def test_the_shipped_weights_know_what_they_see(
    variant: Literal[0, 1], drawn_pictures: tuple[Tensor, list[int]]
) -> None:
    pixels, labels = drawn_pictures
    net = load_efficientnet_lite(variant, weights.path(f"efficientnet_lite{variant}"))
    probabilities = net(network_input(pixels, (128, 128))).softmax(1)
    assert probabilities.argmax(1).tolist() == labels
    assert probabilities.max(1).values.min() > 0.7
