"""VQ-16 against transformers' `JanusVQVAE` with the same weights, which is the same network written by others.

One image of 192 x 192 pixels, float32, on the CPU: to its indices and back without gradients; and the forward pass of
training with the backward pass of a reconstruction and the quantizer's losses. Both sides in one process, alternating.

What bounds it: the convolutions, some 90 % of the time, at 0.22 TFLOP to indices and back and thrice that with
gradients. Most of the rest is page faults, as glibc asks the kernel anew for every large map, and there are fewer here
than there, since ours keeps maps channels-last and, without gradients, activates them in place.
The floor is that of the products, counted as they run.
"""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.table import Row, alternating
from bench.work import floor
from gear import config as cfg
from gear.tokenizer.tokenizer import Tokenizer

QUANTIZER, BACKBONE, SIZE = cfg.VQ(), cfg.VQGAN(), 192
ROUNDS = 2

RENAMES = {  # our names, which are LlamaGen's, in transformers'
    r"^encoder\.conv_blocks\.": "encoder.down.",
    r"^decoder\.conv_blocks\.": "decoder.up.",
    r"\.res\.": ".block.",
    r"\.mid\.0\.": ".mid.block_1.",
    r"\.mid\.1\.": ".mid.attn_1.",
    r"\.mid\.2\.": ".mid.block_2.",
}


@dataclass(frozen=True)
class Inputs:
    tokenizer: Tokenizer
    twin: Any
    x: Tensor


def twin(quantizer: cfg.VQ, backbone: cfg.VQGAN, tokens: int) -> Any:
    """A `JanusVQVAE` of these sizes, for images of tokens x tokens. It has no groups but 32, and attention always."""
    from transformers.models.janus.configuration_janus import JanusVQVAEConfig  # late: they take seconds
    from transformers.models.janus.modeling_janus import JanusVQVAE

    return JanusVQVAE(
        JanusVQVAEConfig(
            embed_dim=quantizer.dim,
            num_embeddings=quantizer.codebook_size,
            latent_channels=backbone.latent,
            base_channels=backbone.channels,
            channel_multiplier=list(backbone.multipliers),
            num_res_blocks=backbone.encoder_blocks,
            num_patches=tokens,
        )
    )


def theirs(name: str) -> str:
    """transformers' name of a tensor of the tokenizer."""
    for ours, other in RENAMES.items():
        name = re.sub(ours, other, name)
    return name


@torch.no_grad()
def inputs() -> Inputs:
    torch.manual_seed(0)
    tokenizer = Tokenizer(QUANTIZER, BACKBONE).eval()
    codebook = tokenizer.get_parameter("quantize.embedding.weight")
    codebook.copy_(F.normalize(torch.randn_like(codebook), dim=-1))  # the twin's search takes codewords as they are
    other = twin(QUANTIZER, BACKBONE, SIZE // BACKBONE.downsample).eval()
    other.load_state_dict({theirs(name): weight for name, weight in tokenizer.state_dict().items()})
    return Inputs(tokenizer, other, torch.rand(1, 3, SIZE, SIZE) * 2 - 1)


def ours(i: Inputs) -> tuple[Tensor, Tensor]:
    q = i.tokenizer.encode(i.x)
    return q, i.tokenizer.decode(q)


@torch.no_grad()
def plain(i: Inputs) -> tuple[Tensor, Tensor]:
    q = i.twin.encode(i.x).image_tokens.view(1, -1)
    return q, i.twin.decode(q).clamp(-1, 1)


def ours_backward(i: Inputs) -> tuple[Tensor, ...]:
    t = i.tokenizer(i.x)
    loss = F.mse_loss(t.x_hat, i.x) + t.commitment + 0.25 * t.codebook
    loss.backward()
    return loss, gradient(i.tokenizer)


def plain_backward(i: Inputs) -> tuple[Tensor, ...]:
    z = F.normalize(i.twin.quant_conv(i.twin.encoder(i.x)), dim=1)
    z_q, quantization, _ = i.twin.quantize(z)
    loss = F.mse_loss(i.twin.decoder(i.twin.post_quant_conv(z_q)), i.x) + quantization
    loss.backward()
    return loss, gradient(i.twin)


def gradient(net: nn.Module) -> Tensor:
    """Of the first convolution, which is the last to get it."""
    came = net.get_parameter("encoder.conv_in.weight").grad
    assert came is not None
    return came


def run() -> list[Row]:
    i = inputs()
    return [
        compared("tokenizer", i, ours, plain),
        compared("tokenizer, grad", i, ours_backward, plain_backward),
    ]


Side = Callable[[Inputs], tuple[Tensor, ...]]


def compared(path: str, i: Inputs, ours: Side, plain: Side) -> Row:
    """Seconds, both sides alternating."""
    found: list[Tensor] = []
    least = floor(lambda: found.extend(ours(i)))
    for a, b in zip(found, plain(i), strict=True):  # a fast wrong answer is worth nothing
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3 * b.abs().max().item() if b.is_floating_point() else 0)

    def seconds(side: Side) -> float:
        i.tokenizer.zero_grad()
        i.twin.zero_grad()
        start = time.perf_counter()
        side(i)
        return time.perf_counter() - start

    t, spread = alternating({"ours": partial(seconds, ours), "plain": partial(seconds, plain)}, ROUNDS)
    return Row(path, "s", t["ours"], t["plain"], 1.0, spread, "convolutions", least)
