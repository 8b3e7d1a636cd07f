"""DINOv2 ViT-B/14 (Oquab et al. 2023), the paper's target encoder (Table 15), by timm."""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models.vision_transformer import vit_base_patch14_dinov2
from torch import Tensor, nn

from gear.targets import files

PATCH = 14  # px


class DINOv2(nn.Module):
    """The patch tokens of the last layer, after its LayerNorm: 768 channels.

    weights_path: model.safetensors of the timm/vit_base_patch14_dinov2.lvd142m repository, or torch.hub's
    dinov2_vitb14_pretrain.pth. Raises ValueError if the file holds another network. `architecture` overrides arguments
    of timm's vit_base_patch14_dinov2.
    """

    name = "dinov2"
    mean: Tensor
    std: Tensor

    def __init__(self, weights_path: Path, **architecture: Any):
        super().__init__()
        with torch.device("meta"):  # no time and no random numbers for an initialisation that is overwritten
            options = {"img_size": 37 * PATCH, "num_classes": 0, "dynamic_img_size": True} | architecture
            self.vit = vit_base_patch14_dinov2(**options)
        tensors = files.read(weights_path)
        tensors.pop("mask_token", None)  # of the pretraining; only torch.hub's file has it
        files.fill(self.vit, tensors, weights_path, "DINOv2 ViT-B/14")
        self.vit.eval().requires_grad_(False)
        self.channels = self.vit.embed_dim
        self.register_buffer("mean", torch.tensor(IMAGENET_DEFAULT_MEAN)[:, None, None])
        self.register_buffer("std", torch.tensor(IMAGENET_DEFAULT_STD)[:, None, None])

    @torch.no_grad()
    def features(self, pixels: UInt8[Tensor, "B 3 H W"], grid: tuple[int, int]) -> Float[Tensor, "B N C"]:
        """f(x) of eq. 5, see `Target`. As in the release: ImageNet's mean and standard deviation, then bicubic without
        antialias to 14 h x 14 w px (256 px -> 224 for 16 x 16 tokens). timm resamples the 37 x 37 position table to
        h x w with antialias."""
        h, w = grid
        x = (pixels / 255 - self.mean) / self.std
        x = F.interpolate(x, (PATCH * h, PATCH * w), mode="bicubic", antialias=False)
        return self.vit.forward_features(x)[:, self.vit.num_prefix_tokens :].float()
