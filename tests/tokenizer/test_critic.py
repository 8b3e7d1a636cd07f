"""The critic against a twin, its receptive field, and the names and size of the released one."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gear.tokenizer.critic import Critic


def twin(state: dict[str, Tensor], x: Tensor) -> Tensor:
    """The released layers by their indices, with batch statistics computed by hand."""
    x = F.conv2d(x, state["main.0.weight"], state["main.0.bias"], stride=2, padding=1)
    for conv, bn, stride in ((2, 3, 2), (5, 6, 2), (8, 9, 1)):
        x = torch.where(x > 0, x, 0.2 * x)
        x = F.conv2d(x, state[f"main.{conv}.weight"], stride=stride, padding=1)
        mean = x.mean((0, 2, 3), keepdim=True)
        variance = (x - mean).square().mean((0, 2, 3), keepdim=True)
        weight, bias = (state[f"main.{bn}.{name}"][:, None, None] for name in ("weight", "bias"))
        x = (x - mean) / (variance + 1e-5).sqrt() * weight + bias
    x = torch.where(x > 0, x, 0.2 * x)
    return F.conv2d(x, state["main.11.weight"], state["main.11.bias"], padding=1)


def test_equals_the_twin() -> None:
    critic = Critic(channels=4).double()
    x = torch.rand(3, 3, 32, 40, dtype=torch.float64) * 2 - 1
    torch.testing.assert_close(critic(x), twin(critic.state_dict(), x))


def test_the_defaults_are_the_released_critic() -> None:
    with torch.device("meta"):
        critic = Critic()
    assert sum(p.numel() for p in critic.parameters()) == 2_765_633
    convs = {"main.0.weight", "main.0.bias", "main.11.weight", "main.11.bias"}
    convs |= {f"main.{i}.weight" for i in (2, 5, 8)}
    parts = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    assert critic.state_dict().keys() == convs | {f"main.{i}.{part}" for i in (3, 6, 9) for part in parts}
    assert critic(torch.zeros(1, 3, 256, 256, device="meta")).shape == (1, 1, 30, 30)


def test_a_logit_sees_70_pixels() -> None:
    critic = Critic(channels=4).double().eval()
    x = torch.randn(1, 3, 128, 128, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(critic(x)[0, 0, 7, 7], x)
    reached = gradient.abs().sum((0, 1)).nonzero()
    assert (reached.max(0).values - reached.min(0).values + 1).tolist() == [70, 70]


def test_widths_stop_growing_at_eight_times() -> None:
    widths = [m.out_channels for m in Critic(channels=2, layers=5).modules() if isinstance(m, nn.Conv2d)]
    assert widths == [2, 4, 8, 16, 16, 16, 1]


def test_initialisation() -> None:
    critic = Critic()
    for module in critic.modules():
        if isinstance(module, nn.Conv2d):
            assert module.weight.mean().item() == pytest.approx(0, abs=1e-3)
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.1)
        if isinstance(module, nn.BatchNorm2d):
            assert module.weight.mean().item() == pytest.approx(1, abs=0.01)
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.2)
            assert not module.bias.any()


@pytest.mark.parametrize(("layers", "smallest"), [(1, 6), (2, 12), (3, 24), (4, 48)])
def test_the_smallest_image(layers: int, smallest: int) -> None:
    critic = Critic(channels=2, layers=layers)
    assert critic(torch.zeros(2, 3, smallest, smallest)).shape == (2, 1, 1, 1)
    with pytest.raises(ValueError, match=f"{layers} layers needs images of at least {smallest} px"):
        critic(torch.zeros(2, 3, smallest, smallest - 1))


def test_its_norms_can_be_synchronised() -> None:
    critic = Critic(channels=4)
    names = list(critic.state_dict())
    synchronised = nn.SyncBatchNorm.convert_sync_batchnorm(critic)
    assert list(synchronised.state_dict()) == names
    assert sum(isinstance(m, nn.SyncBatchNorm) for m in synchronised.modules()) == 3


def test_running_statistics_take_in_nothing_that_is_not_finite() -> None:
    """A step that is left out for that must leave no trace; torch's own would be NaN from then on."""
    torch.manual_seed(0)
    critic, torchs = Critic(channels=4, layers=1), nn.BatchNorm2d(8)
    x = torch.rand(2, 3, 16, 16)
    critic(x)
    norm = critic.main[3]
    before = {name: t.clone() for name, t in norm.named_buffers()}
    spoilt = x.clone()
    spoilt[0, 0, 0, 0] = torch.nan
    assert critic(spoilt).isnan().any()
    assert all(torch.equal(t, before[name]) for name, t in norm.named_buffers() if name != "num_batches_tracked")
    critic(x)
    torchs(torch.full((2, 8, 4, 4), torch.nan))
    assert torchs.running_mean is not None
    assert torchs.running_mean.isnan().all()
    for name, t in norm.named_buffers():
        assert t.isfinite().all()
        assert not torch.equal(t, before[name])


def test_running_statistics_are_torchs() -> None:
    ours, theirs = Critic(channels=4, layers=1).main[3], nn.BatchNorm2d(8)
    for _ in range(3):
        x = torch.randn(4, 8, 5, 5) * 3 + 1
        ours(x)
        theirs(x)
    assert all(torch.equal(t, dict(theirs.named_buffers())[name]) for name, t in ours.named_buffers())
