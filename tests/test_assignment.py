"""Equations 1, 6, 7 and 8 against brute force in float64, and the blockwise read-outs against the dense matrix."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from gear import assignment, tiles
from gear.assignment import Assignment, BinaryAssignment
from gear.tokenizer.quantizers import IBQ, LFQ, VQ
from gear.usage import count, usage

QUANTIZERS = {"VQ": lambda: VQ(37, 5), "LFQ": lambda: LFQ(5), "IBQ": lambda: IBQ(37, 5)}


@pytest.fixture(params=[1, 40, 111, 10**6], ids=lambda block: f"block{block}")
def block(request, monkeypatch):
    """Entries of A held at once. Whole rows: one, one, three (which divides nothing here), all. Square tiles: of 1, 6
    and 10 codewords, all."""
    monkeypatch.setattr(tiles, "ENTRIES", request.param)


def quantizer(name):
    torch.manual_seed(1)
    return QUANTIZERS[name]().double()


def latents(d=5, requires_grad=False):
    torch.manual_seed(0)
    return torch.randn(3, 7, d, dtype=torch.float64, requires_grad=requires_grad)


def assigned(name, z):
    return quantizer(name)(z).assignment


def brute(name, z, c):
    """A by its definition, element by element, up to a constant per position."""
    A = torch.empty(*z.shape[:-1], c.shape[0], dtype=torch.float64)
    for i in range(z.shape[0]):
        for j in range(z.shape[1]):
            for k in range(c.shape[0]):
                match name:
                    case "VQ":  # eq. 6, on the unit sphere
                        A[i, j, k] = -((z[i, j] / z[i, j].norm() - c[k] / c[k].norm()) ** 2).sum()
                    case "LFQ":
                        A[i, j, k] = 2 * (z[i, j] * c[k]).sum()
                    case "IBQ":
                        A[i, j, k] = (z[i, j] * c[k]).sum()
    return A


@pytest.mark.parametrize("name", QUANTIZERS)
def test_eqs_1_6_7_8_against_their_definitions(name, block):
    z, q = latents(), quantizer(name)
    A, out = assigned(name, z), q(z)
    raw = q.patterns if name == "LFQ" else q.embedding.weight.detach()
    expected = brute(name, z, raw)
    centred = A.dense() - A.dense().mean(-1, keepdim=True)
    torch.testing.assert_close(centred, expected - expected.mean(-1, keepdim=True), rtol=0, atol=1e-12)
    assert torch.equal(A.hard(), expected.argmax(-1))
    assert torch.equal(out.q, expected.argmax(-1))
    E = torch.randn(raw.shape[0], 11, dtype=torch.float64)
    pi = (expected / 0.3).exp() / (expected / 0.3).exp().sum(-1, keepdim=True)
    u_s = torch.zeros(3, 7, 11, dtype=torch.float64)
    for k in range(len(E)):
        u_s += pi[..., k, None] * E[k]
    torch.testing.assert_close(A.soft(E, 0.3), u_s, rtol=0, atol=1e-12)  # eq. 8
    one_hot = F.one_hot(expected.argmax(-1), len(E)).double()
    torch.testing.assert_close(A.straight_through(E, 0.3), one_hot @ E, rtol=0, atol=1e-12)  # eq. 7 in value


@pytest.mark.parametrize("with_bias", [True, False])
def test_blocks_equal_dense_in_value_and_gradient(with_bias, block):
    z = latents(requires_grad=True)
    c = torch.randn(37, 5, dtype=torch.float64, requires_grad=True)
    b = torch.randn(37, dtype=torch.float64, requires_grad=True) if with_bias else None
    E = torch.randn(37, 11, dtype=torch.float64, requires_grad=True)
    inputs = [z, c, E, *([b] if with_bias else [])]
    A = Assignment(z, c, 1.7, b)

    def blockwise():
        p = A.posterior(0.3)
        return A.soft(E, 0.2), p.entropy, p.mean

    def dense():
        p = (A.dense() / 0.3).softmax(-1)
        return (A.dense() / 0.2).softmax(-1) @ E, -(p * p.log()).sum(-1), p.flatten(0, -2).mean(0)

    ours, theirs = blockwise(), dense()
    weights = [torch.randn_like(t) for t in theirs]
    gradients = [torch.autograd.grad(outputs, inputs, weights) for outputs in (ours, theirs)]
    for a, b_ in zip((*ours, *gradients[0]), (*theirs, *gradients[1]), strict=True):
        torch.testing.assert_close(a, b_, rtol=1e-11, atol=1e-11)


def test_gradients_by_finite_differences(block):
    torch.manual_seed(2)
    z, c, E = (torch.randn(n, d, dtype=torch.float64, requires_grad=True) for n, d in ((4, 3), (7, 3), (7, 2)))
    b = torch.randn(7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z, c, b, E: Assignment(z, c, 2.0, b).soft(E, 0.7), (z, c, b, E))
    p = lambda z, c, b: Assignment(z, c, 2.0, b).posterior(0.7)  # noqa: E731
    assert torch.autograd.gradcheck(lambda z, c, b: (p(z, c, b).entropy, p(z, c, b).mean), (z, c, b))


@pytest.mark.parametrize("bits", [1, 2, 5, 8])
@pytest.mark.parametrize("temperature", [1.0, 0.1, 0.01])
def test_lfq_factorised_posterior_equals_the_dense_one(bits, temperature):
    z = latents(bits, requires_grad=True)
    patterns = LFQ(bits).patterns.double()
    closed, dense = BinaryAssignment(z, patterns, 2.0), Assignment(z, patterns, 2.0)
    outputs = [(p.entropy, p.mean) for p in (closed.posterior(temperature), dense.posterior(temperature))]
    weights = [torch.randn_like(t) for t in outputs[0]]
    gradients = [torch.autograd.grad(o, z, weights) for o in outputs]
    for a, b in zip((*outputs[0], *gradients[0]), (*outputs[1], *gradients[1]), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)
    assert torch.equal(closed.hard(), dense.hard())


def test_lfq_bit_order():
    """Channel 0 is the least significant bit, and zero reads as -1."""
    z = torch.tensor([[[1.0, -1, -1], [-1, 1, -1], [-1, -1, 1], [1, 1, 1], [0, 0, 0], [-0.0, 2, 0]]])
    out = LFQ(3)(z)
    assert out.q.tolist() == [[1, 2, 4, 7, 0, 2]]
    assert torch.equal(out.z_q.detach(), torch.where(z > 0, 1.0, -1.0))
    assert torch.equal(LFQ(3).patterns[6], torch.tensor([-1.0, 1.0, 1.0]))


@pytest.mark.parametrize("name", QUANTIZERS)
def test_soft_becomes_hard_as_tau_vanishes(name):
    A = assigned(name, latents())
    E = torch.randn(A.codewords.shape[0], 11, dtype=torch.float64)
    u_h = F.embedding(A.hard(), E)
    gaps = [(A.soft(E, tau) - u_h).abs().max().item() for tau in (1.0, 0.1, 0.01, 1e-5)]
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[0] > 0.1
    assert gaps[-1] < 1e-9


def test_soft_of_a_certain_assignment_is_a_lookup():
    E, k = torch.randn(9, 4), torch.tensor([3, 0, 8])
    A = Assignment(1e4 * F.one_hot(k, 9).float(), torch.eye(9), 1.0)
    assert torch.equal(A.soft(E, 0.1), E[k])


@pytest.mark.parametrize("name", QUANTIZERS)
def test_straight_through_has_the_value_of_hard_and_the_gradient_of_soft(name):
    z = latents(requires_grad=True)
    A = assigned(name, z)
    E = torch.randn(A.codewords.shape[0], 11, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 7, 11, dtype=torch.float64)
    u = A.straight_through(E, 0.3)
    assert torch.equal(u, F.embedding(A.hard(), E))
    (dz,) = torch.autograd.grad(A.soft(E, 0.3), z, weight, retain_graph=True)
    ours = torch.autograd.grad(u, (z, E), weight)
    torch.testing.assert_close(ours[0], dz)
    one_hot = F.one_hot(A.hard(), E.shape[0]).double()  # E sees the lookup
    torch.testing.assert_close(ours[1], torch.einsum("bnk,bnd->kd", one_hot, weight))


def test_float32_under_autocast(block):
    torch.manual_seed(0)
    z, c, E = F.normalize(torch.randn(64, 8), dim=-1), F.normalize(torch.randn(512, 8), dim=-1), torch.randn(512, 4)
    A = Assignment(z.requires_grad_(), c, 2.0, -c.square().sum(-1))
    results = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            p, u = A.posterior(0.01), A.soft(E, 0.1)
            (g,) = torch.autograd.grad(u.sum() + p.entropy.sum() + p.mean.square().sum(), z)
            results.append((A.hard(), u, p.entropy, p.mean, g, A.dense()))
    for a, b in zip(*results, strict=True):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)


def test_float32_is_as_near_float64_as_the_dense_matrix():
    """Entropies and gradients at temperature 0.01, where A / T is some hundreds: shifted by the row's largest first."""
    torch.manual_seed(0)
    z, c = (F.normalize(torch.randn(n, 8, dtype=torch.float64), dim=-1) for n in (256, 1024))
    E, w = torch.randn(1024, 16, dtype=torch.float64), torch.randn(256, 16, dtype=torch.float64)

    def tiled(A):
        p = A.posterior(0.01)
        return (A.soft(E.to(A.z.dtype), 0.1) * w.to(A.z.dtype)).sum() + p.entropy.sum() + p.mean.square().sum()

    def dense(A):
        log_p, pi = (A.dense() / 0.01).log_softmax(-1), (A.dense() / 0.1).softmax(-1)
        p = log_p.exp()
        H = -(p * log_p).sum()
        return ((pi @ E.to(A.z.dtype)) * w.to(A.z.dtype)).sum() + H + p.mean(0).square().sum()

    def gradients(loss, dtype):
        wide, words = (t.to(dtype).requires_grad_() for t in (z, c))
        return torch.autograd.grad(loss(Assignment(wide, words, 2.0, -words.square().sum(-1))), (wide, words))

    exact, ours, plain = gradients(dense, torch.float64), *(gradients(f, torch.float32) for f in (tiled, dense))
    for e, a, b in zip(exact, ours, plain, strict=True):
        assert (a - e).abs().max() <= 2 * (b - e).abs().max()


