"""The Triton kernels against float64: on a GPU as they are compiled; without one, where Triton is installed and
TRITON_INTERPRET=1 is set, in its interpreter. Else there is nothing to run, and the blocks they stand for are tested.
"""

import os

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gear import assignment
from gear.assignment import Assignment

pytest.importorskip("triton", reason="a CPU build of torch comes without Triton")
CUDA = torch.cuda.is_available()
if not CUDA and os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("no GPU; TRITON_INTERPRET=1 interprets the kernels", allow_module_level=True)

from gear import kernels  # noqa: E402
from gear.tokenizer import norm_kernels  # noqa: E402

# Of the interpreter's NumPy, right of the last codeword, where 0 times infinity is masked.
pytestmark = pytest.mark.filterwarnings("ignore:invalid value encountered in multiply:RuntimeWarning")
ON = torch.device("cuda" if CUDA else "cpu")
SIZES = [(70, 50, 8, 40, True), (130, 200, 14, 96, False), (33, 16, 4, 16, True)]  # N, K, d, D, bias
if CUDA:
    SIZES += [(1000, 16384, 8, 1024, True), (4099, 777, 31, 768, True)]


def leaves(*sizes: tuple[int, ...]) -> list[Tensor]:
    return [torch.randn(*size, device=ON).requires_grad_() for size in sizes]


def doubled(tensors: list[Tensor]) -> list[Tensor]:
    return [t.detach().double().requires_grad_() for t in tensors]


def close(ours: list[Tensor], exact: list[Tensor], eps: float) -> None:
    """To `eps` of the largest value: sums of thousands of terms have no smaller error in their small results."""
    for a, b in zip(ours, exact, strict=True):
        assert (a.double() - b).abs().max() <= eps * b.abs().max()


@pytest.mark.parametrize(("N", "K", "d", "D", "bias"), SIZES)
@pytest.mark.parametrize(("product", "eps"), [(torch.float32, 2e-5), (torch.bfloat16, 2e-2)])
def test_soft(N, K, d, D, bias, product, eps):
    if product == torch.bfloat16 and not CUDA:
        pytest.skip("the interpreter computes in NumPy, which has no bfloat16")
    zcb = leaves((N, d), (K, d), (K,))[: 2 + bias]
    E, g = torch.randn(K, D, device=ON), torch.randn(N, D, device=ON)
    u = kernels.Soft.apply(*zcb, *([] if bias else [None]), E, product)
    exact = doubled(zcb)
    A = exact[0] @ exact[1].T + (exact[2] if bias else 0)
    reference = A.softmax(-1) @ E.double()
    close([u], [reference], eps)
    close(list(torch.autograd.grad((u * g).sum(), zcb)), list(torch.autograd.grad((reference * g).sum(), exact)), eps)


@pytest.mark.parametrize("bias", [True, False])
def test_codewords_that_are_held_fixed_get_no_gradient(bias):
    """As LFQ's patterns; that of z is the same to the bit."""
    z, c, b = leaves((70, 8), (50, 8), (50,))
    E, fixed = torch.randn(50, 40, device=ON), (c.detach(), b.detach() if bias else None)
    (alone,) = torch.autograd.grad(kernels.Soft.apply(z, *fixed, E, torch.float32).square().sum(), z)
    u = kernels.Soft.apply(z, c, b if bias else None, E, torch.float32)
    assert torch.equal(alone, torch.autograd.grad(u.square().sum(), (z, c))[0])


