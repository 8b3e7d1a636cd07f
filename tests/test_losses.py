"""Equations 2, 4, 5 and 10 against brute force in float64; the batch entropy over real ranks."""

import math
import subprocess
import sys
import textwrap

import pytest
import torch

from gear import losses
from gear.assignment import Assignment


def test_reconstruction_and_adversaries():
    a, b = torch.randn(2, 3, 4, 5, dtype=torch.float64), torch.randn(2, 3, 4, 5, dtype=torch.float64)
    expected = sum(abs(x - y) for x, y in zip(a.flatten().tolist(), b.flatten().tolist(), strict=True)) / a.numel()
    assert losses.reconstruction(a, b).item() == pytest.approx(expected, rel=1e-12)
    real, fake = torch.randn(2, 1, 3, 3, dtype=torch.float64) * 2, torch.randn(2, 1, 3, 3, dtype=torch.float64) * 2
    assert losses.adversarial(fake).item() == pytest.approx(-fake.mean().item(), rel=1e-12)
    hinge = [
        max(0, 1 - r) + max(0, 1 + f) for r, f in zip(real.flatten().tolist(), fake.flatten().tolist(), strict=True)
    ]
    assert losses.critic(real, fake).item() == pytest.approx(sum(hinge) / 18 / 2, rel=1e-12)


@pytest.fixture(params=[1, 21, 10**6], ids=lambda n: f"logits{n}")
def at_once(request, monkeypatch):
    """Logits made at once: one row, three (which does not divide ten), all."""
    monkeypatch.setattr(losses, "LOGITS", request.param)


def head_and_tokens(dtype):
    torch.manual_seed(3)
    h, head = (torch.randn(*n, 4, dtype=dtype, requires_grad=True) for n in ((2, 5), (7,)))
    return h, head, torch.randint(7, (2, 5))


def test_next_token_eq_4(at_once):
    h, head, q = head_and_tokens(torch.float64)
    nats = 0.0
    for b in range(2):
        for i in range(5):
            row = [sum(x * y for x, y in zip(h[b, i].tolist(), w.tolist(), strict=True)) for w in head]
            nats -= row[q[b, i]] - math.log(sum(math.exp(v) for v in row))
    assert losses.next_token(h, head, q).item() == pytest.approx(nats / 10, rel=1e-12)


def test_next_token_has_the_gradients_of_whole_logits(at_once):
    h, head, q = head_and_tokens(torch.float64)
    whole = torch.nn.functional.cross_entropy((h @ head.T).flatten(0, 1), q.flatten())
    ours = torch.autograd.grad(3.0 * losses.next_token(h, head, q), (h, head))
    theirs = torch.autograd.grad(3.0 * whole, (h, head))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    (alone,) = torch.autograd.grad(losses.next_token(h.detach(), head, q), head)
    torch.testing.assert_close(3 * alone, theirs[1], rtol=1e-12, atol=1e-12)


