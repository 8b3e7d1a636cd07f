"""What `gear plan` counts is what the step does: the same counters on real tensors."""

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch

from gear import build, counting, plan, planning, run
from gear.choosing import beginning
from gear.cli import PlanFor
from gear.config import (
    FAMILIES,
    NAMED,
    SIZES,
    Config,
    ConfigError,
    Data,
    Engine,
    Frozen,
    Gear,
    Naive,
    Stage,
    Target,
    Text,
    Warmup,
    grid,
)
from gear.config_json import to_json
from gear.data import builtin, cifar10
from gear.data.shards import Shape, ShardWriter
from gear.planning import _fitting, _time, lines
from gear.prompts import Prompts
from gear.recipes import RECIPES
from gear.step import Batch
from gear.update import frozen

CPU = torch.device("cpu")
STAGES: tuple[Stage, ...] = (Warmup(), Gear(), Gear(readout="straight_through"), Frozen(), Naive())


def started(tiny: Config, stage: Stage, trained: object) -> Config:
    init = str(trained) if isinstance(stage, Frozen) else None
    return replace(tiny, stage=stage, tokenizer=replace(tiny.tokenizer, init=init))


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: type(stage).__name__)
def test_flops_parameters_and_memory_are_those_of_the_step(tiny: Config, trained, stage: Stage) -> None:
    config = started(replace(tiny, generator=replace(tiny.generator, classes=2)), stage, trained)
    counted = plan.plan(config)
    fed = run.supply(config, None, CPU)
    training = build.training(config, 2, fed.dims, CPU)
    training.step(fed.batches(0))
    batch = fed.batches(1)
    alive = counting.Alive(plan._kept(training, batch))
    with counting.counter() as counter, alive, plan._products(config):
        training.step(batch)
    assert counted.flops.get("targets", plan.Flops(0, 0)) + counter.counted() == counted.step
    for group in training.groups:
        own = {"generator": counted.parameters.get("projectors", 0)}.get(group.name, 0)
        assert counted.parameters[group.name] + own == sum(p.numel() for p in group.module.parameters())
    encoder = 4 * 692_688 + 12 if fed.dims else 0  # EfficientNet-Lite0 up to the map, which the kept features leave out
    assert counted.held.total == pytest.approx(alive.at_first + encoder, rel=0.02)
    assert counted.peak == pytest.approx(alive.peak + encoder, rel=0.05)


@pytest.mark.parametrize(("stage", "padding"), [(Gear(), "left"), (Frozen(), "right")], ids=["Gear", "Frozen"])
def test_captions_are_counted_as_the_step_reads_them(tiny: Config, trained, stage: Stage, padding) -> None:
    classes = started(tiny, stage, trained)
    text = Text("minilm", tokens=5, padding=padding)
    config = replace(classes, generator=replace(tiny.generator, classes=None, text=text))
    counted, fed = plan.plan(config), run.supply(classes, None, CPU)
    training = build.training(config, 0, fed.dims, CPU, null=torch.zeros(1, 384))
    batch = fed.batches(0)
    assert isinstance(batch, Batch)
    valid = torch.ones(config.batch, 5, dtype=torch.bool)
    batch = replace(batch, c=Prompts(torch.randn(config.batch, 5, 384).half(), valid))
    training.step(batch)
    alive = counting.Alive(plan._kept(training, batch))
    with counting.counter() as counter, alive, plan._products(config):
        training.step(batch)
    others = counted.flops["targets"] + counted.flops["text"]
    assert others + counter.counted() == counted.step
    read = 2 * 10_616_832 * 5 * config.batch
    assert counted.flops["text"] == plan.Flops(0, read, read)
    encoders = 4 * (692_688 + 22_713_216)
    assert counted.held.total == pytest.approx(alive.at_first + encoders, rel=0.02)
    assert counted.peak == pytest.approx(alive.peak + encoders, rel=0.05)
    warm = plan.plan(replace(config, stage=Warmup(), tokenizer=replace(config.tokenizer, init=None)))
    assert "text" not in warm.flops  # which reads no captions


