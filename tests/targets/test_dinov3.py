"""DINOv3 on a random network of two blocks, and Meta's layout of the file."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from timm.models.eva import vit_base_patch16_dinov3, vit_base_patch16_dinov3_qkvb
from torch import Tensor

from gear.targets import files
from gear.targets.dinov3 import DINOv3

TINY: dict[str, Any] = {"depth": 2, "embed_dim": 32, "num_heads": 2}
FUNCTIONS = {"plain": vit_base_patch16_dinov3, "biased": vit_base_patch16_dinov3_qkvb}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, random_state) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("weights")
    for name, function in FUNCTIONS.items():
        save_file(random_state(function, **TINY), folder / f"{name}.safetensors")
    return {name: folder / f"{name}.safetensors" for name in FUNCTIONS}


def preprocess(pixels: Tensor) -> Tensor:
    mean, std = torch.tensor([0.485, 0.456, 0.406]).double(), torch.tensor([0.229, 0.224, 0.225]).double()
    return (pixels.double() / 255 - mean[:, None, None]) / std[:, None, None]


def turn(grid: tuple[int, int]) -> Callable[[Tensor], Tensor]:
    """Channels j and j + D / 2 of a head are a complex number. The first D / 4 of them turn with the row, the others
    with the column, both from -1 to 1 at the image's edges; a period of p means p of those units."""

    def rotate(x: Tensor) -> Tensor:
        d = x.shape[-1]
        z = torch.complex(x[..., : d // 2], x[..., d // 2 :])
        for n in range(x.shape[1]):
            place = ((n // grid[1] + 0.5) / grid[0] * 2 - 1, (n % grid[1] + 0.5) / grid[1] * 2 - 1)
            for j in range(d // 2):
                period = torch.tensor(100 ** (j % (d // 4) / (d // 4))).bfloat16().item()
                angle = torch.tensor(2 * math.pi * place[j // (d // 4)] / period).double()
                z[:, n, j] = z[:, n, j] * torch.polar(torch.ones(()).double(), angle)
        return torch.cat([z.real, z.imag], dim=-1)

    return rotate


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("layer", [None, 1])
def test_equals_the_twin(name: str, layer: int | None, saved, vit_twin) -> None:
    """An image of 16 px a token is not resized. The periods are those of bfloat16: in float32 the error is 3e-3."""
    target, state = DINOv3(saved[name], layer, **TINY), files.read(saved[name])
    assert (target.name, target.channels) == ("dinov3-b", 32)
    for grid in ((3, 3), (2, 4)):
        pixels = torch.randint(0, 256, (2, 3, 16 * grid[0], 16 * grid[1]), dtype=torch.uint8)
        prefix = [state["cls_token"], state["reg_token"]]
        expected = vit_twin(state, preprocess(pixels), 16, 2, prefix=prefix, turn=turn(grid), eps=1e-5, layer=layer)
        f = target.features(pixels, grid)
        assert f.shape == (2, grid[0] * grid[1], 32)
        torch.testing.assert_close(f.double(), expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


def test_reads_metas_file(saved, tmp_path: Path) -> None:
    state = files.read(saved["biased"])
    renamed = {"reg_token": "storage_tokens", "gamma_1": "ls1.gamma", "gamma_2": "ls2.gamma"}
    meta: dict[str, Tensor] = {"mask_token": torch.zeros(1, 32), "rope_embed.periods": torch.ones(4).bfloat16()}
    for key, value in state.items():
        if key.endswith(".q_bias"):  # the middle third is masked
            name = key.replace("q_bias", "qkv.bias")
            meta[name] = torch.cat([value, torch.randn(32), state[key.replace("q_bias", "v_bias")]])
            meta[f"{name}_mask"] = torch.ones(96)
        elif not key.endswith(".v_bias"):
            for ours, theirs in renamed.items():
                key = key.replace(ours, theirs)
            meta[key] = value
    torch.save(meta, tmp_path / "dinov3_vitb16.pth")
    pixels = torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8)
    got = DINOv3(tmp_path / "dinov3_vitb16.pth", **TINY).features(pixels, (2, 2))
    assert torch.equal(got, DINOv3(saved["biased"], **TINY).features(pixels, (2, 2)))


def test_another_size_is_resized_with_antialias(saved) -> None:
    target, pixels = DINOv3(saved["plain"], **TINY), torch.randint(0, 256, (1, 3, 100, 20), dtype=torch.uint8)
    expected = F.interpolate(pixels.double(), (48, 32), mode="bicubic", antialias=True).clamp(0, 255)
    torch.testing.assert_close(target.preprocess(pixels, (3, 2)).double(), preprocess(expected), rtol=0, atol=1e-4)
    assert target.features(pixels, (3, 2)).shape == (1, 6, 32)


def test_refuses_another_network(saved) -> None:
    with pytest.raises(ValueError, match=r"weights of dinov3-l: it lacks blocks\.2\."):
        DINOv3(saved["plain"], size="l", **dict(TINY, depth=3))
    with pytest.raises(ValueError, match="dinov3-b has the blocks 1 to 2; layer is 3"):
        DINOv3(saved["plain"], 3, **TINY)
