"""SigLIP 2 on a random network of two blocks, by timm's and by transformers' names."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from timm.models.vision_transformer import vit_base_patch16_siglip_256
from torch import Tensor

from gear.targets import files
from gear.targets.siglip2 import SigLIP2

TINY: dict[str, Any] = {"depth": 2, "embed_dim": 32, "num_heads": 2, "img_size": 64}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, random_state) -> Path:
    """With the pooling by attention that the published files have."""
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    save_file(random_state(vit_base_patch16_siglip_256, **TINY), path)
    return path


def hugging_face(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A whole file of transformers with the same vision tower."""
    named: dict[str, Tensor] = {"logit_scale": torch.zeros(1), "text_model.final_layer_norm.weight": torch.zeros(8)}
    tower = {"vision_model.head.probe": torch.zeros(1, 1, 32)}
    for key, value in state.items():
        key = key.replace("blocks.", "vision_model.encoder.layers.").replace(".attn.proj.", ".self_attn.out_proj.")
        key = key.replace(".norm1.", ".layer_norm1.").replace(".norm2.", ".layer_norm2.")
        if ".attn.qkv." in key:
            for letter, part in zip("qkv", value.chunk(3), strict=True):
                tower[key.replace("attn.qkv", f"self_attn.{letter}_proj")] = part.clone()
        elif key.startswith("norm."):
            tower[key.replace("norm.", "vision_model.post_layernorm.")] = value
        elif key.startswith("patch_embed.proj."):
            tower[key.replace("patch_embed.proj.", "vision_model.embeddings.patch_embedding.")] = value
        elif key == "pos_embed":
            tower["vision_model.embeddings.position_embedding.weight"] = value[0].clone()
        elif not key.startswith("attn_pool."):
            tower[key] = value
    return named | tower


@pytest.mark.parametrize("layer", [None, 1])
def test_equals_the_twin(layer: int | None, saved: Path, vit_twin) -> None:
    """GELU by its tanh form, which timm's function for this size does not give by itself."""
    target, state = SigLIP2(saved, layer, **TINY), files.read(saved)
    assert (target.name, target.channels) == ("siglip2-b", 32)
    pixels = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    x = pixels.double() / 127.5 - 1
    expected = vit_twin(state, x, 16, 2, table=state["pos_embed"][0], gelu="tanh", layer=layer)
    f = target.features(pixels, (4, 4)).double()
    torch.testing.assert_close(f, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())
    assert not torch.allclose(f, vit_twin(state, x, 16, 2, table=state["pos_embed"][0], layer=layer), atol=1e-4)


def test_reads_googles_file(saved: Path, tmp_path: Path) -> None:
    theirs = hugging_face(files.read(saved))
    save_file(theirs, tmp_path / "google.safetensors")
    pixels = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    got = SigLIP2(tmp_path / "google.safetensors", **TINY).features(pixels, (4, 4))
    assert torch.equal(got, SigLIP2(saved, **TINY).features(pixels, (4, 4)))
    for lost, wanted in (("self_attn.k_proj.bias", "attn.qkv.bias"), ("mlp.fc1.weight", "mlp.fc1.weight")):
        part = {key: value for key, value in theirs.items() if not key.endswith(f"layers.1.{lost}")}
        save_file(part, tmp_path / "part.safetensors")
        with pytest.raises(ValueError, match=rf"weights of siglip2-b: it lacks blocks\.1\.{wanted}"):
            SigLIP2(tmp_path / "part.safetensors", **TINY)


def test_512_px_is_another_network(saved: Path) -> None:
    with pytest.raises(
        ValueError, match=r"weights of siglip2-b-512: its pos_embed is \(1, 16, 32\) and should be \(1, 1024, 32\)"
    ):
        SigLIP2(saved, resolution=512, depth=2, embed_dim=32, num_heads=2)
