"""V-JEPA 2.1 ViT-B/L/16 (Mur-Labadia et al. 2026), a video encoder with a branch of its own for images.

After the public source (facebookresearch/vjepa2: app/vjepa_2_1/models), which also says what its files are called and
what is in them (src/hub/backbones.py): an image goes through a patch embedding of its own, gets a learned vector that
is the same for all tokens and says that it is one, and then goes through the blocks it shares with videos: timm's
`Eva`, but for the rotary embedding. There is no class token, no register and no table of positions. V-JEPA 2 has no
image branch, and turns its queries and keys in another way.
"""

from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models.eva import Eva
from torch import Tensor, nn

from gear.store import torch_file
from gear.targets import files
from gear.targets.vit import PATCH, ViT

LAST = 256 // PATCH - 1  # position of the last row and column: counted at 256 px, squeezed to the same at 384
SIZES: dict[str, dict[str, Any]] = {
    "b": {"embed_dim": 768, "depth": 12, "num_heads": 12},  # 85,646,592 parameters
    "l": {"embed_dim": 1024, "depth": 24, "num_heads": 16},  # 303,098,880
}
TIMM = {"patch_embed_img.proj": "patch_embed.proj", "norms_block.3": "norm"}
UNUSED = (  # of videos; and three norms inside the network, which only the training of ViT-g and ViT-G reads
    *("patch_embed.proj", "video_mod_embed"),
    *("norms_block.0", "norms_block.1", "norms_block.2"),
)


class VJEPA21(ViT):
    """The patch tokens of the last block after its LayerNorm: 768 or 1024 channels.

    weights_path: Meta's vjepa2_1_vitb_dist_vitG_384.pt (vitl), whose entry `ema_encoder` is read, or a safetensors file
    of the tensors in that entry. Raises ValueError if the file holds another network. layer: the output of that block
    from 1, before the LayerNorm, instead. `architecture` overrides arguments of timm's `Eva`.
    """

    def __init__(
        self, weights_path: Path, layer: int | None = None, size: Literal["b", "l"] = "b", **architecture: Any
    ):
        name = f"vjepa2.1-{size}"
        options = {"num_classes": 0, "global_pool": "", "class_token": False, "use_abs_pos_emb": False}
        options |= {"dynamic_img_size": True, "attn_type": "rope", "norm_layer": partial(nn.LayerNorm, eps=1e-6)}
        options |= SIZES[size] | architecture
        with torch.device("meta"):  # no time and no random numbers for an initialisation that is overwritten
            vit = Eva(**options)
        rename = partial(timm_names, path=weights_path, kind=name)
        tensors = {} if files.without.get() else files.renamed(rename, read(weights_path), weights_path, name)
        files.fill(vit, tensors, weights_path, name)
        vit.rope = Rotary(options["embed_dim"] // options["num_heads"])
        super().__init__(name, vit, layer, IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)


class Rotary(nn.Module):
    """The angles by which a block turns each pair of channels (2j, 2j + 1) of its queries and keys.

    Of the D / 2 pairs of a head the first P = floor(floor(D / 3) / 2) stand for the frame, of which an image has one,
    at 0; the next P for the row; the next P for the column; the rest, 2 of 32, for nothing. Pair j of P is turned by
    position / 10,000^(j / P). Rows and columns are spread evenly over 0 to 15 whatever their number, which at 16 x 16
    tokens is as they are counted. The source divides 0 by 0 where there is one row or column; here it is at 0.
    """

    frequency: Tensor

    def __init__(self, head_width: int):
        super().__init__()
        self.head_width, pairs = head_width, head_width // 3 // 2
        self.register_buffer("frequency", 10000 ** -(torch.arange(pairs) / pairs), persistent=False)

    def get_embed(self, shape: tuple[int, int]) -> Float[Tensor, "N twice_D"]:
        """For each of the h w positions, row-major, the D sines and then the D cosines: what timm's `Eva` asks for."""
        (h, w), on, pairs = shape, self.frequency.device, len(self.frequency)
        angle = torch.zeros(h, w, self.head_width // 2, device=on)
        angle[:, :, pairs : 2 * pairs] = torch.linspace(0, LAST, h, device=on)[:, None, None] * self.frequency
        angle[:, :, 2 * pairs : 3 * pairs] = torch.linspace(0, LAST, w, device=on)[:, None] * self.frequency
        angle = angle.flatten(0, 1).repeat_interleave(2, dim=-1)
        return torch.cat([angle.sin(), angle.cos()], dim=-1)


def read(path: Path) -> dict[str, Tensor]:
    """The encoder's tensors under the names of the public source. Raises ValueError if the file has none."""
    contents = torch_file.read(path)
    encoder = contents.get("ema_encoder", contents)
    if not isinstance(encoder, dict) or not all(isinstance(tensor, Tensor) for tensor in encoder.values()):
        raise ValueError(f"{path} has no tensors under `ema_encoder`, V-JEPA 2.1's, but {', '.join(contents)}.")
    return {str(name).removeprefix("module.").removeprefix("backbone."): tensor for name, tensor in encoder.items()}


def timm_names(tensors: dict[str, Tensor], path: Path, kind: str) -> dict[str, Tensor]:
    """The image branch, named as in timm: one frame is no axis, and the image's vector is part of a bias.

    Raises ValueError, naming it, if a tensor is missing that has another name in timm; `path` and `kind` only word it.
    """
    named = {}
    for name, tensor in tensors.items():
        module, _, parameter = name.rpartition(".")
        if module not in UNUSED and name not in UNUSED:
            named[f"{TIMM.get(module, module)}.{parameter}" if module else name] = tensor
    for name in ("img_mod_embed", *(f"{module}.{parameter}" for module in TIMM for parameter in ("weight", "bias"))):
        if name not in tensors:
            raise ValueError(f"{path} does not hold the weights of {kind}: it lacks {name}.")
    named["patch_embed.proj.weight"] = named["patch_embed.proj.weight"].squeeze(2)
    named["patch_embed.proj.bias"] = named["patch_embed.proj.bias"] + named.pop("img_mod_embed").flatten()
    return named
