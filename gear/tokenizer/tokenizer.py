"""The tokenizer: encoder, quantizer, decoder (section 3.1)."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from gear.assignment import full
from gear.step import Tokenized
from gear.tokenizer.quantizers import IBQ, LFQ, VQ, Quantized


class Tokenizer(nn.Module):
    """Images to indices and back. `quantize` is a VQ, LFQ or IBQ; `quant_conv` and `post_quant_conv` are the 1x1
    convolutions between the backbone's latent width and d (nn.Identity for LFQ). Module names are LlamaGen's."""

    quantize: VQ | LFQ | IBQ

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        quantize: VQ | LFQ | IBQ,
        quant_conv: nn.Module,
        post_quant_conv: nn.Module,
        grid: tuple[int, int],
    ):
        super().__init__()
        self.encoder, self.decoder, self.quantize = encoder, decoder, quantize
        self.quant_conv, self.post_quant_conv = quant_conv, post_quant_conv
        self.grid = grid

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
        """Indices of images in [-1, 1]."""
        return self.quantized(x)[0].q

    @torch.no_grad()
    def decode(self, q: Int[Tensor, "B N"]) -> Float[Tensor, "B 3 H W"]:
        """Images in [-1, 1], clamped, of indices on the grid this tokenizer was built for."""
        return self._render(F.embedding(q, self.quantize.codewords()), *self.grid).clamp(-1, 1)

    def _render(self, c_q: Float[Tensor, "B N d"], h: int, w: int) -> Float[Tensor, "B 3 H W"]:
        return full(self.decoder(self.post_quant_conv(c_q.transpose(1, 2).unflatten(2, (h, w)))))
