"""CLIP (Radford et al. 2021) by transformers: how well an image goes with its caption, and which of several texts it
goes with best."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float32, Float64, Int64, UInt8
from torch import Tensor, nn

from gear.evaluate.pil_resize import pil_square
from gear.store import pretrained

BASE = "openai/clip-vit-base-patch32"  # of the paper's CLIP score
LARGE = "openai/clip-vit-large-patch14"  # which tells GenEval's colours
FEATURES = "image"
TOKENIZER = ("vocab.json", "merges.txt")
MEAN = (0.48145466, 0.4578275, 0.40821073)  # of the images it was trained on, on the scale 0 to 1
STD = (0.26862954, 0.26130258, 0.27577711)


class Clip(nn.Module):
    """Images and texts to vectors of length 1 in one space, in float32 even under autocast; a detector of "image".

    model: a folder of transformers' files, or a name on the hub. Raises `PretrainedError`.
    """

    name = "clip"
    mean: Tensor
    std: Tensor

    def __init__(self, model: str = BASE):
        super().__init__()
        self.place: Path = pretrained.folder(model, TOKENIZER, optional=("tokenizer_config.json",))
        self.net = pretrained.load("CLIPModel", self.place)
        self.tokenizer = pretrained.transformers().CLIPTokenizer.from_pretrained(str(self.place), local_files_only=True)
        self.model, self.side = model, self.net.config.vision_config.image_size
        self.channels = {FEATURES: self.net.config.projection_dim}
        self.longest = self.net.config.text_config.max_position_embeddings  # tokens
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None])
        self.register_buffer("std", torch.tensor(STD)[:, None, None])

    def forward(self, pixels: UInt8[Tensor, "B 3 H W"]) -> dict[str, Float32[Tensor, "B D"]]:
        return {FEATURES: self.images(pixels)}

    @torch.no_grad()
    def images(self, pixels: UInt8[Tensor, "B 3 H W"]) -> Float32[Tensor, "B D"]:
        """The short side to the network's 224 px by Pillow's bicubic, the square in the middle, CLIP's mean and std."""
        with torch.autocast(pixels.device.type, enabled=False):
            x = (pil_square(pixels, self.side) / 255 - self.mean) / self.std
            seen = self.net.visual_projection(self.net.vision_model(pixel_values=x).pooler_output)
            return seen / seen.norm(dim=1, keepdim=True)

    @torch.no_grad()
    def texts(self, texts: Sequence[str]) -> Float32[Tensor, "B D"]:
        """What does not fit into 77 tokens is cut off, as in every published CLIP score."""
        options = {"padding": True, "truncation": True, "max_length": self.longest, "return_tensors": "pt"}
        tokens = self.tokenizer(list(texts), **options).to(self.mean.device)
        with torch.autocast(self.mean.device.type, enabled=False):
            read = self.net.text_model(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask).pooler_output
            read = self.net.text_projection(read)
            return read / read.norm(dim=1, keepdim=True)

    def about(self) -> dict[str, Any]:
        """What its vectors depend on."""
        return {
            "model": self.model,
            "sha256": pretrained.digests(self.place),
            "resize": f"Pillow bicubic, short side {self.side}, centre",
            "tokens": self.longest,
            "transformers": pretrained.transformers().__version__,
        }


def clip_score(images: Float32[Tensor, "B D"], texts: Float32[Tensor, "B D"]) -> Float64[Tensor, "B"]:
    """100 cos(image, its caption), of vectors of length 1; the score of a set is the mean.

    As in the paper's evaluation, so a negative cosine counts as it is; Hessel et al. (2021) have 2.5 max(cos, 0),
    torchmetrics 100 max(cos, 0). Cosines of trained networks and real pairs are about 0.2 to 0.35, and the three agree
    up to the factor.
    """
    return 100 * (images.double() * texts.double()).sum(1)


def nearest(images: Float32[Tensor, "B D"], classes: Float32[Tensor, "K D"]) -> Int64[Tensor, "B"]:
    """Which class each image goes with best."""
    return (images @ classes.T).argmax(1)


def zero_shot(clip: Clip, names: Sequence[str], templates: Sequence[str]) -> Float32[Tensor, "K D"]:
    """A vector a name: the mean over the templates, whose {} it fills, of the texts' vectors, at length 1 again."""
    texts = [template.format(name) for name in names for template in templates]
    mean = clip.texts(texts).unflatten(0, (len(names), len(templates))).mean(1)
    return mean / mean.norm(dim=1, keepdim=True)
