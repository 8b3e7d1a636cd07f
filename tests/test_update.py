"""When a group stays where it is, and its average."""

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from gear import ranks
from gear.update import Trained, update


class Counted(nn.Linear):
    """With a buffer of whole numbers and one of real ones."""

    def __init__(self) -> None:
        super().__init__(3, 3)
        self.register_buffer("calls", torch.tensor(0))
        self.register_buffer("mean", torch.zeros(3))

    def forward(self, input: Tensor) -> Tensor:
        self.get_buffer("calls").add_(1)
        self.get_buffer("mean").add_(input.mean(0))
        return super().forward(input)


def group() -> Trained:
    torch.manual_seed(0)
    module = Counted()
    return Trained("tokenizer", module, torch.optim.AdamW(module.parameters(), 1e-2, fused=True), 1.0, 0.9)


@pytest.mark.parametrize("what", ["loss + inf", "loss - inf", "loss + nan", "loss * inf", "loss * nan"])
def test_neither_a_loss_nor_a_gradient_that_is_not_finite_moves_anything(what: str) -> None:
    """Of a sum with a constant that is not finite the gradient is finite."""
    g = group()
    update(g(torch.randn(4, 3)).square().mean(), g)
    before = {name: t.clone() for name, t in g.module.named_parameters()}
    steps = [float(state["step"]) for state in g.optimizer.state.values()]
    loss = g(torch.randn(4, 3)).square().mean()
    told = update(eval(what, {"loss": loss, "inf": torch.inf, "nan": torch.nan}), g)
    assert told["skipped_tokenizer"] == 1
    assert all(torch.equal(t, before[name]) for name, t in g.module.named_parameters())
    assert [float(state["step"]) for state in g.optimizer.state.values()] == steps
    told = update(g(torch.randn(4, 3)).square().mean(), g)
    assert told["skipped_tokenizer"] == 0
    assert not torch.equal(g.module.weight, before["weight"])


def test_the_average_is_torchs() -> None:
    g = group()
    theirs = AveragedModel(g.module, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    theirs.n_averaged.fill_(1)
    for _ in range(3):
        update(g(torch.randn(4, 3)).square().mean(), g)
        for mine, live in zip(theirs.module.parameters(), g.module.parameters(), strict=True):
            mine.data.lerp_(live.data, 0.1)
        theirs.module.get_buffer("mean").lerp_(g.module.get_buffer("mean"), 0.1)
    assert g.ema is not None
    assert g.ema.n_averaged == 4
    found = dict(g.ema.module.named_parameters()) | {"mean": g.ema.module.get_buffer("mean")}
    wanted = dict(theirs.module.named_parameters()) | {"mean": theirs.module.get_buffer("mean")}
    for name, t in wanted.items():
        torch.testing.assert_close(found[name], t)


def test_parts_move_the_group_once() -> None:
    x, whole, parts = torch.randn(4, 3), group(), group()
    told = update(whole(x).square().mean(), whole)
    found = []
    for i in range(2):
        with ranks.in_part(i, 2):
            found.append(update(parts(x[2 * i : 2 * i + 2]).square().mean(), parts))
    assert found[0] == {}
    torch.testing.assert_close(found[1]["grad_tokenizer"], told["grad_tokenizer"])
    torch.testing.assert_close(parts.module.weight, whole.module.weight)


def test_an_optimiser_that_cannot_leave_an_update_out_is_refused() -> None:
    module = nn.Linear(2, 2)
    with pytest.raises(ValueError, match="must be a fused one: give it fused=True"):
        Trained("tokenizer", module, torch.optim.AdamW(module.parameters()), 1.0, None)