def test_the_text_to_image_generator_of_the_paper() -> None:
    """LlamaGen-1B with a third of its blocks in two streams, on a batch for a GPU of 80 GB."""
    counted = plan.plan(replace(RECIPES["table02-gear-390k"](), batch=16))
    shown = dict(lines(counted, planning.H100, 0.4))
    assert shown["parameters, generator"] == "1,047,659,040"
    assert shown["parameters, projectors"] == f"{1440 * 2048 + 2048**2 + 2 * 2048 + 2048 * 768 + 768:,}"
    assert counted.flops["text"].total == 2 * 1_409_286_144 * 300 * 16
    blocks = 895_900_320 + 99_550_080 - 36 * 3 * 1440  # both streams, in matrices; norms are counted with them
    rows = 300 + 255
    least = 2 * 3 * 16 * rows * (895_900_320 - 36 * 2 * 1440)  # each row, forward and twice backward
    assert least < counted.flops["generator"].total < 1.35 * 2 * 3 * 16 * rows * blocks


def test_what_frozen_keeps_has_no_memory() -> None:
    """The soft branch runs a copy of the generator's structure; counted as bytes it would be a second generator."""
    net, alive = torch.nn.Linear(64, 64), counting.Alive([])
    with alive:
        frozen(net)(torch.ones(1, 64))
    assert alive.peak < 1.5 * sum(p.nbytes for p in net.parameters())


def test_what_stays_float32_under_bfloat16(tiny: Config, trained) -> None:
    """A frozen tokenizer, the whole of LPIPS and of the soft read-out, and not a product of the rest."""
    low = replace(tiny, precision="bfloat16", targets=(Target("dinov3-s"),))
    full, half = (plan.plan(started(c, Frozen(), trained)) for c in (replace(low, precision="float32"), low))
    assert (full.step.bfloat16, full.step.total) == (0, half.step.total)
    assert half.flops["tokenizer"].bfloat16 == 0
    assert half.flops["generator"].float32 == half.flops["targets"].float32 == 0
    assert half.hours(plan.Rates(4.0, 1.0, 1.0), 0.5) == pytest.approx(
        half.steps * (half.step.bfloat16 / 4 + half.step.float32) / 0.5e12 / 3600
    )

    def warmup(perceptual: float) -> plan.Flops:
        loss = replace(low.tokenizer.loss, perceptual=perceptual)
        return plan.plan(replace(low, stage=Warmup(), tokenizer=replace(low.tokenizer, loss=loss))).step

    lpips = warmup(1.0) - warmup(0.0)
    assert lpips.bfloat16 == 0 < lpips.float32
    soft = plan.plan(low).flops["generator"]
    q, rows = low.tokenizer.quantizer, low.batch * (grid(low) ** 2 - 1)
    # <z, c> forward, again in the backward pass, and its gradients of z and c; softmax(A / tau) E and its gradient
    assert soft.float32 == 2 * rows * q.codebook_size * (4 * q.dim + 2 * low.generator.width)


def test_tf32_does_what_is_float32_but_for_the_assignment(tiny: Config) -> None:
    """Unless it is switched off; and counting leaves the switch as it was."""
    before = torch.get_float32_matmul_precision()
    low = replace(tiny, precision="bfloat16")
    counted, exact = plan.plan(low), plan.plan(replace(low, engine=Engine(tf32=False)))
    assert torch.get_float32_matmul_precision() == before
    on, off = counted.step, exact.step
    assert (on.bfloat16, on.float32, off.tf32) == (off.bfloat16, off.float32, 0)
    assert 0 < on.tf32 < on.float32
    soft = counted.flops["generator"]  # of which all that is float32 is the read-out
    assert (soft.tf32, soft.float32 > 0) == (0, True)
    hours = counted.steps * (on.bfloat16 / 4 + on.tf32 / 2 + on.float32 - on.tf32) / 0.5e12 / 3600
    assert counted.hours(plan.Rates(4.0, 2.0, 1.0), 0.5) == pytest.approx(hours)
    shown, plain = (dict(lines(each, planning.H100, 0.4)) for each in (counted, exact))
    assert shown["TFLOP/s of a GPU"] == "989 in bfloat16, 494 in TF32, 67 in float32 (an H100); 40% reached"
    assert shown["of them in float32"].endswith(" without TF32")
    assert plain["TFLOP/s of a GPU"] == "989 in bfloat16, 67 in float32 (an H100); 40% reached"


def test_more_gpus_share_the_batch(tiny: Config) -> None:
    one, three, same = plan.plan(tiny), plan.plan(tiny, 3), plan.Rates(1.0, 1.0, 1.0)
    assert (three.rows, three.tokens, three.held.total < one.held.total) == (1, one.tokens, True)
    assert three.peak < one.peak
    assert three.parameters == one.parameters
    assert three.step.total == pytest.approx(one.step.total, rel=0.01)
    assert three.hours(same, 0.5) == pytest.approx(one.hours(same, 0.5) / 3, rel=0.01)
    assert one.hours(plan.Rates(9.0, 2.0, 2.0), 0.25) == pytest.approx(
        6 * one.step.total / 0.5e12 / 3600
    )  # all of it is float32
    assert three.held == replace(one.held, batch=three.held.batch)
    with pytest.raises(ConfigError, match="batch = 3 must be a multiple of 2 GPUs"):
        plan.plan(tiny, 2)


