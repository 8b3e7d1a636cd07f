"""Open-MAGVIT2's networks against a slow float64 twin, and the names, shapes and sizes of the released LFQ-16."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gear.config import LFQ, MAGVIT2
from gear.tokenizer.magvit2 import MAGVIT2Decoder, MAGVIT2Encoder, depth_to_space

SMALL = {"channels": 8, "multipliers": (1, 2, 3), "blocks": 2, "latent": 5, "groups": 4}


def pair(**other) -> tuple[MAGVIT2Encoder, MAGVIT2Decoder]:
    """Small networks with random parameters everywhere: the default norms are the identity, and hide mistakes."""
    encoder, decoder = MAGVIT2Encoder(**SMALL | other).double(), MAGVIT2Decoder(**SMALL | other).double()
    with torch.no_grad():
        for p in (*encoder.parameters(), *decoder.parameters()):
            p.normal_(0, 1 / math.sqrt(p[0].numel()) if p.ndim > 1 else 1)
    return encoder, decoder


class Twin:
    """The same networks from their state dicts: loops and sums, padding by hand."""

    def __init__(self, net: nn.Module, levels: int, blocks: int):
        self.state, self.levels, self.blocks = net.state_dict(), levels, blocks

    def encode(self, x: Tensor) -> Tensor:
        x = self.conv(x, "conv_in")
        for level in range(self.levels):
            for i in range(self.blocks):
                x = self.residual(x, f"down.{level}.block.{i}")
            if level < self.levels - 1:
                full = self.conv(x, f"down.{level}.downsample", bias=True)
                x = full[:, :, ::2, ::2]  # stride 2 after symmetric padding: every second output of stride 1
        return self.conv(self.end(self.middle(x)), "conv_out", bias=True)

    def decode(self, z: Tensor) -> Tensor:
        x = self.middle(self.conv(z, "conv_in", bias=True))
        for level in reversed(range(self.levels)):
            x = self.adapt(x, z, f"adaptive.{level}")
            for i in range(self.blocks):
                x = self.residual(x, f"up.{level}.block.{i}")
            if level > 0:
                x = self.unfold(self.conv(x, f"up.{level}.upsample.conv1", bias=True))
        return self.conv(self.end(x), "conv_out", bias=True)

    def middle(self, x: Tensor) -> Tensor:
        for i in range(self.blocks):
            x = self.residual(x, f"mid_block.{i}")
        return x

    def end(self, x: Tensor) -> Tensor:
        return swish(self.affine(self.norm(x), "norm_out"))

    def residual(self, x: Tensor, name: str) -> Tensor:
        y = self.conv(swish(self.affine(self.norm(x), f"{name}.norm1")), f"{name}.conv1")
        y = self.conv(swish(self.affine(self.norm(y), f"{name}.norm2")), f"{name}.conv2")
        shortcut = self.state.get(f"{name}.nin_shortcut.weight")
        return y + (x if shortcut is None else torch.einsum("oc,bchw->bohw", shortcut[:, :, 0, 0], x))

    def adapt(self, x: Tensor, z: Tensor, name: str) -> Tensor:
        n = z.shape[2] * z.shape[3]
        mean = z.sum((2, 3)) / n
        variance = (z - mean[:, :, None, None]).square().sum((2, 3)) / (n - 1)
        deviation = (variance + 1e-6).sqrt()
        gamma = deviation @ self.state[f"{name}.gamma.weight"].T + self.state[f"{name}.gamma.bias"]
        beta = mean @ self.state[f"{name}.beta.weight"].T + self.state[f"{name}.beta.bias"]
        return gamma[:, :, None, None] * self.norm(x) + beta[:, :, None, None]

    def norm(self, x: Tensor) -> Tensor:
        grouped = x.reshape(len(x), SMALL["groups"], -1)
        mean = grouped.mean(2, keepdim=True)
        variance = (grouped - mean).square().mean(2, keepdim=True)
        return ((grouped - mean) / (variance + 1e-6).sqrt()).reshape(x.shape)

    def affine(self, x: Tensor, name: str) -> Tensor:
        return x * self.state[f"{name}.weight"][:, None, None] + self.state[f"{name}.bias"][:, None, None]

    def unfold(self, x: Tensor) -> Tensor:
        """The place in the 2 x 2 block is the outer index of a channel."""
        B, C, h, w = x.shape
        image = torch.zeros(B, C // 4, 2 * h, 2 * w, dtype=x.dtype)
        for i in range(2):
            for j in range(2):
                for c in range(C // 4):
                    image[:, c, i::2, j::2] = x[:, (i * 2 + j) * (C // 4) + c]
        return image

    def conv(self, x: Tensor, name: str, bias: bool = False) -> Tensor:
        """A bias where one is expected, and nowhere else; as many zeros on one side as on the other."""
        weight = self.state[f"{name}.weight"]
        assert (f"{name}.bias" in self.state) == bias
        B, C, h, w = x.shape
        side = weight.shape[-1] // 2
        padded = torch.zeros(B, C, h + 2 * side, w + 2 * side, dtype=x.dtype)
        padded[:, :, side : side + h, side : side + w] = x
        y = F.conv2d(padded, weight)
        return y + self.state[f"{name}.bias"][:, None, None] if bias else y


def swish(x: Tensor) -> Tensor:
    return x / (1 + torch.exp(-x))


@pytest.mark.parametrize("size", [(8, 8), (12, 20)])
@pytest.mark.parametrize("multipliers", [(1, 2, 3), (2, 1, 1)])
def test_equals_the_twin(size: tuple[int, int], multipliers: tuple[int, ...]) -> None:
    encoder, decoder = pair(multipliers=multipliers)
    x = torch.rand(2, 3, *size, dtype=torch.float64) * 2 - 1
    z = encoder(x)
    assert z.shape == (2, 5, size[0] // 4, size[1] // 4)
    torch.testing.assert_close(z, Twin(encoder, levels=3, blocks=2).encode(x))
    x_hat = decoder(z)
    assert x_hat.shape == x.shape
    torch.testing.assert_close(x_hat, Twin(decoder, levels=3, blocks=2).decode(z))


def test_depth_to_space_is_not_the_pixel_shuffle() -> None:
    x = torch.arange(8.0).reshape(1, 8, 1, 1)
    assert depth_to_space(x)[0].tolist() == [[[0, 2], [4, 6]], [[1, 3], [5, 7]]]
    assert F.pixel_shuffle(x, 2)[0].tolist() == [[[0, 1], [2, 3]], [[4, 5], [6, 7]]]


# ---------------------------------------------------------------------------------------- the released LFQ-16


def released_names(side: str) -> set[str]:
    """The names in the public file: four blocks everywhere, a short cut where widths change, few biases."""
    names = {"conv_in.weight", "norm_out.weight", "norm_out.bias", "conv_out.weight", "conv_out.bias"}
    encoder = side == "encoder"
    names |= set() if encoder else {"conv_in.bias"}
    places = [f"mid_block.{i}" for i in range(4)]
    for level in range(5):
        stem = f"{'down' if encoder else 'up'}.{level}"
        places += [f"{stem}.block.{i}" for i in range(4)]
        if encoder and level < 4:
            names |= {f"{stem}.downsample.weight", f"{stem}.downsample.bias"}
        if not encoder and level > 0:
            names |= {f"{stem}.upsample.conv1.weight", f"{stem}.upsample.conv1.bias"}
        if not encoder:
            names |= {f"adaptive.{level}.{part}.{kind}" for part in ("gamma", "beta") for kind in ("weight", "bias")}
    for place in places:
        names |= {f"{place}.norm{i}.{kind}" for i in (1, 2) for kind in ("weight", "bias")}
        names |= {f"{place}.conv{i}.weight" for i in (1, 2)}
    changing = ("down.2", "down.4") if encoder else ("up.3", "up.1")  # the widths are 128, 128, 256, 256, 512
    return names | {f"{stem}.block.0.nin_shortcut.weight" for stem in changing}


def test_the_defaults_are_the_released_lfq16() -> None:
    b, latent = MAGVIT2(), LFQ().bits
    with torch.device("meta"):
        encoder = MAGVIT2Encoder(b.channels, b.multipliers, b.blocks, latent, b.groups)
        decoder = MAGVIT2Decoder(b.channels, b.multipliers, b.blocks, latent, b.groups)
    assert sum(p.numel() for p in encoder.parameters()) == 49_749_390
    assert sum(p.numel() for p in decoder.parameters()) == 65_344_643
    assert encoder.state_dict().keys() == released_names("encoder")
    assert decoder.state_dict().keys() == released_names("decoder")
    assert len(encoder.state_dict()) + len(decoder.state_dict()) == 339
    shapes = {name: tuple(t.shape) for name, t in (encoder.state_dict() | decoder.state_dict()).items()}
    adaptive = [shapes[f"adaptive.{level}.gamma.weight"] for level in range(5)]
    assert adaptive == [(128, 14), (256, 14), (256, 14), (512, 14), (512, 14)]
    assert shapes["up.4.upsample.conv1.weight"] == (2048, 512, 3, 3)
    assert encoder.state_dict()["conv_out.weight"].shape == (14, 512, 1, 1)


# ------------------------------------------------------------------------------------------------- the rest


def test_one_level_keeps_the_resolution() -> None:
    encoder, decoder = pair(multipliers=(2,))
    x = torch.randn(1, 3, 5, 7, dtype=torch.float64)
    assert encoder(x).shape == (1, 5, 5, 7)
    assert decoder(encoder(x)).shape == x.shape


@pytest.mark.parametrize("size", [(10, 8), (8, 13)])
def test_refuses_an_image_it_would_have_to_crop(size: tuple[int, int]) -> None:
    encoder, _ = pair()
    with pytest.raises(ValueError, match=rf"multiples of 4; crop or resize {size[0]} x {size[1]}"):
        encoder(torch.zeros(1, 3, *size, dtype=torch.float64))


def test_refuses_a_single_token() -> None:
    """Its unbiased variance is 0 / 0."""
    _, decoder = pair()
    with pytest.raises(ValueError, match="at least two tokens"):
        decoder(torch.zeros(1, 5, 1, 1, dtype=torch.float64))
    assert decoder(torch.zeros(1, 5, 1, 2, dtype=torch.float64)).isfinite().all()


def test_constant_latents_have_finite_gradients() -> None:
    """A blank image may get the same codeword everywhere; the square root of its variance must not have slope 1 / 0."""
    _, decoder = pair()
    z = torch.ones(1, 5, 2, 2, dtype=torch.float64, requires_grad=True)
    decoder(z).sum().backward()
    assert z.grad is not None
    assert z.grad.isfinite().all()


def test_every_parameter_gets_a_gradient() -> None:
    encoder, decoder = pair()
    decoder(encoder(torch.randn(2, 3, 16, 16, dtype=torch.float64))).square().sum().backward()
    for net in (encoder, decoder):
        assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_channels_last_stays_channels_last() -> None:
    layout = torch.channels_last
    encoder, decoder = pair()
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
