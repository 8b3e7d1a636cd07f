"""Group normalisation with swish against torch's own, forward and backward."""

import pytest
import torch
import torch.nn.functional as F

from gear.tokenizer import norm_tiles
from gear.tokenizer.norm import Norm


@pytest.fixture(params=[1, 40, 130, 10**6], ids=lambda n: f"tile{n}")
def tile(request, monkeypatch):
    """Values at once: one position, two (12 channels; 15 positions), ten, some images (with 5 positions), all."""
    monkeypatch.setattr(norm_tiles, "TILE", request.param)


def norm(dtype):
    torch.manual_seed(0)
    n = Norm(12, 4).to(dtype)
    torch.nn.init.normal_(n.weight)
    torch.nn.init.normal_(n.bias)
    return n


def images(h, w, dtype, layout):
    torch.manual_seed(1)
    x = 3 + 2 * torch.randn(4, 12, h, w, dtype=torch.float64)
    return x.to(dtype).contiguous(memory_format=layout).requires_grad_()


def torchs(n, x, swish):
    y = F.group_norm(x, 4, n.weight, n.bias, 1e-6)
    return y * y.sigmoid() if swish else y


@pytest.mark.parametrize("swish", [True, False])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize(("h", "w"), [(3, 5), (1, 5), (1, 1)])
def test_equals_torch(swish, layout, h, w, tile):
    n, x = norm(torch.float64), images(h, w, torch.float64, layout)
    ours, theirs = (n.swish if swish else n)(x), torchs(n, x, swish)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    g = torch.randn_like(ours)
    for a, b in zip(*(torch.autograd.grad(y, (x, n.weight, n.bias), g) for y in (ours, theirs)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(
    "view",
    [
        lambda x: x[:, :, 1:, :2],
        lambda x: x[::2],
        lambda x: x.transpose(2, 3),
        lambda x: x[:, :, :1].expand(-1, -1, 4, -1),
        lambda x: x[:0],
    ],
    ids=["crop", "every second", "transposed", "expanded", "none"],
)
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_takes_any_view(view, layout):
    n, x = norm(torch.float64), images(3, 5, torch.float64, layout)
    for a, b in zip(
        *(torch.autograd.grad(y.square().sum(), (x, n.weight)) for y in (n.swish(view(x)), torchs(n, view(x), True))),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("swish", [True, False])
@pytest.mark.parametrize(("dtype", "eps"), [(torch.float32, 2**-23), (torch.bfloat16, 2**-8)])
def test_rounding(swish, dtype, eps):
    """Of bfloat16 images with float32 weights, as under autocast, each result is rounded once or twice."""
    n, x = norm(torch.float32), images(8, 8, dtype, torch.channels_last)
    y = (n.swish if swish else n)(x)
    assert y.dtype == dtype
    assert y.is_contiguous(memory_format=torch.channels_last)
    g = torch.randn_like(y)
    ours = torch.autograd.grad(y, (x, n.weight, n.bias), g)
    wide, exact = x.detach().double().requires_grad_(), norm(torch.float64)
    exact.load_state_dict(n.state_dict())
    theirs = torch.autograd.grad(torchs(exact, wide, swish), (wide, exact.weight, exact.bias), g.double())
    for a, b, kind in zip(ours, theirs, (x, n.weight, n.bias), strict=True):
        assert a.dtype == kind.dtype
        torch.testing.assert_close(a.double(), b, rtol=0, atol=16 * eps * b.abs().max().item())


def test_keeps_its_input_alone():
    n, x, kept = norm(torch.float32), images(8, 8, torch.float32, torch.channels_last), []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        n.swish(x)
    assert [t.data_ptr() for t in kept if t.numel() >= x.numel()] == [x.data_ptr()]
