"""SigLIP 2 ViT-B/L/So400m/16 (Tschannen et al. 2025), by timm. Table 10."""

from pathlib import Path
from typing import Any, Literal

import torch
from timm.models import vision_transformer as timm_vit

from gear.targets import files, hugging_face
from gear.targets.vit import ViT

SIZES = {"b": "base", "l": "large", "so400m": "so400m"}


class SigLIP2(ViT):
    """The patch tokens of the last block after its LayerNorm: 768, 1024 or 1152 channels. There is no class token.

    weights_path: model.safetensors of the repository timm/vit_base_patch16_siglip_256.v2_webli (large, so400m; 512), or
    of google/siglip2-base-patch16-256. Raises ValueError if the file holds another network. resolution: px, a network
    of its own for each. layer: the output of that block from 1, before the LayerNorm, instead. `architecture` overrides
    arguments of timm's function. Only the grid of the table of positions: 16 x 16, or 32 x 32 at 512 px.
    """

    def __init__(
        self,
        weights_path: Path,
        layer: int | None = None,
        size: Literal["b", "l", "so400m"] = "b",
        resolution: Literal[256, 512] = 256,
        **architecture: Any,
    ):
        name = f"siglip2-{size}" if resolution == 256 else f"siglip2-{size}-{resolution}"
        # Google's networks have the tanh form of GELU, which some of timm's functions do not give.
        options = {"img_size": resolution, "num_classes": 0, "global_pool": "", "act_layer": "gelu_tanh"}
        with torch.device("meta"):  # no time and no random numbers for an initialisation that is overwritten
            vit = getattr(timm_vit, f"vit_{SIZES[size]}_patch16_siglip_256")(**options | architecture)
        tensors = files.renamed(hugging_face.timm_names, files.read(weights_path), weights_path, name)
        files.fill(vit, tensors, weights_path, name)
        super().__init__(name, vit, layer, (0.5,) * 3, (0.5,) * 3)
