"""VQ-16 against transformers' `JanusVQVAE`, the same network written by others, with the same random weights."""

from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from bench.tokenizer import theirs, twin
from gear.config import FAMILIES, VQ, VQGAN
from gear.tokenizer.tokenizer import Tokenizer

QUANTIZER, BACKBONE = VQ(1024, 8), VQGAN(channels=32, latent=48)  # VQ-16 at a quarter of its width


def pair(dtype: torch.dtype) -> tuple[Tokenizer, Any]:
    tokenizer = Tokenizer(QUANTIZER, BACKBONE).to(dtype)
    with torch.no_grad():
        for parameter in tokenizer.parameters():  # at initialisation biases and norms hide, and tokens are alike
            parameter.add_(0.05 * torch.randn_like(parameter))
        codebook = tokenizer.get_parameter("quantize.embedding.weight")
        codebook.copy_(F.normalize(codebook, dim=-1))  # the twin's search takes codewords as they are
    janus = twin(QUANTIZER, BACKBONE, tokens=4).to(dtype)
    janus.load_state_dict({theirs(name): weight for name, weight in tokenizer.state_dict().items()})
    return tokenizer, janus


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_latents_indices_and_reconstructions_are_equal(dtype: torch.dtype) -> None:
    tokenizer, janus = pair(dtype)
    tolerance = 1e-4 if dtype == torch.float32 else 1e-9
    assert_close = partial(torch.testing.assert_close, rtol=tolerance, atol=tolerance)
    x = torch.rand(3, 3, 64, 64, dtype=dtype) * 2 - 1
    with torch.no_grad():
        expected = janus.encode(x)
        assert_close(tokenizer.encoder(x), expected.last_hidden_state)
        q = tokenizer.encode(x)
        assert torch.equal(q, expected.image_tokens.view(3, 16))
        assert len(q.unique()) > 24  # of 48: not one answer everywhere
        assert_close(tokenizer(x).x_hat, janus(x).decoded_pixel_values)
        assert_close(tokenizer.decode(q), janus.decode(q).clamp(-1, 1))


def test_losses_and_gradients_of_the_reconstruction_are_equal() -> None:
    """The twin's quantizer is given latents on the sphere, where LlamaGen's training has them, and its own has not."""
    tokenizer, janus = pair(torch.float64)
    x = torch.rand(2, 3, 64, 64, dtype=torch.float64) * 2 - 1
    direction = torch.randn_like(x)
    t = tokenizer(x)
    z_q, quantization, _ = janus.quantize(F.normalize(janus.quant_conv(janus.encoder(x)), dim=1))
    torch.testing.assert_close(t.commitment + 0.25 * t.codebook, quantization)
    (t.x_hat * direction).sum().backward()
    (janus.decoder(janus.post_quant_conv(z_q)) * direction).sum().backward()
    expected = {name: parameter.grad for name, parameter in janus.named_parameters()}
    for name, parameter in tokenizer.named_parameters():
        torch.testing.assert_close(parameter.grad, expected.pop(theirs(name)), msg=f"{name}: {{}}".format)
    assert not expected


def test_the_full_size_has_the_same_parameters() -> None:
    family = FAMILIES["VQ-16"]
    assert isinstance(family.quantizer, VQ)
    assert isinstance(family.backbone, VQGAN)
    with torch.device("meta"):
        ours = Tokenizer(family.quantizer, family.backbone).state_dict()
        janus = twin(family.quantizer, family.backbone, tokens=16).state_dict()
    assert {theirs(name): weight.shape for name, weight in ours.items()} == {n: w.shape for n, w in janus.items()}
    assert sum(weight.numel() for weight in janus.values()) == 71_883_403
