"""CLIP ViT-L/14 (Radford et al. 2021), by timm: a target of the released code."""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from timm.data.constants import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD
from timm.models.vision_transformer import vit_large_patch14_clip_quickgelu_224
from torch import Tensor

from gear.targets import files, hugging_face
from gear.targets.vit import ViT

PATCH = 14  # px


class CLIP(ViT):
    """The patch tokens of the last block before the LayerNorm, as in the release: 1024 channels.

    weights_path: model.safetensors of the repository openai/clip-vit-large-patch14, or the same tensors under timm's
    names. Raises ValueError if the file holds another network. layer: the output of that block from 1 instead.
    `architecture` overrides arguments of timm's vit_large_patch14_clip_quickgelu_224. Only the grid of the table of
    positions, 16 x 16.
    """

    def __init__(self, weights_path: Path, layer: int | None = None, **architecture: Any):
        with torch.device("meta"):  # no time and no random numbers for an initialisation that is overwritten
            vit = vit_large_patch14_clip_quickgelu_224(num_classes=0, **architecture)
        tensors = files.renamed(hugging_face.timm_names, files.read(weights_path), weights_path, "clip-l")
        files.fill(vit, tensors, weights_path, "clip-l")
        last = len(vit.blocks) if layer is None else layer
        super().__init__("clip-l", vit, last, OPENAI_CLIP_MEAN, OPENAI_CLIP_STD)

    def preprocess(self, pixels: UInt8[Tensor, "B 3 H W"], grid: tuple[int, int]) -> Float[Tensor, "B 3 h w"]:
        """As in the release: bicubic without antialias to 14 px a token (256 px -> 224), then normalised."""
        h, w = grid
        x = F.interpolate(pixels / 255, (PATCH * h, PATCH * w), mode="bicubic", antialias=False)
        return self.normalise(x)
