"""The tokenizer: encoder, quantizer, decoder (section 3.1)."""

from math import isqrt
from pathlib import Path
from typing import Any, assert_never

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from gear import config as cfg
from gear.assignment import full
from gear.config_json import from_plain, plain
from gear.sharing import Shared
from gear.step import Tokenized
from gear.tokenizer.backbone import Decoder, Encoder
from gear.tokenizer.magvit2 import MAGVIT2Decoder, MAGVIT2Encoder
from gear.tokenizer.quantizers import IBQ, LFQ, VQ, Quantized


class Tokenizer(nn.Module, Shared, pipeline_tag="image-to-image", tags=["image-tokenizer", "vector-quantization"]):
    """Images to indices and back, at any resolution that `downsample` divides.

    quantizer, backbone: their configurations; `gear.config.FAMILIES` has the public ones. Between the backbone's latent
    width and d stand the 1x1 convolutions `quant_conv` and `post_quant_conv`, except where the backbone's latents are
    what is quantized (LFQ, MAGVIT2). Module names are LlamaGen's; the weights are random.

        tokenizer = Tokenizer.from_pretrained("folder or hub id")  # or .from_released("vq_ds16_c2i.pt")
        q = tokenizer.encode(x)                                    # images in [-1, 1] -> indices
        x_hat = tokenizer.decode(q)
    """

    quantize: VQ | LFQ | IBQ

    def __init__(self, quantizer: cfg.Quantizer, backbone: cfg.Backbone):
        super().__init__()
        self.quantizer, self.backbone, self.downsample = quantizer, backbone, backbone.downsample
        match quantizer:
            case cfg.VQ(codebook_size, dim):
                self.quantize = VQ(codebook_size, dim)
            case cfg.LFQ(bits):
                self.quantize = LFQ(bits)
            case cfg.IBQ(codebook_size, dim):
                self.quantize = IBQ(codebook_size, dim)
            case other:
                assert_never(other)
        match backbone:
            case cfg.VQGAN() as b:
                latent = quantizer.dim if isinstance(quantizer, cfg.LFQ) else b.latent
                self.encoder = Encoder(
                    b.channels, b.multipliers, b.encoder_blocks, latent, b.attention, b.groups, b.patch
                )
                self.decoder = Decoder(
                    b.channels, b.multipliers, b.decoder_blocks, latent, b.attention, b.groups, b.patch
                )
            case cfg.MAGVIT2() as b:
                latent = quantizer.dim
                self.encoder = MAGVIT2Encoder(b.channels, b.multipliers, b.blocks, latent, b.groups)
                self.decoder = MAGVIT2Decoder(b.channels, b.multipliers, b.blocks, latent, b.groups)
            case other:
                assert_never(other)
        direct = isinstance(quantizer, cfg.LFQ) or isinstance(backbone, cfg.MAGVIT2)
        self.quant_conv = nn.Identity() if direct else nn.Conv2d(latent, quantizer.dim, 1)
        self.post_quant_conv = nn.Identity() if direct else nn.Conv2d(quantizer.dim, latent, 1)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # convolutions are faster so

    def settings(self) -> dict[str, Any]:
        """The constructor's arguments, for config.json."""
        return {"quantizer": plain(self.quantizer), "backbone": plain(self.backbone)}

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> "Tokenizer":
        return cls(
            from_plain(cfg.Quantizer, settings.get("quantizer"), "quantizer"),
            from_plain(cfg.Backbone, settings.get("backbone"), "backbone"),
        )

    @classmethod
    def from_released(cls, path: Path | str, *, averaged: bool = True) -> "Tokenizer":
        """One of the public files of LlamaGen, Open-MAGVIT2, SEED-Voken or GEAR, see `gear.tokenizer.released`; in
        evaluation mode. `averaged`: the exponential moving average, where the file has one."""
        from gear.tokenizer.released import read  # late: it is rarely needed

        released = read(Path(path), averaged=averaged)
        family = cfg.FAMILIES[released.family]
        tokenizer = cls(family.quantizer, family.backbone)
        tokenizer.load_state_dict(released.tokenizer)
        return tokenizer.eval()

    def forward(self, x: Float[Tensor, "B 3 H W"]) -> Tokenized:
        """Lines 1 and 2 of Algorithm 1. x: images in [-1, 1]."""
        quantized, (h, w) = self.quantized(x)
        x_hat = self._render(quantized.z_q, h, w)
        return Tokenized(quantized.assignment, quantized.q, x_hat, quantized.codebook, quantized.commitment)

    def quantized(self, x: Float[Tensor, "B 3 H W"]) -> tuple[Quantized, tuple[int, int]]:
        """The encoder's half, and the grid h, w of its tokens."""
        z = self.quant_conv(self.encoder(x))
        h, w = z.shape[-2:]
        with torch.autocast(x.device.type, enabled=False):  # A is float32 always, see gear.assignment
            return self.quantize(full(z).flatten(2).transpose(1, 2)), (h, w)

    @torch.no_grad()
    def encode(self, x: Float[Tensor, "B 3 H W"]) -> Int[Tensor, "B N"]:
        """Indices of images in [-1, 1]. In the parameters' precision even under autocast, so that what is encoded once
        is what is encoded anywhere (PAPER.md, M11)."""
        with torch.autocast(x.device.type, enabled=False):
            return self.quantized(x)[0].q

    @torch.no_grad()
    def decode(self, q: Int[Tensor, "B N"], grid: tuple[int, int] | None = None) -> Float[Tensor, "B 3 H W"]:
        """Images in [-1, 1], clamped, of indices in raster order on `grid`, by default a square."""
        h, w = grid or (isqrt(q.shape[1]),) * 2
        if h * w != q.shape[1]:
            raise ValueError(f"{q.shape[1]} tokens do not fill a grid of {h} x {w}; give decode() the grid they have.")
        if q.numel() and not 0 <= (worst := int(q.max() if q.min() >= 0 else q.min())) < self.quantizer.codebook_size:
            raise ValueError(f"tokens must be from 0 to {self.quantizer.codebook_size - 1}; {worst} is among them.")
        return self._render(F.embedding(q, self.quantize.codewords()), h, w).clamp(-1, 1)

    def _render(self, c_q: Float[Tensor, "B N d"], h: int, w: int) -> Float[Tensor, "B 3 H W"]:
        return full(self.decoder(self.post_quant_conv(c_q.transpose(1, 2).unflatten(2, (h, w)))))
