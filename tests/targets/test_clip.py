"""CLIP on a random network of two blocks, by timm's and by transformers' names."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from timm.models.vision_transformer import vit_large_patch14_clip_quickgelu_224
from torch import Tensor

from gear.targets import files
from gear.targets.clip import CLIP

TINY: dict[str, Any] = {"depth": 2, "embed_dim": 32, "num_heads": 2, "img_size": 56}
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, random_state) -> Path:
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    save_file(random_state(vit_large_patch14_clip_quickgelu_224, **TINY), path)
    return path


def preprocess(pixels: Tensor) -> Tensor:
    x = F.interpolate(pixels.double() / 255, (56, 56), mode="bicubic")
    return (x - torch.tensor(MEAN).double()[:, None, None]) / torch.tensor(STD).double()[:, None, None]


@pytest.mark.parametrize(("layer", "blocks"), [(None, 2), (2, 2), (1, 1)])
def test_equals_the_twin(layer: int | None, blocks: int, saved: Path, vit_twin) -> None:
    """As 256 px read as 224. The release takes the last block's tokens before the LayerNorm."""
    target, state = CLIP(saved, layer, **TINY), files.read(saved)
    assert (target.name, target.channels) == ("clip-l", 32)
    pixels = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    prefix, table = [state["cls_token"] + state["pos_embed"][:, :1]], state["pos_embed"][0, 1:]
    x = preprocess(pixels)
    expected = vit_twin(state, x, 14, 2, prefix=prefix, table=table, gelu="sigmoid", eps=1e-5, layer=blocks)
    f = target.features(pixels, (4, 4)).double()
    torch.testing.assert_close(f, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


def test_reads_the_file_of_transformers(saved: Path, tmp_path: Path) -> None:
    theirs: dict[str, Tensor] = {
        "text_model.embeddings.position_ids": torch.arange(4),
        "vision_model.embeddings.position_ids": torch.arange(17),
        "visual_projection.weight": torch.zeros(8, 32),
    }
    for key, value in files.read(saved).items():
        block, _, rest = key.removeprefix("blocks.").partition(".")
        layers = f"vision_model.encoder.layers.{block}"
        match key.split("."):
            case ["cls_token"]:
                theirs["vision_model.embeddings.class_embedding"] = value[0, 0].clone()
            case ["pos_embed"]:
                theirs["vision_model.embeddings.position_embedding.weight"] = value[0].clone()
            case ["patch_embed", "proj", "weight"]:
                theirs["vision_model.embeddings.patch_embedding.weight"] = value
            case ["norm_pre", part]:
                theirs[f"vision_model.pre_layrnorm.{part}"] = value
            case ["norm", part]:
                theirs[f"vision_model.post_layernorm.{part}"] = value
            case [_, _, "attn", "qkv", part]:
                for letter, third in zip("qkv", value.chunk(3), strict=True):
                    theirs[f"{layers}.self_attn.{letter}_proj.{part}"] = third.clone()
            case [_, _, "attn", "proj", part]:
                theirs[f"{layers}.self_attn.out_proj.{part}"] = value
            case _:
                theirs[f"{layers}.{rest.replace('norm', 'layer_norm')}"] = value
    save_file(theirs, tmp_path / "openai.safetensors")
    pixels = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    got = CLIP(tmp_path / "openai.safetensors", **TINY).features(pixels, (4, 4))
    assert torch.equal(got, CLIP(saved, **TINY).features(pixels, (4, 4)))
    with pytest.raises(ValueError, match=r"weights of clip-l: it lacks blocks\.2\."):
        CLIP(tmp_path / "openai.safetensors", **dict(TINY, depth=3))
    with pytest.raises(ValueError, match="clip-l has the blocks 1 to 2; layer is 0"):
        CLIP(saved, 0, **TINY)