def test_no_positions():
    """As of a 1 x 1 grid, whose last token predicts nothing."""
    z, c = torch.randn(3, 0, 4, requires_grad=True), torch.randn(5, 4, requires_grad=True)
    A = Assignment(z, c, 2.0)
    u = A.soft(torch.randn(5, 6), 0.1)
    assert (u.shape, A.hard().shape, A.posterior(1.0).entropy.shape) == ((3, 0, 6), (3, 0), (3, 0))
    u.sum().backward()
    assert c.grad is not None
    assert not c.grad.any()


def test_products_are_exact_beside_tf32(monkeypatch):
    """What torch is told while A is computed, forward and backward, where it is told otherwise around it."""
    seen, plain = [], tiles.tiles

    def noted(z, c, b, scale, inverse, columns):
        for tile in plain(z, c, b, scale, inverse, columns):
            seen.append(torch.get_float32_matmul_precision())
            yield tile

    monkeypatch.setattr(tiles, "tiles", noted)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        A = Assignment(torch.randn(4, 3, requires_grad=True), torch.randn(5, 3), 2.0)
        A.hard()
        (A.soft(torch.randn(5, 2), 0.1).sum() + A.posterior(1.0).mean.square().sum()).backward()
        assert set(seen) == {"highest"}
        assert len(seen) >= 5
        assert torch.get_float32_matmul_precision() == "high"
        with pytest.raises(ZeroDivisionError), assignment.exact(torch.device("cpu")):
            raise ZeroDivisionError
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)


