"""The names of transformers' CLIP and SigLIP vision towers, in timm's."""

import re

import torch
from torch import Tensor

OUTSIDE = {"embeddings.patch_embedding": "patch_embed.proj", "pre_layrnorm": "norm_pre", "post_layernorm": "norm"}
TABLES = {"embeddings.class_embedding": "cls_token", "embeddings.position_embedding.weight": "pos_embed"}
INSIDE = {"layer_norm1": "norm1", "layer_norm2": "norm2", "self_attn.out_proj": "attn.proj"}
QKV = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")  # one matrix in timm
TOWER = "vision_model."


def timm_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The vision tower of a file of transformers as timm's; timm's own names come back as they are.

    The text tower, the projections into the common space and the pooling by attention are left out: an alignment target
    is patch tokens.
    """
    if not any(name.startswith(TOWER) for name in tensors):
        return {name: tensor for name, tensor in tensors.items() if not name.startswith(("attn_pool.", "head."))}
    tower = {name.removeprefix(TOWER): tensor for name, tensor in tensors.items() if name.startswith(TOWER)}
    named = {}
    for name, tensor in tower.items():
        if name.startswith("head.") or name == "embeddings.position_ids":
            continue
        if match := re.fullmatch(r"encoder\.layers\.(\d+)\.(.+)\.(weight|bias)", name):
            block, layer, part = match.groups()
            if layer not in QKV:
                named[f"blocks.{block}.{INSIDE.get(layer, layer)}.{part}"] = tensor
                continue
            parts = [name.replace(layer, other) for other in QKV]
            if all(other in tower for other in parts):
                named[f"blocks.{block}.attn.qkv.{part}"] = torch.cat([tower[other] for other in parts])
        elif name in TABLES:
            named[TABLES[name]] = tensor.reshape(1, -1, tensor.shape[-1])
        else:
            layer, _, part = name.rpartition(".")
            named[f"{OUTSIDE.get(layer, layer)}.{part}"] = tensor
    return named
