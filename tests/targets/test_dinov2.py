"""DINOv2's code path on a random network of one block: the same class, files and resampling as the real one."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer, vit_base_patch14_dinov2
from torch import Tensor

from gear.targets import DINOv2, files

TINY: dict[str, Any] = {"depth": 1, "embed_dim": 32, "num_heads": 2}
TABLE = 37  # the position table is 37 x 37, for 518 px


def tiny() -> VisionTransformer:
    """Random in every parameter; LayerScale starts at 1e-5, which would hide the block."""
    vit = vit_base_patch14_dinov2(img_size=14 * TABLE, num_classes=0, **TINY)
    with torch.no_grad():
        for parameter in vit.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return vit.eval()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    torch.manual_seed(0)
    save_file(tiny().state_dict(), path)
    return path


def twin(state: dict[str, Tensor], pixels: Tensor, grid: tuple[int, int]) -> Tensor:
    """The one-block network written out in float64."""
    s = {name: tensor.double() for name, tensor in state.items()}
    (h, w), width, heads = grid, TINY["embed_dim"], TINY["num_heads"]
    mean, std = torch.tensor([0.485, 0.456, 0.406]).double(), torch.tensor([0.229, 0.224, 0.225]).double()
    x = (pixels.double() / 255 - mean[:, None, None]) / std[:, None, None]
    x = F.interpolate(x, (14 * h, 14 * w), mode="bicubic")

    kernel = s["patch_embed.proj.weight"].flatten(1)
    patches = [x[:, :, 14 * i : 14 * i + 14, 14 * j : 14 * j + 14].flatten(1) for i in range(h) for j in range(w)]
    tokens = torch.stack([patch @ kernel.T + s["patch_embed.proj.bias"] for patch in patches], dim=1)
    table = s["pos_embed"][:, 1:].reshape(1, TABLE, TABLE, width).permute(0, 3, 1, 2)
    table = F.interpolate(table, (h, w), mode="bicubic", antialias=True).permute(0, 2, 3, 1).reshape(1, h * w, width)
    cls = (s["cls_token"] + s["pos_embed"][:, :1]).expand(len(x), 1, width)
    t = torch.cat([cls, tokens + table], dim=1)

    def norm(t: Tensor, name: str) -> Tensor:
        centred = t - t.mean(-1, keepdim=True)
        flat = centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()
        return flat * s[f"{name}.weight"] + s[f"{name}.bias"]

    def linear(t: Tensor, name: str) -> Tensor:
        return t @ s[f"blocks.0.{name}.weight"].T + s[f"blocks.0.{name}.bias"]

    q, k, v = linear(norm(t, "blocks.0.norm1"), "attn.qkv").chunk(3, dim=-1)
    out = []
    for part in (slice(i * width // heads, (i + 1) * width // heads) for i in range(heads)):
        logits = q[..., part] @ k[..., part].mT / math.sqrt(width / heads)
        out.append(logits.softmax(-1) @ v[..., part])
    t = t + s["blocks.0.ls1.gamma"] * linear(torch.cat(out, dim=-1), "attn.proj")
    hidden = linear(norm(t, "blocks.0.norm2"), "mlp.fc1")
    hidden = hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2
    t = t + s["blocks.0.ls2.gamma"] * linear(hidden, "mlp.fc2")
    return norm(t, "norm")[:, 1:]


@pytest.mark.parametrize(("size", "grid"), [((64, 64), (4, 4)), ((48, 80), (3, 5)), ((20, 20), (4, 4))])
def test_equals_the_twin(size: tuple[int, int], grid: tuple[int, int], file: Path) -> None:
    """Reading a smaller image (256 px to 224 in the paper), a larger one, and one that is not square."""
    target, pixels = DINOv2(file, **TINY), torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8)
    f = target.features(pixels, grid)
    assert f.shape == (2, grid[0] * grid[1], 32) == (2, grid[0] * grid[1], target.channels)
    torch.testing.assert_close(f.double(), twin(tiny_state(file), pixels, grid), rtol=1e-4, atol=1e-4)


def tiny_state(file: Path) -> dict[str, Tensor]:
    vit = vit_base_patch14_dinov2(img_size=14 * TABLE, num_classes=0, **TINY)
    files.fill(vit, files.read(file), file, "")
    return vit.state_dict()


def test_a_table_resampled_once_is_the_same(file: Path) -> None:
    """The release gives timm the grid when it loads the file; here it is given at every call."""
    vit = vit_base_patch14_dinov2(
        pretrained=True, img_size=56, num_classes=0, pretrained_cfg_overlay={"file": str(file)}, **TINY
    )
    assert vit.pos_embed is not None
    assert vit.pos_embed.shape[1] == 1 + 4 * 4
    target, pixels = DINOv2(file, **TINY), torch.randint(0, 256, (2, 3, 56, 56), dtype=torch.uint8)
    with torch.no_grad():
        expected = vit.eval().forward_features((pixels / 255 - target.mean) / target.std)[:, 1:]
    torch.testing.assert_close(target.features(pixels, (4, 4)), expected)


def test_reads_torch_hubs_file(file: Path, tmp_path: Path) -> None:
    torch.save(tiny_state(file) | {"mask_token": torch.zeros(1, 32)}, tmp_path / "dinov2_vitb14_pretrain.pth")
    pixels = torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8)
    got = DINOv2(tmp_path / "dinov2_vitb14_pretrain.pth", **TINY).features(pixels, (2, 2))
    assert torch.equal(got, DINOv2(file, **TINY).features(pixels, (2, 2)))


def test_frozen(file: Path) -> None:
    target, pixels = DINOv2(file, **TINY), torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8)
    assert not any(p.requires_grad for p in target.parameters())
    with torch.autocast("cpu", torch.bfloat16):
        f = target.features(pixels, (2, 2))
    assert f.dtype == torch.float32
    assert not f.requires_grad


def test_refuses_another_network(file: Path) -> None:
    with pytest.raises(ValueError, match=r"weights of DINOv2 ViT-B/14: it lacks blocks\.1\."):
        DINOv2(file, **TINY | {"depth": 2})
    with pytest.raises(ValueError, match=r"its .* is \(.*32.*\) and should be \(.*64.*\)"):
        DINOv2(file, **TINY | {"embed_dim": 64})
