"""What DINOv2, DINOv3, SigLIP 2, V-JEPA 2.1 and CLIP share: a frozen vision transformer of timm, its patch tokens."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, UInt8
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from gear.targets.target import resized

PATCH = 16  # px, of those whose `preprocess` is the one here


class ViT(nn.Module):
    """Holds `vit` up to block `layer`, counted from 1, without the final norm; or, where it is None, all of it.

    mean, std: of each colour on the scale 0 to 1. Raises ValueError if there is no such block.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, name: str, vit: VisionTransformer | Eva, layer: int | None, mean: Sequence[float], std: Sequence[float]
    ):
        super().__init__()
        if layer is not None:
            blocks = vit.blocks
            assert isinstance(blocks, nn.Sequential | nn.ModuleList)
            if not 1 <= layer <= len(blocks):
                raise ValueError(f"{name} has the blocks 1 to {len(blocks)}; layer is {layer}.")
            del blocks[layer:]
            vit.norm = nn.Identity()
        self.name, self.channels = name, vit.embed_dim
        self.vit = vit.eval().requires_grad_(False)
        self.register_buffer("mean", torch.tensor(mean)[:, None, None])
        self.register_buffer("std", torch.tensor(std)[:, None, None])

    def normalise(self, x: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
        """x in [0, 1]."""
        return (x - self.mean) / self.std

    def preprocess(self, pixels: UInt8[Tensor, "B 3 H W"], grid: tuple[int, int]) -> Float[Tensor, "B 3 h w"]:
        """Normalised. An image that has 16 px a token, as all in the release, keeps its size."""
        h, w = grid
        return self.normalise(resized(pixels, (PATCH * h, PATCH * w)) / 255)

    @torch.no_grad()
    def features(self, pixels: UInt8[Tensor, "B 3 H W"], grid: tuple[int, int]) -> Float[Tensor, "B N C"]:
        """f(x) of eq. 5, see `Target`."""
        return self.tokens(self.preprocess(pixels, grid))

    def tokens(self, x: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B N C"]:
        """One vector a patch, in row-major order and float32; the class token and registers are left out."""
        return self.vit.forward_features(x)[:, self.vit.num_prefix_tokens :].float()