def test_the_binary_posteriors_products_are_exact_beside_tf32():
    """All three of them, seen as they are called."""
    seen = []

    class Noted(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if function is torch.ops.aten.mm.default:
                seen.append(torch.get_float32_matmul_precision())
            return function(*args, **(kwargs or {}))

    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        z = torch.randn(4, 6, requires_grad=True)
        with Noted():
            BinaryAssignment(z, torch.randn(64, 6), 2.0).posterior(1.0).mean.square().sum().backward()
        assert seen == ["highest"] * 3
    finally:
        torch.set_float32_matmul_precision(before)


def test_memory_does_not_hold_the_matrix(monkeypatch):
    """What the forward pass keeps for the backward one, counted exactly: nothing of size N x K."""
    monkeypatch.setattr(tiles, "ENTRIES", 1 << 12)
    N, K = 512, 1024
    z, c, E = torch.randn(N, 4, requires_grad=True), torch.randn(K, 4, requires_grad=True), torch.randn(K, 16)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        A = Assignment(z, c, 2.0, -c.square().sum(-1))
        _ = A.soft(E, 0.1).sum() + A.posterior(0.01).entropy.sum()
    assert max(kept) <= K * 16
    assert sum(kept) < N * K / 8


@pytest.mark.parametrize("tau", [0.0, -1.0, float("nan")])
def test_tau_must_be_above_zero(tau):
    A = Assignment(torch.randn(2, 3), torch.randn(4, 3), 1.0)
    with pytest.raises(ValueError, match="tau must be above 0"):
        A.soft(torch.randn(4, 2), tau)
    with pytest.raises(ValueError, match="temperature must be above 0"):
        A.posterior(tau)


def test_usage():
    counts = count(torch.tensor([[0, 0], [1, 3]]), 5) + count(torch.tensor([3, 3]), 5)
    assert counts.tolist() == [2, 1, 0, 3, 0]
    p = [2 / 6, 1 / 6, 3 / 6]
    used = usage(counts)
    assert used.entropy.item() == pytest.approx(-sum(x * math.log(x) for x in p))
    assert used.effective_size.item() == pytest.approx(math.exp(used.entropy.item()))
    assert used.dead.item() == pytest.approx(2 / 5)
    assert usage(torch.full((8,), 3.0)).entropy.item() == pytest.approx(math.log(8))
    assert usage(torch.zeros(4)).entropy.item() == 0
    assert (used.top1.item(), used.top10.item(), used.top100.item()) == pytest.approx((3 / 6, 1, 1))
    many = usage(torch.arange(200.0))
    assert many.top10.item() == pytest.approx(sum(range(190, 200)) / sum(range(200)))
    assert many.top100.item() == pytest.approx(sum(range(100, 200)) / sum(range(200)))
