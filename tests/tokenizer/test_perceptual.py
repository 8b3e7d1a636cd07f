"""LPIPS against a twin of its definition on random trunks, and its known behaviour on the one that ships."""

from pathlib import Path
from typing import Literal

import lpips
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from safetensors.torch import save_file
from torch import Tensor

from gear import weights
from gear.tokenizer.perceptual import Perceptual

Trunk = Literal["alex", "vgg"]

# index in torchvision's `features`: (channels in, channels out, kernel, stride, padding), or a max pool's (kernel, 2)
ALEX = {0: (3, 64, 11, 4, 2), 2: (3, 2), 3: (64, 192, 5, 1, 2), 5: (3, 2), 6: (192, 384, 3, 1, 1)}
ALEX |= {8: (384, 256, 3, 1, 1), 10: (256, 256, 3, 1, 1)}
VGG: dict[int, tuple[int, ...]] = {}
for first, convs, c_in, c_out in (
    (0, 2, 3, 64),
    (5, 2, 64, 128),
    (10, 3, 128, 256),
    (17, 3, 256, 512),
    (24, 3, 512, 512),
):
    VGG |= {first + 2 * i: (c_in if i == 0 else c_out, c_out, 3, 1, 1) for i in range(convs)} | {
        first + 2 * convs: (2, 2)
    }
LAYERS = {"alex": ALEX, "vgg": VGG}
READ = {"alex": (0, 3, 6, 8, 10), "vgg": (2, 7, 14, 21, 28)}  # the convolutions whose rectified outputs are compared


def random_trunk(trunk: Trunk) -> dict[str, Tensor]:
    state = {}
    for i, layer in LAYERS[trunk].items():
        if len(layer) == 5:
            c_in, c_out, kernel, _, _ = layer
            state[f"features.{i}.weight"] = torch.randn(c_out, c_in, kernel, kernel) * (2 / (c_in * kernel**2)) ** 0.5
            state[f"features.{i}.bias"] = 0.1 * torch.randn(c_out)
    return state


def twin(trunk: Trunk, state: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
    """Equation 1 of Zhang et al. in float64, averaged over the batch: sum_l mean_hw |w_l (f_l(x) - f_l(y))|^2."""
    file = Path(lpips.__file__).parent / "weights" / "v0.1" / f"{trunk}.pth"
    linear = torch.load(file, map_location="cpu", weights_only=True)
    shift, scale = (torch.tensor(c).double()[:, None, None] for c in ([-0.030, -0.088, -0.188], [0.458, 0.448, 0.450]))
    x, y = (x.double() - shift) / scale, (y.double() - shift) / scale
    distance, level = torch.zeros(len(x), dtype=torch.float64), 0
    for i, layer in LAYERS[trunk].items():
        if len(layer) == 2:
            if i > max(READ[trunk]):
                break
            x, y = F.max_pool2d(x, *layer), F.max_pool2d(y, *layer)
            continue
        weight, bias = state[f"features.{i}.weight"].double(), state[f"features.{i}.bias"].double()
        x, y = (F.conv2d(t, weight, bias, stride=layer[3], padding=layer[4]).clamp_min(0) for t in (x, y))
        if i in READ[trunk]:
            f, g = (t / (t.square().sum(1, keepdim=True).sqrt() + 1e-10) for t in (x, y))
            w = linear[f"lin{level}.model.1.weight"].double().reshape(1, -1, 1, 1)
            distance, level = distance + (w * (f - g).square()).sum(1).mean((1, 2)), level + 1
    assert level == 5
    return distance.mean()


def build(trunk: Trunk, state: dict[str, Tensor], folder: Path) -> Perceptual:
    save_file(state, folder / "trunk.safetensors")
    return Perceptual(trunk, folder / "trunk.safetensors")


def images(side: int = 40) -> tuple[Tensor, Tensor]:
    x = torch.rand(2, 3, side, side + 8) * 2 - 1
    return x, (x + 0.3 * torch.randn_like(x)).clamp(-1, 1)


@pytest.mark.parametrize("trunk", ["alex", "vgg"])
def test_equals_the_twin(trunk: Trunk, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state, (x, y) = random_trunk(trunk), images()
    perceptual = build(trunk, state, tmp_path)
    torch.testing.assert_close(perceptual(x, y).double(), twin(trunk, state, x, y), rtol=1e-4, atol=0)
    assert capsys.readouterr() == ("", "")  # lpips prints


def test_a_float16_file_is_computed_in_float32(tmp_path: Path) -> None:
    half = {name: tensor.half() for name, tensor in random_trunk("alex").items()}
    perceptual, (x, y) = build("alex", half, tmp_path), images()
    assert {p.dtype for p in perceptual.parameters()} == {torch.float32}
    expected = twin("alex", half, x, y)
    torch.testing.assert_close(perceptual(x, y).double(), expected, rtol=1e-4, atol=0)
    with torch.autocast("cpu", torch.bfloat16):
        inside = perceptual(x, y)
    assert inside.dtype == torch.float32
    torch.testing.assert_close(inside.double(), expected, rtol=1e-4, atol=0)


def test_frozen_but_differentiable(tmp_path: Path) -> None:
    state, (x, y) = random_trunk("alex"), images()
    perceptual = build("alex", state, tmp_path)
    assert not any(p.requires_grad for p in perceptual.parameters())
    assert not any(module.training for module in perceptual.train().modules())  # train() does not switch dropout on
    for side in (x, y):
        side.requires_grad_()
    got = torch.autograd.grad(perceptual(x, y), (x, y))
    expected = torch.autograd.grad(twin("alex", state, x, y), (x, y))
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-7)


def test_a_dead_position_has_a_finite_gradient(tmp_path: Path) -> None:
    """Where no feature fires, the normalisation divides 0 by 0's square root."""
    state = {name: t.zero_() if "bias" in name else t.abs_().neg_() for name, t in random_trunk("alex").items()}
    x, y = torch.ones(1, 3, 40, 40, requires_grad=True), torch.ones(1, 3, 40, 40)
    loss = build("alex", state, tmp_path)(x, y)
    (gradient,) = torch.autograd.grad(loss, x)
    assert loss == 0
    assert gradient.isfinite().all()


def test_builds_without_random_numbers(tmp_path: Path) -> None:
    save_file(random_trunk("alex"), tmp_path / "trunk.safetensors")
    before = torch.get_rng_state()
    Perceptual("alex", tmp_path / "trunk.safetensors")
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("trunk", "smallest"), [("alex", 31), ("vgg", 16)])
def test_the_smallest_image(trunk: Trunk, smallest: int, tmp_path: Path) -> None:
    perceptual = build(trunk, random_trunk(trunk), tmp_path)
    x = torch.rand(1, 3, smallest, smallest)
    assert perceptual(x, -x).item() > 0
    with pytest.raises(ValueError, match=f"at least {smallest} px; they are {smallest} x {smallest - 1}"):
        perceptual(x[..., 1:], x[..., 1:])