def test_stored_codes_leave_only_the_generator(tiny: Config, trained, tmp_path: Path) -> None:
    """Targets run if an index says that their features are not stored; without one they are taken to be."""
    live = started(replace(tiny, targets=(Target("efficientnet_lite0"), Target("dinov3-s"))), Frozen(), trained)
    live = replace(live, generator=replace(live.generator, classes=None))
    stored = replace(live, data=replace(live.data, codes=str(tmp_path)))
    a, b = plan.plan(live), plan.plan(stored)
    assert a.flops.keys() == {"tokenizer", "generator", "targets"}
    assert b.flops == {"generator": a.flops["generator"]}
    assert "dinov3-s" not in b.parameters
    assert b.held.fixed < a.held.fixed
    for features in ({"efficientnet_lite0": 112}, {"efficientnet_lite0": 112, "dinov3-s": 384}):
        codes = ShardWriter(
            tmp_path / str(len(features)), {"classes": ["one", "two"]}, Shape(2, 1, 2, 16, 16, features)
        )
        given = {name: torch.zeros(2, 1, 2, 16, channels) for name, channels in features.items()}
        codes.add(np.arange(2), torch.zeros(2, 1, 2, 16, dtype=torch.long), torch.zeros(2, dtype=torch.long), given)
    c, d = (plan.plan(replace(live, data=replace(live.data, codes=str(tmp_path / name)))) for name in "12")
    assert c.flops == {"generator": a.flops["generator"], "targets": a.flops["targets"]}
    assert d.flops == b.flops
    assert b.parameters["generator"] - d.parameters["generator"] == (plan.CLASSES - 2) * live.generator.width


def test_classes_of_the_data_sets_known_by_name(tiny: Config) -> None:
    assert plan.KNOWN.keys() == set(NAMED)
    assert plan.KNOWN["builtin"] == plan.KNOWN["emoji"] == len(builtin.images().classes)
    assert plan.KNOWN["cifar10"] == len(cifar10.CLASSES)
    ten, many = (plan.plan(replace(tiny, data=replace(tiny.data, path=path))) for path in ("cifar10", "elsewhere"))
    assert many.parameters["generator"] - ten.parameters["generator"] == (plan.CLASSES - 10) * tiny.generator.width


@pytest.mark.parametrize(
    ("hours", "said"),
    [(4e-6, "0.0144 seconds"), (0.01, "36 seconds"), (0.5, "30 minutes"), (18.5, "18.5 hours"), (2400.0, "100 days")],
)
def test_times_are_said_in_a_unit_that_fits(hours: float, said: str) -> None:
    assert _time(hours) == said


def test_paper_scale_without_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """GEAR-B with LFQ-16 and DINOv2-B: numbers that are known otherwise (Table 18, appendix A of LlamaGen)."""
    monkeypatch.setattr(build, "weights", None)
    monkeypatch.setattr(build, "sources", None)
    tokenizer = replace(FAMILIES["LFQ-16"], init="runs/warmup-lfq")
    config = Config(stage=Frozen(), tokenizer=tokenizer, generator=SIZES["B"], data=Data(path="nowhere"), batch=2)
    counted = plan.plan(config)
    assert counted.parameters["tokenizer"] == 115_094_033
    assert (counted.parameters["generator"], counted.parameters["projectors"]) == (110_888_448, 7_344_896)
    assert counted.parameters["dinov2-b"] == pytest.approx(86.6e6, rel=1e-3)
    matrices = 110_888_448 - 1001 * 768 - 16384 * 768  # embeddings are looked up
    assert counted.flops["generator"].total > 6 * matrices * counted.tokens
    assert counted.flops["generator"].total < 1.2 * (6 * (matrices + 7_344_896) * counted.tokens)
    shown = dict(lines(counted, planning.H100, 0.4))
    assert shown["parameters, tokenizer"] == "115,094,033"
    moving, held = 110_888_448 + 7_344_896, counted.held
    assert held.optimizer == 2 * 4 * moving
    assert held.moving == pytest.approx(4 * moving, rel=0.01)  # and the rotary tables
    assert held.averages == held.moving + 8  # and how many there were
    assert held.fixed == pytest.approx(4 * (115_094_033 + counted.parameters["dinov2-b"]), rel=0.01)
    assert shown["memory, optimiser states"] == "0.946 GB"
    assert shown["it fits"].startswith("on a GPU of 16 GB")