def test_next_token_in_bfloat16_is_that_of_the_linear_layer(at_once):
    """Products as autocast makes them, and sums in float32: rounded once each, 2^-9."""
    h, head, q = head_and_tokens(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        ours = losses.next_token(h, head, q)
        plain = torch.nn.functional.cross_entropy((h @ head.T).float().flatten(0, 1), q.flatten())
    torch.testing.assert_close(ours, plain, rtol=1e-6, atol=1e-6)
    for a, b in zip(*(torch.autograd.grad(loss, (h, head)) for loss in (ours, plain)), strict=True):
        assert a.dtype == b.dtype == torch.float32
        torch.testing.assert_close(a, b, rtol=0, atol=2**-8 * b.abs().max().item())


def test_next_token_keeps_no_logits(monkeypatch):
    monkeypatch.setattr(losses, "LOGITS", 1 << 10)
    h, head, q = torch.randn(4, 64, 8, requires_grad=True), torch.randn(512, 8, requires_grad=True), torch.zeros(4, 64)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        losses.next_token(h, head, q.long())
    assert sorted(kept) == [h.numel(), head.numel()]


def test_next_token_without_gradients_makes_none(monkeypatch):
    h, head, q = head_and_tokens(torch.float64)
    with torch.no_grad():
        assert losses.next_token(h, head, q).item() == pytest.approx(losses.next_token(h, head, q).item())
        monkeypatch.setattr(torch, "zeros_like", None)  # of the head's gradient
        losses.next_token(h, head, q)
    assert losses.next_token(h.detach()[:, :0], head.detach(), q[:, :0]).item() == 0


def test_next_token_of_large_and_of_broken_states():
    """Logits of some thousands neither overflow nor vanish; what is not a number stays none, in loss and gradient."""
    h, head, q = head_and_tokens(torch.float32)
    loss = losses.next_token(1e3 * h, head, q)
    torch.testing.assert_close(
        loss, torch.nn.functional.cross_entropy((1e3 * h @ head.T).flatten(0, 1), q.flatten()), rtol=1e-6, atol=0
    )
    broken = h.detach().clone()
    broken[0, 0, 0] = torch.nan
    loss = losses.next_token(broken.requires_grad_(), head, q)
    assert loss.isnan()
    assert torch.autograd.grad(loss, broken)[0][0, 0].isnan().all()


def test_alignment_eqs_5_and_10():
    h = {n: torch.randn(2, 5, c, dtype=torch.float64) for n, c in (("a", 4), ("b", 6))}
    f = {n: torch.randn_like(t) for n, t in h.items()}
    total = 0.0
    for n in h:
        for b in range(2):
            for i in range(5):
                x, y = h[n][b, i].tolist(), f[n][b, i].tolist()
                dot = sum(p * q for p, q in zip(x, y, strict=True))
                total -= dot / math.sqrt(sum(p * p for p in x)) / math.sqrt(sum(q * q for q in y))
    assert losses.alignment(h, f).item() == pytest.approx(total / 20, rel=1e-12)
    assert losses.alignment(f, {n: 3 * t for n, t in f.items()}).item() == pytest.approx(-1, rel=1e-12)
    assert losses.alignment(h, {}).item() == 0  # LlamaGen has no target


def test_entropy_term_of_eq_2():
    torch.manual_seed(0)
    A = Assignment(torch.randn(2, 9, 4, dtype=torch.float64), torch.randn(11, 4, dtype=torch.float64), 2.0)
    p = (A.dense() / 0.5).softmax(-1).flatten(0, 1).tolist()
    H = lambda row: -sum(v * math.log(v) for v in row if v > 0)  # noqa: E731
    mean = [sum(column) / len(p) for column in zip(*p, strict=True)]
    expected = sum(map(H, p)) / len(p) + sum(v * math.log(v + 1e-5) for v in mean)
    assert losses.entropy(A.posterior(0.5)).item() == pytest.approx(expected, rel=1e-10)
    # the two ends: every position sure and every code used, and all positions the same
    sure = Assignment(1e3 * torch.eye(8).view(1, 8, 8), torch.eye(8), 1.0)
    assert losses.entropy(sure.posterior(1.0)).item() == pytest.approx(-math.log(8), abs=1e-3)
    same = Assignment(torch.ones(1, 8, 4), torch.randn(8, 4), 1.0)
    assert losses.entropy(same.posterior(1.0)).item() == pytest.approx(0, abs=1e-3)


def test_entropy_has_a_finite_gradient_where_codewords_underflow():
    """At temperature 0.01 most of K probabilities are exactly 0 in float32."""
    z = torch.nn.functional.normalize(torch.randn(4, 8), dim=-1).requires_grad_()
    c = torch.nn.functional.normalize(torch.randn(512, 8), dim=-1)
    posterior = Assignment(z, c, 2.0).posterior(0.01)
    assert (posterior.mean == 0).any()
    (grad,) = torch.autograd.grad(losses.entropy(posterior), z)
    assert grad.isfinite().all()
    assert grad.abs().max() > 0


def test_entropy_over_ranks_equals_one_process(tmp_path):
    """Two gloo ranks with half the batch each: the means of their values and of their gradients are the whole one's."""
    script = tmp_path / "rank.py"
    script.write_text(
        textwrap.dedent(
            """
            import sys, torch, torch.distributed as dist
            from gear import losses
            from gear.assignment import Assignment
            rank, out = int(sys.argv[1]), sys.argv[2]
            dist.init_process_group("gloo", init_method=f"file://{out}/rendezvous", rank=rank, world_size=2)
            torch.manual_seed(0)
            z, c = torch.randn(2, 6, 4, dtype=torch.float64), torch.randn(9, 4, dtype=torch.float64)
            c.requires_grad_()
            loss = losses.entropy(Assignment(z[rank : rank + 1], c, 2.0).posterior(0.3))
            loss.backward()
            torch.save([loss.detach(), c.grad], f"{out}/{rank}.pt")
            dist.destroy_process_group()
            """
        )
    )
    ranks = [subprocess.Popen([sys.executable, str(script), str(r), str(tmp_path)]) for r in range(2)]
    assert [p.wait(timeout=120) for p in ranks] == [0, 0]
    (value0, grad0), (value1, grad1) = (torch.load(tmp_path / f"{r}.pt", weights_only=True) for r in range(2))
    torch.manual_seed(0)
    z, c = torch.randn(2, 6, 4, dtype=torch.float64), torch.randn(9, 4, dtype=torch.float64).requires_grad_()
    whole = losses.entropy(Assignment(z, c, 2.0).posterior(0.3))
    whole.backward()
    torch.testing.assert_close((value0 + value1) / 2, whole.detach(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close((grad0 + grad1) / 2, c.grad, rtol=1e-10, atol=1e-12)