def test_refuses_another_trunk(tmp_path: Path) -> None:
    state = random_trunk("vgg")
    with pytest.raises(ValueError, match=r"not the 'alex' trunk of LPIPS: it lacks features\.3\.bias"):
        build("alex", {n: t for n, t in random_trunk("alex").items() if n != "features.3.bias"}, tmp_path)
    with pytest.raises(ValueError, match=r"not the 'vgg' trunk of LPIPS: classifier\.0\.weight has no place here"):
        build("vgg", {**state, "classifier.0.weight": torch.zeros(1)}, tmp_path)
    with pytest.raises(ValueError, match=r"its features\.0\.bias is \(3,\) and should be \(64,\)"):
        build("vgg", {**state, "features.0.bias": torch.zeros(3)}, tmp_path)
    with pytest.raises(ValueError, match=r"its features\.0\.bias has NaN or infinity"):
        build("vgg", {**state, "features.0.bias": torch.full((64,), torch.nan)}, tmp_path)


# -------------------------------------------------------------------------------------- the trunk that gear ships


@pytest.fixture(scope="module")
def shipped() -> Perceptual:
    return Perceptual("alex", weights.path("lpips-alex"))


def test_a_picture_is_at_no_distance_from_itself(shipped: Perceptual) -> None:
    assert shipped(picture(), picture()) == 0


def test_the_distance_grows_with_blur(shipped: Perceptual) -> None:
    distances = [shipped(blurred(picture(), sigma), picture()).item() for sigma in (0.5, 1, 2, 4)]
    assert distances == sorted(distances)
    assert distances[0] < 0.1 < 0.3 < distances[-1] < 1


def test_noise_is_further_than_light(shipped: Perceptual) -> None:
    """At an equal squared error: what tells a perceptual distance from a pixel-wise one."""
    noise = 0.1 * torch.randn(1, 3, 128, 128)
    assert shipped(picture() + noise, picture()) > 5 * shipped(picture() + 0.1, picture())


def picture() -> Tensor:
    """A road at dusk, 128 x 128 px, in [-1, 1]: sky, hills, road marking, posts."""
    image = Image.new("RGB", (128, 128), (70, 60, 90))
    draw = ImageDraw.Draw(image)
    for y in range(60):
        draw.line((0, y, 128, y), (90 + 2 * y, 70 + y, 130))
    draw.polygon([(0, 60), (30, 35), (55, 55), (85, 28), (128, 60)], (40, 50, 60))
    draw.polygon([(58, 60), (70, 60), (120, 128), (8, 128)], (60, 60, 62))
    for i in range(6):
        draw.rectangle((62 - i / 2, 62 + i * i * 2, 65 + i / 2, 66 + i * i * 2), (230, 220, 180))
        draw.line((40 - 8 * i, 58 + 12 * i, 40 - 8 * i, 48 + 10 * i), (200, 190, 180), 2)
    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).reshape(128, 128, 3)
    return pixels.permute(2, 0, 1)[None] / 127.5 - 1


def blurred(x: Tensor, sigma: float) -> Tensor:
    kernel = torch.exp(-(torch.arange(-12, 13) ** 2) / (2 * sigma**2))
    column = (kernel / kernel.sum()).reshape(1, 1, -1, 1).expand(3, 1, -1, 1)
    return F.conv2d(F.conv2d(F.pad(x, (12,) * 4, mode="reflect"), column, groups=3), column.mT, groups=3)
