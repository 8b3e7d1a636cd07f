"""The assignment that is rounded to bfloat16, against its definition; and that it ends with its block."""

import pytest
import torch

from gear import build
from gear.assignment import Assignment
from gear.config import Config
from gear.evidence.variants import RoundedAssignment, rounded_assignment
from gear.step import Batch
from gear.tokenizer import quantizers
from gear.tokenizer.quantizers import IBQ, VQ


@pytest.fixture
def both() -> tuple[RoundedAssignment, torch.Tensor]:
    z = torch.nn.functional.normalize(torch.randn(3, 5, 4), dim=-1).requires_grad_()
    c = torch.nn.functional.normalize(torch.randn(7, 4), dim=-1)
    return RoundedAssignment(z, c, 2.0, -c.square().sum(-1)), (2 * z @ c.T - c.square().sum(-1))


def test_its_values_are_rounded_and_its_gradient_is_not(both):
    A, exact = both
    assert torch.equal(A.dense(), exact.bfloat16().float())
    assert not torch.equal(A.dense(), exact)
    assert torch.equal(A.hard(), exact.bfloat16().float().argmax(-1))
    E, direction = torch.randn(7, 6), torch.randn(3, 5, 6)
    rounded = exact.bfloat16().float().detach().requires_grad_()
    want = (rounded / 0.1).softmax(-1) @ E
    torch.testing.assert_close(A.soft(E, 0.1), want)
    (of_entries,) = torch.autograd.grad((want * direction).sum(), rounded)
    (got,) = torch.autograd.grad((A.soft(E, 0.1) * direction).sum(), A.z)
    torch.testing.assert_close(got, 2 * of_entries @ A.codewords)
    p = (rounded / 0.5).softmax(-1)
    torch.testing.assert_close(A.posterior(0.5).entropy, -(p * p.log()).sum(-1))
    torch.testing.assert_close(A.posterior(0.5).mean, p.mean((0, 1)))


def test_a_step_reads_it_out_as_it_is(tiny: Config, monkeypatch: pytest.MonkeyPatch):
    """And not as the assignment that it is a kind of."""
    read: list[float] = []
    soft = RoundedAssignment.soft
    monkeypatch.setattr(RoundedAssignment, "soft", lambda A, E, tau: read.append(tau) or soft(A, E, tau))
    training = build.training(tiny, 2, {"efficientnet_lite0": 112}, torch.device("cpu"))
    batch = Batch(
        torch.rand(3, 3, 32, 32) * 2 - 1, torch.tensor([0, 1, 1]), {"efficientnet_lite0": torch.randn(3, 16, 112)}
    )
    with rounded_assignment():
        training.step(batch)
    assert read == [0.1]


@pytest.mark.parametrize("quantizer", [VQ(16, 4), IBQ(16, 4)])
def test_it_is_in_force_within_its_block_alone(quantizer):
    z = torch.randn(2, 3, 4)
    with rounded_assignment():
        assert type(quantizer(z).assignment) is RoundedAssignment
    assert type(quantizer(z).assignment) is Assignment
    assert quantizers.Assignment is Assignment
