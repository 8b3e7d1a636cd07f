"""The backbone against a twin written with explicit sums, and against the sizes and names of the released VQ-16."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gear.config import VQGAN
from gear.tokenizer.backbone import Decoder, Encoder
from gear.tokenizer.norm import Norm

SMALL = {"channels": 8, "multipliers": (1, 2, 3), "latent": 5, "groups": 4}


def pair(patch: int, attention: bool = True, **changes: object) -> tuple[Encoder, Decoder]:
    """An encoder of 2 blocks and a decoder of 3, every parameter random: at initialisation biases and norms hide."""
    options = {**SMALL, "patch": patch, "attention": attention, **changes}
    encoder, decoder = Encoder(blocks=2, **options), Decoder(blocks=3, **options)
    with torch.no_grad():
        for parameter in (*encoder.parameters(), *decoder.parameters()):
            parameter.add_(0.2 * torch.randn_like(parameter))
    return encoder.double(), decoder.double()


# ------------------------------------------------------------------------------------------------------- the twin


class Twin:
    """The released architecture as functions of a state dict, level by level, block by block."""

    def __init__(self, net: nn.Module, levels: int, blocks: int, patch: int):
        self.state, self.levels, self.blocks, self.patch = net.state_dict(), levels, blocks, patch

    def encode(self, x: Tensor) -> Tensor:
        p = self.patch
        folded = [x[:, c, i::p, j::p] for c in range(3) for i in range(p) for j in range(p)]
        x = self.conv(torch.stack(folded, dim=1), "conv_in", padding=1)
        for level in range(self.levels):
            lowest = level == self.levels - 1
            x = self.level(x, f"conv_blocks.{level}", attention=lowest)
            if not lowest:
                B, C, h, w = x.shape
                padded = torch.zeros(B, C, h + 1, w + 1, dtype=x.dtype)
                padded[:, :, :h, :w] = x
                x = self.conv(padded, f"conv_blocks.{level}.downsample.conv", stride=2)
        return self.tail(self.middle(x))

    def decode(self, z: Tensor) -> Tensor:
        x = self.middle(self.conv(z, "conv_in", padding=1))
        for level in range(self.levels):
            x = self.level(x, f"conv_blocks.{level}", attention=level == 0)
            if level < self.levels - 1:
                x = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
                x = self.conv(x, f"conv_blocks.{level}.upsample.conv", padding=1)
        x, p = self.tail(x), self.patch
        image = torch.empty(len(x), 3, x.shape[2] * p, x.shape[3] * p, dtype=x.dtype)
        for c in range(3):
            for i in range(p):
                for j in range(p):
                    image[:, c, i::p, j::p] = x[:, (c * p + i) * p + j]
        return image

    def level(self, x: Tensor, name: str, attention: bool) -> Tensor:
        for i in range(self.blocks):
            x = self.residual(x, f"{name}.res.{i}")
            x = self.attention(x, f"{name}.attn.{i}") if attention else x
        return x

    def middle(self, x: Tensor) -> Tensor:
        return self.residual(self.attention(self.residual(x, "mid.0"), "mid.1"), "mid.2")

    def tail(self, x: Tensor) -> Tensor:
        return self.conv(swish(self.norm(x, "norm_out")), "conv_out", padding=1)

    def residual(self, x: Tensor, name: str) -> Tensor:
        y = self.conv(swish(self.norm(x, f"{name}.norm1")), f"{name}.conv1", padding=1)
        y = self.conv(swish(self.norm(y, f"{name}.norm2")), f"{name}.conv2", padding=1)
        return y + (self.conv(x, f"{name}.nin_shortcut") if f"{name}.nin_shortcut.weight" in self.state else x)

    def attention(self, x: Tensor, name: str) -> Tensor:
        B, C, h, w = x.shape
        y = self.norm(x, f"{name}.norm")
        q, k, v = (self.conv(y, f"{name}.{part}").reshape(B, C, h * w) for part in "qkv")
        weights = torch.softmax(torch.einsum("bci,bcj->bij", q, k) / math.sqrt(C), dim=2)
        return x + self.conv(torch.einsum("bij,bcj->bci", weights, v).reshape(B, C, h, w), f"{name}.proj_out")

    def norm(self, x: Tensor, name: str) -> Tensor:
        grouped = x.reshape(len(x), SMALL["groups"], -1)
        mean = grouped.mean(2, keepdim=True)
        variance = (grouped - mean).square().mean(2, keepdim=True)
        flat = ((grouped - mean) / (variance + 1e-6).sqrt()).reshape(x.shape)
        return flat * self.state[f"{name}.weight"][:, None, None] + self.state[f"{name}.bias"][:, None, None]

    def conv(self, x: Tensor, name: str, stride: int = 1, padding: int = 0) -> Tensor:
        return F.conv2d(x, self.state[f"{name}.weight"], self.state[f"{name}.bias"], stride, padding)


def swish(x: Tensor) -> Tensor:
    return x / (1 + torch.exp(-x))


@pytest.mark.parametrize("patch", [1, 2, 3])
def test_equals_the_twin(patch: int) -> None:
    encoder, decoder = pair(patch)
    x = torch.rand(2, 3, 8 * patch, 12 * patch, dtype=torch.float64) * 2 - 1
    z = encoder(x)
    assert z.shape == (2, 5, 2, 3)
    torch.testing.assert_close(z, Twin(encoder, 3, 2, patch).encode(x))
    x_hat = decoder(z)
    assert x_hat.shape == x.shape
    torch.testing.assert_close(x_hat, Twin(decoder, 3, 3, patch).decode(z))


# ---------------------------------------------------------------------------------------- the released VQ-16


def released_names(side: str) -> set[str]:
    """The names in the public file, attention at the lowest of five levels, a short cut where widths change."""
    encoder, names = side == "encoder", {"conv_in", "norm_out", "conv_out"}
    widths = [128, 128, 128, 256, 256, 512] if encoder else [512, 512, 256, 256, 128, 128]
    for i in range(5):
        for j in range(2 if encoder else 3):
            names |= {f"conv_blocks.{i}.res.{j}.{part}" for part in ("norm1", "conv1", "norm2", "conv2")}
            if i == (4 if encoder else 0):
                names |= {f"conv_blocks.{i}.attn.{j}.{part}" for part in ("norm", "q", "k", "v", "proj_out")}
        if widths[i] != widths[i + 1]:
            names.add(f"conv_blocks.{i}.res.0.nin_shortcut")
        if i < 4:
            names.add(f"conv_blocks.{i}.{'downsample' if encoder else 'upsample'}.conv")
    for i in (0, 2):
        names |= {f"mid.{i}.{part}" for part in ("norm1", "conv1", "norm2", "conv2")}
    names |= {f"mid.1.{part}" for part in ("norm", "q", "k", "v", "proj_out")}
    return {f"{name}.{kind}" for name in names for kind in ("weight", "bias")}


def test_the_defaults_are_the_released_vq16() -> None:
    b = VQGAN()
    with torch.device("meta"):
        encoder = Encoder(b.channels, b.multipliers, b.encoder_blocks, b.latent, b.attention, b.groups, b.patch)
        decoder = Decoder(b.channels, b.multipliers, b.decoder_blocks, b.latent, b.attention, b.groups, b.patch)
    assert sum(p.numel() for p in encoder.parameters()) == 29_298_176
    assert sum(p.numel() for p in decoder.parameters()) == 42_449_795
    assert encoder.state_dict().keys() == released_names("encoder")
    assert decoder.state_dict().keys() == released_names("decoder")
    assert len(encoder.state_dict()) + len(decoder.state_dict()) == 343 - 5  # the file's, less the quantizer's five


# ------------------------------------------------------------------------------------------------- what is ours


class Swish(nn.Identity):
    """A norm without statistics."""

    swish = staticmethod(nn.functional.silu)


def test_without_attention_nothing_looks_far() -> None:
    """A latent's gradient is confined to its receptive field, and no attention parameter is left over."""
    encoder, _ = pair(patch=1, attention=False, multipliers=(1, 1))
    assert not [name for name in encoder.state_dict() if "attn" in name or name.startswith("mid.1.")]
    for module in list(encoder.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, Norm):  # its statistics are global
                setattr(module, name, Swish())
    x = torch.randn(1, 3, 64, 64, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(encoder(x)[0, 0, 0, 0], x)
    reached = gradient.abs().sum((0, 1)).nonzero()
    # conv_out, mid (4 convs) and level 1 (4) see 9 latents further; x2, + downsample's 2, + level 0's 4 and conv_in
    assert reached.max().item() == 2 * 9 + 2 + 4 + 1


def test_one_level_keeps_the_resolution() -> None:
    encoder, decoder = pair(patch=1, multipliers=(2,))
    x = torch.randn(1, 3, 5, 7, dtype=torch.float64)
    assert encoder(x).shape == (1, 5, 5, 7)
    assert decoder(encoder(x)).shape == x.shape


@pytest.mark.parametrize("size", [(12, 8), (8, 14)])
def test_refuses_an_image_it_would_have_to_crop(size: tuple[int, int]) -> None:
    encoder, _ = pair(patch=2)
    with pytest.raises(ValueError, match=rf"multiples of 8; crop or resize {size[0]} x {size[1]}"):
        encoder(torch.zeros(1, 3, *size, dtype=torch.float64))


def test_every_parameter_gets_a_gradient() -> None:
    encoder, decoder = pair(patch=2)
    decoder(encoder(torch.randn(2, 3, 16, 16, dtype=torch.float64))).square().sum().backward()
    for net in (encoder, decoder):
        assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_channels_last_stays_channels_last() -> None:
    """The faster layout on CPUs and GPUs; an operation that broke it would cost a copy of every map."""
    layout = torch.channels_last
    encoder, decoder = pair(patch=2)
    x = torch.randn(2, 3, 16, 24, dtype=torch.float64)
    z, x_hat = encoder(x), decoder(encoder(x))
    encoder.to(memory_format=layout)  # type: ignore[call-overload]
    decoder.to(memory_format=layout)  # type: ignore[call-overload]
    seen: list[bool] = []
    for module in (*encoder.modules(), *decoder.modules()):
        if isinstance(module, nn.Conv2d | nn.GroupNorm):
            module.register_forward_pre_hook(lambda _, x: seen.append(x[0].is_contiguous(memory_format=layout)))
    z_last = encoder(x.contiguous(memory_format=layout))
    torch.testing.assert_close(z_last, z)
    torch.testing.assert_close(decoder(z_last), x_hat)
    assert all(seen)


def test_what_is_overwritten_is_nobody_elses() -> None:
    """Without gradients maps are activated in place: the results are the same, and the input stays as it was."""
    encoder, decoder = pair(patch=1)
    x = torch.randn(2, 3, 16, 24, dtype=torch.float64)
    z = encoder(x)
    x_hat = decoder(z)
    kept = x.clone(), z.detach().clone()
    with torch.no_grad():
        assert torch.equal(encoder(x), z)
        assert torch.equal(decoder(z), x_hat)
    assert torch.equal(x, kept[0])
    assert torch.equal(z, kept[1])
