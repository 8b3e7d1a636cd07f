"""DINOv3 ViT-S/B/L/16 (Simeoni et al. 2025), by timm. Table 10."""

from pathlib import Path
from typing import Any, Literal

import torch
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import eva
from timm.models.eva import Eva, EvaAttention
from torch import Tensor

from gear.targets import files
from gear.targets.vit import ViT

SIZES = {"s": "small", "b": "base", "l": "large"}
PERIOD = 100  # the longest of the rotary embedding, in units of half an image side


class DINOv3(ViT):
    """The patch tokens of the last block after its LayerNorm: 384, 768 or 1024 channels.

    weights_path: model.safetensors of the repository timm/vit_base_patch16_dinov3.lvd1689m (small, large; or _qkvb), or
    Meta's dinov3_vitb16_pretrain_lvd1689m-*.pth (vits, vitl). Raises ValueError if the file holds another network.
    layer: the output of that block from 1, before the LayerNorm, instead. `architecture` overrides arguments of timm's
    function.
    """

    def __init__(
        self, weights_path: Path, layer: int | None = None, size: Literal["s", "b", "l"] = "b", **architecture: Any
    ):
        name = f"dinov3-{size}"
        tensors = files.renamed(timm_names, files.read(weights_path), weights_path, name)
        biased = any(key.endswith(".q_bias") for key in tensors)  # all zero in the published ones; timm leaves them out
        with torch.device("meta"):  # no time and no random numbers for an initialisation that is overwritten
            vit = getattr(eva, f"vit_{SIZES[size]}_patch16_dinov3")(num_classes=0, qkv_bias=biased, **architecture)
        files.fill(vit, tensors, weights_path, name)
        fill_buffers(vit)
        super().__init__(name, vit, layer, IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)


def timm_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Meta's tensors as timm's; timm's own come back as they are.

    Meta's file also holds the periods of the rotary embedding and a mask that keeps the bias of the keys at 0.
    """
    renamed = {"storage_tokens": "reg_token", ".ls1.gamma": ".gamma_1", ".ls2.gamma": ".gamma_2"}
    named = {}
    for name, tensor in tensors.items():
        for theirs, ours in renamed.items():
            name = name.replace(theirs, ours)
        if name.endswith(".qkv.bias") and tensor.ndim == 1 and len(tensor) % 3 == 0 < len(tensor):
            named[name.replace("qkv.bias", "q_bias")], _, named[name.replace("qkv.bias", "v_bias")] = tensor.chunk(3)
        elif name not in ("mask_token", "rope_embed.periods") and not name.endswith(".bias_mask"):
            named[name] = tensor
    return named


def fill_buffers(vit: Eva) -> None:
    """What no timm file holds: zeros for the bias of the keys, and the periods PERIOD^(2i / (d / 2)) for d channels of
    a head. As in Meta's files, the periods are rounded to bfloat16, with which the networks were trained."""
    attentions = [module for module in vit.modules() if isinstance(module, EvaAttention)]
    quarter = vit.embed_dim // attentions[0].num_heads // 4
    periods = PERIOD ** (torch.arange(quarter, dtype=torch.float32) / quarter)
    assert vit.rope is not None
    vit.rope.register_buffer("periods", periods.bfloat16().float(), persistent=False)
    for attention in attentions:
        if attention.k_bias is not None:
            attention.register_buffer("k_bias", torch.zeros(vit.embed_dim), persistent=False)
