"""From a configuration to objects: which are built, which are not, and where they start."""

import dataclasses
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gear import build, initial, run, sources, weights
from gear import config as cfg
from gear.config import (
    FAMILIES,
    IBQ,
    LFQ,
    VQ,
    VQGAN,
    Config,
    ConfigError,
    Critic,
    Frozen,
    Gear,
    Naive,
    Quantizer,
    Stage,
    Warmup,
)
from gear.step import Batch
from gear.targets import Standardised
from gear.tokenizer import released
from gear.tokenizer.critic import Critic as PatchGAN
from gear.tokenizer.tokenizer import Tokenizer
from gear.train import state
from gear.train.state import CheckpointError
from gear.update import Trained

CPU = torch.device("cpu")
STAGES: tuple[Stage, ...] = (Warmup(), Gear(), Frozen(), Naive())
QUANTIZERS: tuple[Quantizer, ...] = (VQ(16, 4), LFQ(4), IBQ(16, 8))


def with_tokenizer(config: Config, **changes: Any) -> Config:
    return replace(config, tokenizer=replace(config.tokenizer, **changes))


def with_loss(config: Config, **changes: float) -> Config:
    return with_tokenizer(config, loss=replace(config.tokenizer.loss, **changes))


def groups(config: Config) -> dict[str, Trained]:
    training = build.training(config, 2, {"efficientnet_lite0": 112}, CPU)
    return {group.name: group for group in training.groups}


