"""DINOv2 ViT-S/B/L/g/14 (Oquab et al. 2023), also with registers (Darcet et al. 2023), by timm.

ViT-B is the paper's target encoder (Table 15).
"""

from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import vision_transformer as timm_vit
from torch import Tensor

from gear.targets import files
from gear.targets.vit import ViT

PATCH = 14  # px
TABLE = 37  # positions along a side of the table that the files hold, for 518 px
SIZES = {"s": "small", "b": "base", "l": "large", "g": "giant"}


class DINOv2(ViT):
    """The patch tokens of the last block after its LayerNorm: 384, 768, 1024 or 1536 channels.

    weights_path: model.safetensors of the repository timm/vit_base_patch14_dinov2.lvd142m (small, large, giant;
    patch14_reg4 with registers), or torch.hub's dinov2_vitb14_pretrain.pth (vits, vitl, vitg; vitb14_reg4). Raises
    ValueError if the file holds another network. layer: the output of that block from 1, before the LayerNorm, instead.
    `architecture` overrides arguments of timm's function, which resamples the table of positions to h x w, bicubic with
    antialias.
    """

    def __init__(
        self,
        weights_path: Path,
        layer: int | None = None,
        size: Literal["s", "b", "l", "g"] = "b",
        registers: bool = False,
        **architecture: Any,
    ):
        name = f"dinov2-{size}-reg" if registers else f"dinov2-{size}"
        make = getattr(timm_vit, f"vit_{SIZES[size]}_patch14_{'reg4_' if registers else ''}dinov2")
        with torch.device("meta"):  # no time and no random numbers for an initialisation that is overwritten
            vit = make(**{"img_size": TABLE * PATCH, "num_classes": 0, "dynamic_img_size": True} | architecture)
        tensors = files.renamed(timm_names, files.read(weights_path), weights_path, name)
        files.fill(vit, tensors, weights_path, name)
        super().__init__(name, vit, layer, IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)

    def preprocess(self, pixels: UInt8[Tensor, "B 3 H W"], grid: tuple[int, int]) -> Float[Tensor, "B 3 h w"]:
        """As in the release: normalised, then bicubic without antialias to 14 px a token (256 px -> 224)."""
        h, w = grid
        return F.interpolate(self.normalise(pixels / 255), (PATCH * h, PATCH * w), mode="bicubic", antialias=False)


def timm_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """torch.hub's tensors as timm's; timm's own come back as they are."""
    swiglu = {".mlp.w12.": ".mlp.fc1.", ".mlp.w3.": ".mlp.fc2."}  # of ViT-g
    named = {}
    for name, tensor in tensors.items():
        for theirs, ours in swiglu.items():
            name = name.replace(theirs, ours)
        named[name] = tensor
    named.pop("mask_token", None)  # of the pretraining
    if "register_tokens" in named:  # timm's table has no entry for the class token, whose position is added to it here
        table = named["pos_embed"]
        if table.shape[-1:] != named["cls_token"].shape[-1:] or named["cls_token"].ndim != 3:
            raise RuntimeError("its pos_embed does not go with its cls_token")
        named["reg_token"] = named.pop("register_tokens")
        named["cls_token"] = named["cls_token"] + table[:, :1]
        named["pos_embed"] = table[:, 1:]
    return named