@pytest.mark.parametrize(("N", "K", "d", "D", "bias"), SIZES)
def test_posterior_and_arg_max(N, K, d, D, bias):
    zcb = leaves((N, d), (K, d), (K,))[: 2 + bias]
    gh, gm = torch.randn(N, device=ON), torch.randn(K, device=ON)
    h, mean = kernels.Posterior.apply(*zcb, *([] if bias else [None]))
    exact = doubled(zcb)
    A = exact[0] @ exact[1].T + (exact[2] if bias else 0)
    H, M = -(A.softmax(-1) * A.log_softmax(-1)).sum(-1), A.softmax(-1).mean(0)
    close([h, mean], [H, M], 2e-5)
    ours = torch.autograd.grad((h * gh).sum() + (mean * gm).sum() * N, zcb)
    close(list(ours), list(torch.autograd.grad((H * gh).sum() + (M * gm).sum() * N, exact)), 1e-4)
    best = kernels.statistics(zcb[0].detach(), zcb[1].detach(), zcb[2].detach() if bias else None)[2]
    A32 = zcb[0].detach() @ zcb[1].detach().T + (zcb[2].detach() if bias else 0)
    assert (best == A.argmax(-1)).float().mean() >= 0.999  # a last bit decides between two of 16,384
    assert torch.equal(A32.gather(1, best[:, None].long())[:, 0] >= A32.max(1).values - 1e-5, best >= 0)


def test_ties_go_to_the_lower_index():
    z, c = torch.ones(20, 4, device=ON), torch.ones(300, 4, device=ON)
    assert kernels.statistics(z, c, None)[2].eq(0).all()


def test_statistics_of_any_strides():
    """As one image of channels-first latents has."""
    z, c = torch.randn(8, 70, device=ON), torch.randn(8, 50, device=ON)
    wanted = kernels.statistics(z.T.contiguous(), c.T.contiguous(), None)
    assert all(torch.equal(a, b) for a, b in zip(kernels.statistics(z.T, c.T, None), wanted, strict=True))


def test_equal_inputs_give_equal_bits():
    z, c = leaves((200, 8), (300, 8))
    E = torch.randn(300, 64, device=ON)

    def gradients() -> tuple[Tensor, ...]:
        h, mean = kernels.Posterior.apply(z, c, None)
        u = kernels.Soft.apply(z, c, None, E, torch.float32)
        return torch.autograd.grad(u.square().sum() + h.sum() + mean.square().sum(), (z, c))

    assert all(torch.equal(a, b) for a, b in zip(gradients(), gradients(), strict=True))


@pytest.mark.skipif(not CUDA, reason="asks for CUDA tensors")
@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_an_assignment_asks_the_kernels(scale, monkeypatch):
    """Every read-out of an `Assignment` on CUDA, against its own blocks."""
    z, c, b = leaves((3, 50, 8), (512, 8), (512,))
    E = torch.randn(512, 96, device=ON)
    g = torch.randn(3, 50, 96, device=ON)

    def read() -> list[Tensor]:
        A = Assignment(z, c, scale, b)
        posterior = A.posterior(0.5)
        loss = (A.soft(E, 0.3) * g).sum() + posterior.entropy.sum() + posterior.mean.square().sum()
        return [A.hard().double(), *torch.autograd.grad(loss, (z, c, b))]

    fused = read()
    monkeypatch.setattr(assignment, "_kernels", lambda z, c: None)
    plain = read()
    assert torch.equal(fused[0], plain[0])
    close(fused[1:], [t.double() for t in plain[1:]], 1e-4)


@pytest.mark.parametrize(("B", "C", "G", "side"), [(2, 16, 4, 5), (1, 48, 8, 3), (2, 32, 32, 9)])
@pytest.mark.parametrize("swish", [True, False])
def test_group_norm_and_swish(B, C, G, side, swish):
    x, w, b = leaves((B, C, side, side), (C,), (C,))
    shifted = x + 3  # a mean that is not zero
    g = torch.randn(B, C, side, side, device=ON)
    y = norm_kernels.Normalise.apply(shifted, w, b, G, 1e-6, swish, torch.float32)
    assert y.is_contiguous(memory_format=torch.channels_last)
    X, W, Bias = doubled([x, w, b])
    Y = F.group_norm(X + 3, G, W, Bias, 1e-6)
    Y = F.silu(Y) if swish else Y
    close([y], [Y], 1e-5)
    ours, exact = (torch.autograd.grad((v * g).sum(), leaf) for v, leaf in ((y, (x, w, b)), (Y, (X, W, Bias))))
    close(list(ours), list(exact), 1e-5)
