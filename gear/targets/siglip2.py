"""SigLIP 2 ViT-B/L/So400m/16 (Tschannen et al. 2025), by timm. Table 10."""

from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, UInt8
from timm.models import vision_transformer as timm_vit
from torch import Tensor

from gear.targets import files, hugging_face
from gear.targets.target import resized
from gear.targets.vit import ViT

PATCH = 16  # px
SIZES = {"b": "base", "l": "large", "so400m": "so400m"}


class SigLIP2(ViT):
    """The patch tokens of the last block after its LayerNorm: 768, 1024 or 1152 channels. There is no class token.

    weights_path: model.safetensors of the repository timm/vit_base_patch16_siglip_256.v2_webli (large, so400m; 512), or
    of google/siglip2-base-patch16-256. Raises ValueError if the file holds another network. resolution: px, a network
    of its own for each. layer: the output of that block from 1, before the LayerNorm, instead. `architecture` overrides
    arguments of timm's function.
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
        files.fill(vit, hugging_face.timm_names(files.read(weights_path)), weights_path, name)
        super().__init__(name, vit, layer, (0.5,) * 3, (0.5,) * 3)

    def preprocess(self, pixels: UInt8[Tensor, "B 3 H W"], grid: tuple[int, int]) -> Float[Tensor, "B 3 h w"]:
        """To [-1, 1]. An image that has 16 px a token, as all in the release, keeps its size."""
        h, w = grid
        return self.normalise(resized(pixels, (PATCH * h, PATCH * w)) / 255)

    @torch.no_grad()
    def features(self, pixels: UInt8[Tensor, "B 3 H W"], grid: tuple[int, int]) -> Float[Tensor, "B N C"]:
        """f(x) of eq. 5, see `Target`. Only the grid of the table of positions: 16 x 16, or 32 x 32 at 512 px."""
        return self.tokens(self.preprocess(pixels, grid))
