"""The tokenizer as a whole: shapes, decode of encode, and the assignment's precision under autocast."""

import pytest
import torch

from gear.config import IBQ, LFQ, VQ, VQGAN
from gear.tokenizer import quantizers
from gear.tokenizer.tokenizer import Tokenizer

BACKBONE = VQGAN(channels=8, multipliers=(1, 2), encoder_blocks=1, decoder_blocks=1, latent=8, groups=4, patch=2)


@pytest.fixture(params=[VQ(32, 4), LFQ(5), IBQ(32, 4)], ids=lambda q: type(q).__name__)
def tokenizer(request):
    torch.manual_seed(0)
    return Tokenizer(request.param, BACKBONE)


def test_decode_of_encode_is_the_forward_pass(tokenizer):
    x = torch.rand(3, 3, 16, 16) * 2 - 1
    with torch.no_grad():
        t = tokenizer(x)
    assert t.q.shape == (3, 16)
    assert torch.equal(tokenizer.encode(x), t.q)
    torch.testing.assert_close(tokenizer.decode(t.q), t.x_hat.clamp(-1, 1), rtol=1e-5, atol=1e-5)


def test_other_sizes_and_shapes_too(tokenizer):
    x = torch.rand(1, 3, 24, 32) * 2 - 1
    q = tokenizer.encode(x)
    assert q.shape == (1, 6 * 8)
    with torch.no_grad():
        torch.testing.assert_close(tokenizer.decode(q, (6, 8)), tokenizer(x).x_hat.clamp(-1, 1), rtol=1e-5, atol=1e-5)
    for wrong in (-1, tokenizer.quantizer.codebook_size):
        with pytest.raises(ValueError, match=rf"tokens must be from 0 to \d+; {wrong} is among them"):
            tokenizer.decode(torch.tensor([[0, 1, wrong, 2]]))
    with pytest.raises(ValueError, match="48 tokens do not fill a grid of 6 x 6; give decode"):
        tokenizer.decode(q)


def test_a_vq_codebook_starts_on_the_unit_sphere():
    """Of LlamaGen's U(-1 / K, 1 / K) only the direction is kept. A step of AdamW has a fixed length: codewords as short
    as 1 / K it would turn right over, those of length 1 by the learning rate."""
    quantizer = quantizers.VQ(1024, 8)
    first = quantizer.embedding.weight.detach().clone()
    torch.testing.assert_close(first.square().sum(1), torch.ones(1024))
    assert first.mean(0).abs().max() < 0.05  # on all sides
    optimizer = torch.optim.AdamW(quantizer.parameters(), lr=1e-4)
    (quantizer.codewords() * torch.randn(1024, 8)).sum().backward()
    optimizer.step()
    assert (quantizer.codewords() - first).square().sum(1).sqrt().max() < 1.01 * 8**0.5 * 1e-4


def test_a_is_float32_under_bfloat16_autocast(tokenizer):
    """The networks round to bfloat16; A, its read-outs and the quantizer's losses do not: given z, they are equal."""
    x = torch.rand(2, 3, 16, 16) * 2 - 1
    with torch.autocast("cpu", torch.bfloat16):
        t = tokenizer(x)
        latents = tokenizer.quant_conv(tokenizer.encoder(x))
        again = tokenizer.quantize(latents.flatten(2).transpose(1, 2).float())
    assert latents.dtype == torch.bfloat16
    plain = tokenizer.quantize(latents.detach().float().flatten(2).transpose(1, 2))
    assert t.A.z.dtype == t.A.codewords.dtype == t.codebook.dtype == t.commitment.dtype == torch.float32
    assert torch.equal(t.q, plain.q)
    assert torch.equal(t.A.hard(), plain.assignment.hard())
    assert torch.equal(t.commitment, plain.commitment)
    assert torch.equal(again.z_q, plain.z_q)
    E = torch.randn(32, 6)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(t.A.soft(E, 0.1), plain.assignment.soft(E, 0.1))


def test_backward_runs_outside_autocast(tokenizer):
    """`update` is called inside the loop's autocast; gradients of float32 parts must not pass through bfloat16."""
    from gear.update import Trained, update

    seen = []

    class Spy(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 1

        @staticmethod
        def backward(ctx, *grads):
            seen.append(torch.is_autocast_enabled("cpu"))
            return grads[0]

    group = Trained("tokenizer", tokenizer, torch.optim.SGD(tokenizer.parameters(), 0.0, fused=True), 1.0, None)
    with torch.autocast("cpu", torch.bfloat16):
        update(Spy.apply(tokenizer(torch.zeros(1, 3, 16, 16)).x_hat).sum(), group)
    assert seen == [False]
