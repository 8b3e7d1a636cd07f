"""DINOv2's code path on random networks of two blocks: the same class, files and resampling as the real ones."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from timm.models.vision_transformer import (
    vit_base_patch14_dinov2,
    vit_base_patch14_reg4_dinov2,
    vit_giant_patch14_dinov2,
)
from torch import Tensor

from gear.targets import DINOv2

TINY: dict[str, Any] = {"depth": 2, "embed_dim": 32, "num_heads": 2, "img_size": 14 * 6}
VARIANTS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "dinov2-b": (vit_base_patch14_dinov2, {}),
    "dinov2-b-reg": (vit_base_patch14_reg4_dinov2, {"registers": True}),
    "dinov2-g": (vit_giant_patch14_dinov2, {"size": "g"}),  # SwiGLU
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, random_state) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("weights")
    for name, (function, _) in VARIANTS.items():
        save_file(random_state(function, **TINY), folder / f"{name}.safetensors")
    return {name: folder / f"{name}.safetensors" for name in VARIANTS}


def tensors(file: Path) -> dict[str, Tensor]:
    from gear.targets import files

    return files.read(file)


def preprocess(pixels: Tensor, grid: tuple[int, int]) -> Tensor:
    mean, std = torch.tensor([0.485, 0.456, 0.406]).double(), torch.tensor([0.229, 0.224, 0.225]).double()
    x = (pixels.double() / 255 - mean[:, None, None]) / std[:, None, None]
    return F.interpolate(x, (14 * grid[0], 14 * grid[1]), mode="bicubic")


def prefix_and_table(state: dict[str, Tensor]) -> tuple[list[Tensor], Tensor]:
    """timm's table begins with the class token where there are no registers."""
    if "reg_token" in state:
        return [state["cls_token"], state["reg_token"]], state["pos_embed"]
    return [state["cls_token"] + state["pos_embed"][:, :1]], state["pos_embed"][:, 1:]


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("layer", [None, 1, 2])
def test_equals_the_twin(name: str, layer: int | None, files, vit_twin, resize_table) -> None:
    """As 256 px read as 224 in the paper, and a grid that is not square."""
    target, state = DINOv2(files[name], layer, **VARIANTS[name][1], **TINY), tensors(files[name])
    assert (target.name, target.channels) == (name, 32)
    prefix, table = prefix_and_table(state)
    for size, grid in (((64, 64), (4, 4)), ((48, 80), (3, 5))):
        pixels = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8)
        x = preprocess(pixels, grid)
        torch.testing.assert_close(target.preprocess(pixels, grid).double(), x, rtol=0, atol=1e-4)
        expected = vit_twin(state, x, 14, 2, prefix=prefix, table=resize_table(table, grid), layer=layer)
        f = target.features(pixels, grid)
        assert f.shape == (2, grid[0] * grid[1], 32)
        torch.testing.assert_close(f.double(), expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


def test_a_table_resampled_once_is_the_same(files) -> None:
    """The release gives timm the grid when it loads the file; here it is given at every call."""
    options = TINY | {"img_size": 56}
    overlay = {"file": str(files["dinov2-b"])}
    vit = vit_base_patch14_dinov2(pretrained=True, num_classes=0, pretrained_cfg_overlay=overlay, **options)
    assert vit.pos_embed is not None
    assert vit.pos_embed.shape[1] == 1 + 4 * 4
    target, pixels = DINOv2(files["dinov2-b"], **TINY), torch.randint(0, 256, (2, 3, 56, 56), dtype=torch.uint8)
    with torch.no_grad():
        expected = vit.eval().forward_features(target.preprocess(pixels, (4, 4)))[:, 1:]
    torch.testing.assert_close(target.features(pixels, (4, 4)), expected)


@pytest.mark.parametrize("name", VARIANTS)
def test_reads_torch_hubs_file(name: str, files, tmp_path: Path, vit_twin, resize_table) -> None:
    """With registers its table still has the class token's position; the twin adds it as the source does."""
    hub = tensors(files[name]) | {"mask_token": torch.zeros(1, 32)}
    if "reg_token" in hub:
        hub["register_tokens"] = hub.pop("reg_token")
        hub["pos_embed"] = torch.cat([torch.randn(1, 1, 32), hub["pos_embed"]], dim=1)
    if name == "dinov2-g":
        hub = {key.replace("mlp.fc1", "mlp.w12").replace("mlp.fc2", "mlp.w3"): value for key, value in hub.items()}
    torch.save(hub, tmp_path / "hub.pth")
    target, pixels = DINOv2(tmp_path / "hub.pth", **VARIANTS[name][1], **TINY), torch.zeros(1, 3, 32, 32).byte()
    prefix = [hub["cls_token"] + hub["pos_embed"][:, :1], *([hub["register_tokens"]] if "-reg" in name else [])]
    table = resize_table(hub["pos_embed"][:, 1:], (2, 2))
    expected = vit_twin(tensors(files[name]), preprocess(pixels, (2, 2)), 14, 2, prefix=prefix, table=table)
    torch.testing.assert_close(target.features(pixels, (2, 2)).double(), expected, rtol=1e-4, atol=1e-4)


def test_frozen(files) -> None:
    target, pixels = DINOv2(files["dinov2-b"], **TINY), torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8)
    assert not any(p.requires_grad for p in target.parameters())
    with torch.autocast("cpu", torch.bfloat16):
        f = target.features(pixels, (2, 2))
    assert f.dtype == torch.float32
    assert not f.requires_grad


def test_refuses_another_network(files, tmp_path: Path) -> None:
    file = files["dinov2-b"]
    with pytest.raises(ValueError, match=r"weights of dinov2-b: it lacks blocks\.2\."):
        DINOv2(file, **dict(TINY, depth=3))
    with pytest.raises(ValueError, match=r"its .* is \(.*32.*\) and should be \(.*64.*\)"):
        DINOv2(file, **dict(TINY, embed_dim=64))
    with pytest.raises(ValueError, match=r"weights of dinov2-b-reg: its pos_embed is \(1, 37, 32\)"):
        DINOv2(file, registers=True, **TINY)
    for layer in (0, 3):
        with pytest.raises(ValueError, match=rf"dinov2-b has the blocks 1 to 2; layer is {layer}"):
            DINOv2(file, layer, **TINY)
    torch.save({"model": tensors(file)}, tmp_path / "nested.pth")
    with pytest.raises(ValueError, match=r"nested\.pth has a dict under 'model' where a tensor belongs"):
        DINOv2(tmp_path / "nested.pth", **TINY)