def test_the_size_of_gpu() -> None:
    assert _fitting(int(14.3e9)).startswith("on a GPU of 16 GB, 10% left")
    assert _fitting(int(14.5e9)).startswith("on a GPU of 24 GB")
    assert _fitting(int(300e9)) == "on no single GPU (333 GB): more GPUs, smaller batch or --engine.accumulate"


def test_what_would_fit_a_common_gpu(tiny: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """Recomputing where that suffices, else sharding; nothing where the plan fits, or nothing would do."""
    counted = lru_cache(plan.plan)
    monkeypatch.setattr(planning, "plan", counted)  # each count takes seconds
    config = replace(tiny, batch=8, generator=replace(tiny.generator, layers=4))
    engines = (Engine(), Engine(recompute=True), Engine(shard=True))
    plain, again, sharded = (counted(replace(config, engine=engine), 2) for engine in engines)

    def said(peak: int) -> str:
        monkeypatch.setattr(planning, "COMMON", peak / 0.9e9 + 1e-9)
        return planning.smaller(config, plain)

    assert sharded.peak < again.peak < plain.peak
    assert said(plain.peak) == said(1000) == ""
    assert said(again.peak).startswith("; with --engine.recompute on one of")
    assert said(sharded.peak).startswith("; with --engine.shard on one of")


def test_a_step_takes_no_less_than_its_launches(tiny: Config) -> None:
    counted = plan.plan(tiny)
    low = plan.Rates(1e-3, 1e-3, 1e-3)
    fast, slow = (dict(lines(counted, rates, 0.4))["it takes"] for rates in (planning.H100, low))
    assert fast.startswith("at least 0.06 seconds: a step's launches take 10 ms or more")
    assert slow == _time(counted.hours(low, 0.4))


def test_the_speeds_that_are_said_to_be_an_h100s_are_those_of_the_command() -> None:
    assert planning.Rates(PlanFor.tflops, PlanFor.tflops_tf32, PlanFor.tflops32) == planning.H100


@pytest.mark.parametrize(
    ("name", "count"),
    [("demo-text", 1), ("folder-text-256", 1), ("imagenet-b-24gb", 1), ("gear-l", 8), ("t2i-gear-joint", 8)],
)
def test_a_recipe_is_planned_for_the_gpus_it_is_for(name: str, count: int, tmp_path: Path) -> None:
    start = beginning("plan", [name], "")
    assert start is not None
    assert start.gpus == count
    (tmp_path / "config.json").write_text(to_json(replace(start.config, device="cpu")))
    again = beginning("plan", [str(tmp_path / "config.json")], "")
    assert again is not None
    assert again.gpus == count


@pytest.mark.parametrize(
    ("target", "resolution"), [(Target("siglip2-b"), 384), (Target("dinov2-b", layer=13), 256)], ids=["grid", "layer"]
)
def test_a_target_that_cannot_be_is_refused_as_the_run_would(target: Target, resolution: int) -> None:
    config = Config(stage=Gear(), targets=(target,), data=Data(path="nowhere", resolution=resolution))
    with pytest.raises(ValueError, match=r"16 x 16 tokens and no others|has no layer 13") as planned:
        plan.plan(config)
    with pytest.raises(ValueError, match="The target") as started:
        build.require(config)
    assert str(planned.value) == str(started.value)


def test_engines_change_memory_and_not_the_work(tiny: Config) -> None:
    """Parts: no more than one part's activations. Recomputed: fewer, for more work. Sharded: a part of each state."""
    config = replace(tiny, batch=8, generator=replace(tiny.generator, layers=4))
    plain, parts, again, sharded = (
        plan.plan(replace(config, engine=engine), 2)
        for engine in (Engine(), Engine(accumulate=4), Engine(recompute=True), Engine(shard=True))
    )
    assert parts.step == plain.step
    assert parts.held == plain.held
    assert parts.peak < plain.peak
    assert again.peak < plain.peak
    assert again.step.total > plain.step.total
    half = 2 * (plain.parameters["generator"] + plain.parameters["projectors"])
    assert plain.held.optimizer - sharded.held.optimizer == 2 * half
    assert plain.held.averages - sharded.held.averages == half
    with pytest.raises(ConfigError, match=r"batch = 8 must be a multiple of 2 GPUs times engine\.accumulate = 8"):
        plan.plan(replace(config, engine=Engine(accumulate=8)), 2)