def tensors(module: nn.Module) -> dict[str, Tensor]:
    return {key: t.clone() for key, t in module.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.fixture
def no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pretrained network is on this machine."""

    def missing(name: str) -> Path:
        raise weights.MissingWeight(f"{name} is not here")

    monkeypatch.setattr(weights, "path", missing)


@pytest.mark.parametrize("stage", STAGES, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("quantizer", QUANTIZERS, ids=lambda q: type(q).__name__)
def test_every_stage_with_every_quantizer_makes_a_step(
    tiny: Config, trained: Path, stage: Stage, quantizer: Quantizer
) -> None:
    init = str(trained) if isinstance(quantizer, VQ) else None
    config = with_tokenizer(replace(tiny, stage=stage), quantizer=quantizer, init=init)
    training = build.training(config, 2, {"efficientnet_lite0": 8}, CPU)
    names = {group.name for group in training.groups}
    assert (
        names
        == {
            Warmup: {"tokenizer", "critic"},
            Gear: {"tokenizer", "critic", "generator"},
            Frozen: {"tokenizer", "generator"},
            Naive: {"tokenizer", "critic", "generator"},
        }[type(stage)]
    )
    before = {group.name: tensors(group.module) for group in training.groups}
    batch = Batch(
        torch.rand(3, 3, 32, 32) * 2 - 1, torch.tensor([0, 1, 0]), {"efficientnet_lite0": torch.randn(3, 16, 8)}
    )
    step = training.step(batch)
    assert all(term.isfinite() for term in step.terms.values())
    assert step.counts.sum() == 3 * 16
    moved = {group.name for group in training.groups if not same(before[group.name], tensors(group.module))}
    assert moved == names - ({"tokenizer"} if isinstance(stage, Frozen) else set())


def test_a_weight_of_zero_builds_nothing(tiny: Config, no_weights: None) -> None:
    bare = with_loss(tiny, perceptual=0.0, adversarial=0.0)
    assert "critic" not in groups(bare)
    with pytest.raises(weights.MissingWeight, match="lpips-alex"):
        groups(with_loss(tiny, adversarial=0.0))
    frozen = with_tokenizer(replace(tiny, stage=Frozen()))
    assert "critic" not in groups(frozen)  # what eq. 2 needs is not built where eq. 2 is not trained


@pytest.mark.parametrize("stage", [Warmup(), Gear(lam=0.0), Frozen(lam=0.0), Naive(lam=0.0)])
def test_without_alignment_no_target_is_read(tiny: Config, no_weights: None, stage: Stage) -> None:
    assert build.targets(replace(tiny, stage=stage), lambda: torch.zeros(1, 3, 32, 32, dtype=torch.uint8), CPU) == ()


def test_the_tokenizer_alone_may_be_guided(tiny: Config) -> None:
    """And by nothing where it is not: then the targets are not even read."""
    guided, free = (replace(tiny, stage=Gear(lam=0.0, lam_soft=lam)) for lam in (0.5, 0.0))
    assert build.chosen_targets(guided) == tiny.targets
    assert build.chosen_targets(free) == ()
    fed = run.supply(guided, None, torch.device("cpu"))
    terms = build.training(guided, len(fed.classes), fed.dims, torch.device("cpu")).step(fed.batches(0)).terms
    assert float(terms["align_soft"]) != 0


def test_the_target_is_standardised_over_the_given_images(tiny: Config) -> None:
    pixels = torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8)
    (target,) = build.targets(tiny, lambda: pixels, CPU)
    assert isinstance(target, Standardised)
    f = target.features(pixels, (4, 4)).flatten(0, 1)
    torch.testing.assert_close(f.mean(0), torch.zeros(112), atol=1e-4, rtol=0)
    torch.testing.assert_close(f.std(0, correction=0), torch.ones(112), atol=1e-3, rtol=0)


def test_a_target_from_a_file(tiny: Config, tmp_path: Path, no_weights: None) -> None:
    here = replace(tiny, targets=(replace(tiny.targets[0], weights=str(tmp_path / "none.pth")),))
    with pytest.raises((OSError, ValueError), match=r"none\.pth"):
        build.targets(here, lambda: torch.zeros(1, 3, 32, 32, dtype=torch.uint8), CPU)


def test_the_seed_decides_the_start(tiny: Config) -> None:
    first, again, other = (groups(replace(tiny, seed=seed)) for seed in (0, 0, 1))
    assert first.keys() == again.keys()
    for name, group in first.items():
        assert same(tensors(group.module), tensors(again[name].module))
        assert not same(tensors(group.module), tensors(other[name].module))


def test_optimisers_are_the_configurations(tiny: Config) -> None:
    o = dataclasses.replace(tiny.optimizer, tokenizer_lr=1e-5, critic_lr=2e-5, generator_lr=3e-5, beta2=0.95, clip=0.7)
    made = groups(replace(tiny, optimizer=o))
    for name, lr in (("tokenizer", 1e-5), ("critic", 2e-5), ("generator", 3e-5)):
        assert type(made[name].optimizer) is torch.optim.AdamW  # Table 16
        (group,) = made[name].optimizer.param_groups
        assert (group["lr"], group["betas"], group["weight_decay"]) == (lr, (0.9, 0.95), 0.0)
        assert made[name].clip == 0.7
        assert sum(p.numel() for p in group["params"]) == sum(p.numel() for p in made[name].module.parameters())
    assert made["critic"].ema is None
    assert made["tokenizer"].ema is not None
    assert made["generator"].ema is not None


def test_a_frozen_tokenizer_cannot_move(tiny: Config, trained: Path) -> None:
    tokenizer = groups(with_tokenizer(replace(tiny, stage=Frozen()), init=str(trained)))["tokenizer"]
    assert not tokenizer.module.training
    assert not any(p.requires_grad for p in tokenizer.module.parameters())
    assert tokenizer.ema is None


# ------------------------------------------------------------------------------------------- tokenizer.init


@pytest.mark.parametrize("name", ["", state.NAME])
def test_init_takes_the_averaged_tokenizer_and_the_critic(tiny: Config, trained: Path, name: str) -> None:
    found = state.load(trained)
    made = groups(with_tokenizer(tiny, init=str(trained / name)))
    assert same(tensors(made["tokenizer"].module), found.part("tokenizer_ema"))
    assert not same(found.part("tokenizer_ema"), found.part("tokenizer"))
    assert made["tokenizer"].ema is not None
    assert same(tensors(made["tokenizer"].ema.module), found.part("tokenizer_ema"))
    assert same(tensors(made["critic"].module), found.part("critic"))
    assert not same(tensors(made["generator"].module), found.part("generator"))  # that one starts afresh


def test_init_leaves_a_critic_of_another_size(tiny: Config, trained: Path) -> None:
    made = groups(with_tokenizer(tiny, init=str(trained), critic=Critic(4, 1)))
    assert made["critic"].module.main[0].weight.shape[0] == 4


def test_init_takes_the_critic_of_a_public_file_where_it_fits(
    tiny: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose sizes are told by its tensors alone."""
    monkeypatch.setitem(FAMILIES, "tiny", cfg.Tokenizer(tiny.tokenizer.quantizer, tiny.tokenizer.backbone))
    net, critic = Tokenizer(tiny.tokenizer.quantizer, tiny.tokenizer.backbone), PatchGAN(16, 2)
    released.write(tmp_path / "a.pt", "gear", net.state_dict(), "tiny", critic=critic.state_dict())
    for size, taken in ((Critic(16, 2), True), (Critic(16, 1), False), (Critic(), False)):
        config = with_tokenizer(tiny, init=str(tmp_path / "a.pt"), critic=size)
        own = PatchGAN(size.channels, size.layers)
        before = tensors(own)
        initial.fill_tokenizer(Tokenizer(config.tokenizer.quantizer, config.tokenizer.backbone), own, config)
        assert same(tensors(own), tensors(critic) if taken else before)


def test_the_shipped_tokenizer_fits_its_recipe() -> None:
    from gear.recipes import demo

    found = state.load(sources.BUILTIN)
    made = groups(with_loss(demo(), perceptual=0.0))
    start = {key: t.float() if t.is_floating_point() else t for key, t in found.averaged("tokenizer").items()}
    assert same(tensors(made["tokenizer"].module), start)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"quantizer": LFQ(4)}, r"tokenizer.quantizer.kind: VQ -> LFQ"),
        ({"quantizer": VQ(32, 4)}, r"\(tokenizer.quantizer.codebook_size: 16 -> 32\)"),
        ({"backbone": VQGAN()}, r"tokenizer.backbone.channels: 16 -> 128"),
    ],
)
def test_init_from_another_tokenizer_names_the_fields(
    tiny: Config, trained: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(CheckpointError, match=rf"another tokenizer .*{said}.*tokenizer.init\.$"):
        groups(with_tokenizer(tiny, init=str(trained), **changes))


@pytest.mark.parametrize("there", FAMILIES)
def test_a_public_tokenizer_of_another_family_is_named(there: str) -> None:
    """Not by each of the dozen fields in which two families differ."""
    found = state.Checkpoint(Path("a.pt"), 0, Config(tokenizer=FAMILIES[there]), (), {"tokenizer.x": torch.zeros(1)})
    initial.fits_tokenizer(found, Config(tokenizer=replace(FAMILIES[there], init="a.pt")))
    for here in FAMILIES.keys() - {there}:
        said = rf"^a\.pt holds {there}, and this configuration asks for {here}: change .* or tokenizer\.init\.$"
        with pytest.raises(CheckpointError, match=said):
            initial.fits_tokenizer(found, Config(tokenizer=FAMILIES[here]))


def test_init_from_nowhere(tiny: Config, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no checkpoint at"):
        groups(with_tokenizer(tiny, init=str(tmp_path / "none")))


def test_init_from_a_recipe_that_was_not_run(tiny: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    said = "no checkpoint at runs/warmup-vq yet; `gear train warmup-vq` makes it, or .* tokenizer .*, warmup-vq-16"
    with pytest.raises(CheckpointError, match=said):
        groups(with_tokenizer(tiny, init="runs/warmup-vq"))


# ------------------------------------------------------------------------------------------- the rest


@pytest.mark.parametrize("name", ["toaster", "cuda:99", "cpu:x"])
def test_a_device_that_is_not_there(tiny: Config, name: str) -> None:
    with pytest.raises(ConfigError) as error:
        build.device(replace(tiny, device=name))
    text = str(error.value)
    assert repr(name) in text
    assert "\n" not in text
    assert len(text) < 300


def test_the_generator_has_the_shape_asked_for(tiny: Config) -> None:
    made = build.generator(tiny, classes=5, target_dims={"a": 7})
    assert (made.codebook_size, made.null_label, made.grid, made.tap) == (16, 5, (4, 4), 1)
    states = made(torch.zeros(2, 15, dtype=torch.int64), torch.tensor([0, 5]))
    assert states.projected["a"].shape == (2, 16, 7)


def test_a_pair_is_for_use_only(trained: Path) -> None:
    pair = run.load(trained)
    for module in (pair.tokenizer, pair.generator):
        assert module is not None
        assert not module.training
        assert not any(p.requires_grad for p in module.parameters())
