"""The plain step that ours is measured against is the same step: in two of them equal losses, weights and averages."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from bench import step
from bench.ceilings import Ceilings
from bench.joint import Case
from bench.plain_step import PlainStep, start
from gear import build
from gear.config import Config, grid
from gear.step import Batch

CLASSES, DIMS = 3, {"efficientnet_lite0": 7}


@pytest.fixture
def calm(tiny: Config) -> Config:
    """`tiny` with all that the paper's networks have, its attention too, and nothing that is random."""
    backbone = replace(tiny.tokenizer.backbone, attention=True, patch=2)
    return replace(
        tiny,
        tokenizer=replace(tiny.tokenizer, backbone=backbone),
        generator=replace(tiny.generator, layers=3, tap=2, dropout=0.0, class_drop=0.0),
        optimizer=replace(tiny.optimizer, weight_decay=0.01, clip=0.05),  # below every norm, so that it bites
    )


@pytest.fixture
def double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def sides(config: Config) -> tuple[build.Training, PlainStep]:
    training = build.training(config, CLASSES, DIMS, torch.device("cpu"), loaded=False)
    generator = training.groups[2]
    assert generator.ema is not None
    nn.init.normal_(generator.module.output.weight, std=0.5)  # a head that is zero hides mistakes
    generator.ema.module.load_state_dict(generator.module.state_dict())
    return training, PlainStep(config, CLASSES, DIMS, start(training))


def batch(config: Config) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Images, labels, features."""
    side, N = config.data.resolution, grid(config) ** 2
    f = {name: torch.randn(2, N, dim) for name, dim in DIMS.items()}
    return torch.rand(2, 3, side, side) * 2 - 1, torch.tensor([0, 2]), f


@pytest.mark.usefixtures("double")
def test_two_steps_are_the_same(calm: Config) -> None:
    """Float64, so up to rounding: 1e-9 relative, which the second step's AdamW still keeps. LPIPS is float32 in ours
    always, and has the test below."""
    config = replace(calm, tokenizer=replace(calm.tokenizer, loss=replace(calm.tokenizer.loss, perceptual=0.0)))
    training, plain = sides(config)
    before = {group.name: [p.detach().clone() for p in group.module.parameters()] for group in training.groups}
    for _ in range(2):
        b = batch(config)
        ours, theirs = training.step(Batch(*b)).terms, plain(*b)
        for name in theirs.keys() - {"perceptual"}:
            torch.testing.assert_close(
                ours[name].item(), theirs[name], rtol=1e-9, atol=1e-12, msg=lambda said, name=name: f"{name}: {said}"
            )
        assert all(theirs[f"grad_{group.name}"] > config.optimizer.clip for group in training.groups)
    nets = (plain.tokenizer, plain.critic, plain.generator)
    averages = (plain.tokenizer_average, None, plain.generator_average)
    for group, net, average in zip(training.groups, nets, averages, strict=True):
        same(group.module, net)
        assert not any(map(torch.equal, net.parameters(), before[group.name])), "something stood still"
        if average is not None:
            assert group.ema is not None
            same(group.ema.module, average)


def same(ours: nn.Module, plain: nn.Module) -> None:
    theirs = plain.state_dict()
    assert ours.state_dict().keys() == theirs.keys()
    for name, value in ours.state_dict().items():
        torch.testing.assert_close(
            value, theirs[name], rtol=1e-9, atol=1e-9, msg=lambda said, name=name: f"{name}: {said}"
        )


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_so_are_its_losses_as_it_is_measured(calm: Config, precision: str) -> None:
    """With LPIPS, in the precisions of training. Tolerances: some hundred operations, each rounded to 2^-24 or 2^-9.
    The entropy is taken at temperature 1; at 0.01 it would have a hundred times the error of all others. In bfloat16
    one step: AdamW's first goes by the sign of each gradient, so that after it the networks are not the same."""
    loss, low = replace(calm.tokenizer.loss, entropy_temperature=1.0), precision == "bfloat16"
    config = replace(calm, precision=precision, tokenizer=replace(calm.tokenizer, loss=loss))
    training, plain = sides(config)
    b = batch(config)
    for _ in range(1 if low else 2):
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            ours = training.step(Batch(*b)).terms
        theirs = plain(*b)
        losses = [name for name in theirs if not name.startswith("grad_")]
        found, wanted = torch.stack([ours[name] for name in losses]), torch.tensor([theirs[name] for name in losses])
        torch.testing.assert_close(found, wanted, rtol=3e-2 if low else 1e-5, atol=3e-2 if low else 1e-5)


class Products(TorchDispatchMode):
    """Of which types the products with a matrix of this shape are."""

    def __init__(self, shape: tuple[int, ...]):
        super().__init__()
        self.shape, self.found = shape, set[torch.dtype]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.ops.aten.mm.default, torch.ops.aten.bmm.default) and args[1].shape[-2:] == self.shape:
            self.found.add(args[1].dtype)
        return func(*args, **(kwargs or {}))


def test_under_autocast_the_plain_read_out_is_as_quick_as_ours(calm: Config) -> None:
    config = replace(calm, precision="bfloat16")
    _, plain = sides(config)
    with Products(tuple(plain.generator.tok_embeddings.weight.shape)) as products:
        plain(*batch(config))
    assert products.found == {torch.bfloat16}


def test_both_are_measured_in_processes_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which would end with an error if their first steps differed. The rates of the floor are far above a CPU's."""
    monkeypatch.setattr(step, "ceilings", lambda device: Ceilings(1e15, 1e15, 1e15, 1e15))
    case = Case("demo", 64, 2, "float32", "cpu")
    seconds, memory = step.measure("tiny", step.Size(case, 0.5, "arithmetic", rounds=1))
    assert (seconds.unit, seconds.target, memory.unit) == ("s", 0.5, "MiB")
    for row in (seconds, memory):
        assert row.floor is not None
        assert 0 < row.floor < min(row.ours, row.plain)


TERMS = {
    "perceptual": 0.02,
    "reconstruction": 0.5,
    "adversarial": -0.1,
    "entropy": -4.5,
    "align_hard": -0.006,
    "align_soft": -0.006,
    "grad_critic": 3.0,
}


@pytest.mark.parametrize("name", TERMS)
@pytest.mark.parametrize(("precision", "off"), [("float32", 0.2), ("bfloat16", 0.7)])
def test_a_side_that_takes_another_step_is_an_error(name: str, precision: str, off: float) -> None:
    """One term a fifth off; in bfloat16 it must be more to be told from rounding."""
    config = step.config_of(replace(step.SIZES["vq-16"].case, precision=precision))
    step.same(TERMS, TERMS, config)
    with pytest.raises(AssertionError, match=f"do not take the same step: {name} is"):
        step.same(TERMS, TERMS | {name: TERMS[name] * (1 - off)}, config)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["small", "--recipe", "demo-lfq"], "the plain step is GEAR's soft one"),
        (["small", "--recipe", "demo-warmup"], "the plain step is GEAR's soft one"),
        (["small", "--recipe", "demo-text-joint"], "the plain step is GEAR's soft one"),
        (["small", "--recipe", "cifar10-small-ste"], "the plain step is GEAR's soft one"),
        (["small", "--resolution", "100"], "data.resolution must be a multiple of 8"),
        (["small", "--batch", "0"], "batch must be at least 1; it is 0."),
        (["--batch", "3"], "say which size to change: vq-16 or small."),
    ],
)
def test_what_cannot_be_compared_is_told_first(
    arguments: list[str], told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["step", *arguments])
    with pytest.raises(SystemExit):
        step.main()
    assert f"error: {told}" in capsys.readouterr().err
