"""The detector on a random network of two blocks, against timm's own forward of images that Pillow resized."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file
from timm.models.vision_transformer import VisionTransformer, vit_large_patch14_dinov2
from torch import Tensor

from gear.evaluate.dino import DinoDetector, hub_positions

TINY: dict[str, Any] = {"depth": 2, "embed_dim": 32, "num_heads": 2}
WHOLE = {"img_size": 37 * 14}  # of the table


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    vit = vit_large_patch14_dinov2(num_classes=0, **TINY, **WHOLE)
    tensors = {name: tensor + 0.3 * torch.randn_like(tensor) for name, tensor in vit.state_dict().items()}
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    save_file(tensors, path)
    return path


def shown(pixels: Tensor) -> Tensor:
    """What torchvision's transforms make of PIL images."""
    mean, std = (torch.tensor(v)[:, None, None] for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    resized = [
        np.array(Image.fromarray(x.permute(1, 2, 0).numpy()).resize((224, 224), Image.Resampling.BICUBIC))
        for x in pixels
    ]
    return (torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2) / 255 - mean) / std


def network(file: Path, **options: Any) -> VisionTransformer:
    vit = vit_large_patch14_dinov2(num_classes=0, **TINY, **options)
    return vit.eval()


@torch.no_grad()
def test_timms_positions_are_timms_forward(file: Path) -> None:
    vit = network(file, **WHOLE, dynamic_img_size=True)
    vit.load_state_dict(load_file(file))
    pixels = torch.randint(0, 256, (2, 3, 50, 70), dtype=torch.uint8)
    detector = DinoDetector(file, positions="timm", **TINY)
    torch.testing.assert_close(detector(pixels)["cls"], vit.forward_features(shown(pixels))[:, 0])


@torch.no_grad()
def test_hub_positions_are_a_network_of_224_px_with_that_table(file: Path) -> None:
    state = load_file(file)
    table = state["pos_embed"]
    square = table[:, 1:].reshape(1, 37, 37, 32).permute(0, 3, 1, 2)
    small = F.interpolate(square, scale_factor=16.1 / 37, mode="bicubic", antialias=False)
    state["pos_embed"] = torch.cat([table[:, :1], small.permute(0, 2, 3, 1).reshape(1, 256, 32)], 1)
    vit = network(file, img_size=224)
    vit.load_state_dict(state)
    pixels = torch.randint(0, 256, (2, 3, 224, 224), dtype=torch.uint8)
    detector = DinoDetector(file, **TINY)
    f = detector(pixels)["cls"]
    torch.testing.assert_close(f, vit.forward_features(shown(pixels))[:, 0])
    other = DinoDetector(file, positions="timm", **TINY)(pixels)["cls"]
    assert not torch.allclose(f, other, atol=1e-3)


def test_a_table_of_that_size_stays() -> None:
    table = torch.randn(1, 5, 3)
    assert torch.equal(hub_positions(table, 2), table)


def test_it_keeps_the_detectors_contract(file: Path) -> None:
    detector = DinoDetector(file, **TINY)
    assert detector.channels == {"cls": 32}
    pixels = torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8)
    outside = detector(pixels)["cls"]
    with torch.autocast("cpu", torch.bfloat16):
        inside = detector(pixels)["cls"]
    assert inside.dtype == torch.float32
    assert torch.equal(inside, outside)
    assert not inside.requires_grad
    about = detector.about()
    assert (len(about["sha256"]), about["positions"]) == (64, "hub")
