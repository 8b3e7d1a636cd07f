"""The schema: refused in one sentence, and the same after a trip through JSON."""

import dataclasses
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gear.config import (
    IBQ,
    LFQ,
    MAGVIT2,
    SIZES,
    VQ,
    Config,
    ConfigError,
    Frozen,
    Gear,
    Naive,
    Quantizer,
    Stage,
    Target,
    Warmup,
    grid,
)
from gear.config_check import check
from gear.config_json import differences, from_json, read, to_json
from gear.recipes import RECIPES

STAGES: tuple[Stage, ...] = (Warmup(), Gear(0.2, 0.3, "straight_through"), Frozen(0.1), Naive(0.4, 0.5))
QUANTIZERS: tuple[Quantizer, ...] = (VQ(32, 4), LFQ(5), IBQ(64, 16))


def changed(config: Config, field: str, value: object) -> Config:
    """A copy with one field, named as on the command line, set to `value`."""

    def inside(owner: Any, names: list[str]) -> Any:
        name, *rest = names
        return replace(owner, **{name: inside(getattr(owner, name), rest) if rest else value})

    return inside(config, field.split("."))


# ------------------------------------------------------------------------------------------------------------ JSON


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_possible_and_survives_json(name: str) -> None:
    config = RECIPES[name]()
    assert check(config) is config
    again = from_json(to_json(config))
    assert again == config
    assert differences(again, config) == []


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("quantizer", QUANTIZERS)
def test_every_member_of_a_union_survives_json(stage: Stage, quantizer: Quantizer) -> None:
    config = changed(changed(Config(stage=stage), "tokenizer.quantizer", quantizer), "tokenizer.init", "runs/warmup")
    again = from_json(to_json(config))
    assert again == config
    assert type(again.stage) is type(stage)
    assert type(again.tokenizer.quantizer) is type(quantizer)
    assert again.tokenizer.backbone.multipliers == (1, 1, 2, 2, 4)  # a tuple again, not a list
    assert hash(again) == hash(config)


def test_whole_numbers_may_stand_for_real_ones() -> None:
    value = json.loads(to_json(Config()))
    value["stage"]["lam"] = 1
    lam = from_json(json.dumps(value)).stage
    assert isinstance(lam, Gear)
    assert type(lam.lam) is float


def edited(edit: Callable[[Any], object]) -> str:
    value = json.loads(to_json(Config()))
    edit(value)
    return json.dumps(value)


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda c: c.update(novelty=1), "the configuration has no field 'novelty'; its fields are stage, tokenizer,"),
        (
            lambda c: c["stage"].update(sigma=1),
            "stage has no field 'sigma'; its fields are tau, lam, readout, lam_soft.",
        ),
        (lambda c: c["stage"].update(kind="Magic"), "'Warmup' or 'Gear' or 'Frozen' or 'Naive'; it is 'Magic'."),
        (lambda c: c["data"].pop("kind"), "data.kind must be 'Data'; it is None."),
        (lambda c: c["tokenizer"]["quantizer"].update(kind="LFQ"), "tokenizer.quantizer has no field 'codebook_size'"),
        (lambda c: c.update(data="builtin"), "data must be an object with its fields; it is 'builtin'."),
        (lambda c: c.update(steps="many"), "steps must be int; it is 'many'."),
        (lambda c: c.update(steps=1.5), "steps must be int; it is 1.5."),
        (lambda c: c.update(steps=True), "steps must be int; it is True."),
        (lambda c: c["stage"].update(tau="0.1"), "stage.tau must be float; it is '0.1'."),
        (lambda c: c["data"].update(flip=1), "data.flip must be bool | None; it is 1."),
        (lambda c: c["generator"].update(text="minilm"), "generator.text must be an object with its fields"),
        (lambda c: c.update(precision="float16"), "precision must be 'float32' or 'bfloat16'; it is 'float16'."),
        (lambda c: c["generator"].update(classes="all"), "generator.classes must be int | None; it is 'all'."),
        (lambda c: c["tokenizer"]["backbone"].update(multipliers=2), "tokenizer.backbone.multipliers must be"),
        (lambda c: c["tokenizer"]["backbone"].update(multipliers=[1, "2"]), "multipliers[1] must be int; it is '2'."),
    ],
)
def test_a_wrong_field_is_one_sentence(edit: Callable[[Any], object], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        from_json(edited(edit))
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null"])
def test_what_is_no_configuration_at_all(text: str) -> None:
    with pytest.raises(ConfigError, match=r"the configuration (is not JSON|must be an object)"):
        from_json(text)


def test_fields_left_out_have_their_defaults() -> None:
    """A configuration by hand can be short, and one of an older version lacks what is new."""
    short = '{"kind": "Config", "stage": {"kind": "Gear", "tau": 0.5}, "targets": [{"kind": "Target", "layer": 9}]}'
    assert from_json(short) == Config(stage=Gear(tau=0.5), targets=(Target(layer=9),))


def test_differences_inside_a_list_are_named() -> None:
    other = Config(targets=(Target("dinov3-b"),))
    assert differences(Config(), other) == ["targets[0].name: dinov2-b -> dinov3-b"]
    assert len(differences(Config(), Config(targets=(Target(), Target("clip-l"))))) == 1


def test_the_aligned_block_is_a_third_of_the_depth() -> None:
    assert {name: size.aligned_block for name, size in SIZES.items()} == {
        "S": 4, "B": 4, "L": 8, "XL": 12, "1B": 12, "XXL": 16, "XXXL": 16,
    }  # fmt: skip
    assert changed(Config(), "generator.tap", 5).generator.aligned_block == 5
    assert changed(Config(), "generator.layers", 2).generator.aligned_block == 1


def test_a_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text(to_json(Config()))
    assert read(file) == Config()
    for content in (b"{", b"\xff\xfe\x00"):
        file.write_bytes(content)
        with pytest.raises(ConfigError, match=f"{file} cannot be used"):
            read(file)
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "none.json")


# ------------------------------------------------------------------------------------------------------------ check


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("data.resolution", 250, "a multiple of 16, .* (the nearest is 256); it is 250"),
        ("data.resolution", 3, "(the nearest is 16); it is 3"),
        ("data.resolution", 0, "data.resolution must be a multiple of 16"),
        ("data.resolution", -16, "data.resolution must be a multiple of 16"),
        ("data.holdout", 1.0, "data.holdout must be in [0, 1)"),
        ("generator.tap", 25, "between 1 and generator.layers = 24; it is 25"),
        ("generator.tap", 0, "between 1 and generator.layers = 24; it is 0"),
        ("generator.heads", 0, "generator.heads must be at least 1"),
        ("generator.heads", 3, "generator.width must be a multiple of generator.heads = 3"),
        ("generator.heads", 512, "must be a multiple of 4, .*; it is 2"),
        ("generator.class_drop", 1.0, "generator.class_drop must be in [0, 1)"),
        ("generator.dropout", -0.1, "generator.dropout must be in [0, 1)"),
        ("generator.projector", 0, "generator.projector must be at least 1"),
        ("tokenizer.quantizer", VQ(1, 8), "codebook_size must be at least two codewords; it is 1"),
        ("tokenizer.quantizer", IBQ(8, 0), "at least one dimension; it is 0"),
        ("tokenizer.quantizer", LFQ(0), "at least one dimension; it is 0"),
        (
            "tokenizer.backbone.channels",
            100,
            "channels * multipliers[0] must be a multiple of .*groups = 32; it is 100",
        ),
        ("tokenizer.backbone.groups", 0, "tokenizer.backbone.groups must be at least 1"),
        ("tokenizer.backbone.patch", 0, "tokenizer.backbone.patch must be at least 1"),
        ("tokenizer.backbone.multipliers", (), "one or more, all at least 1"),
        ("tokenizer.backbone.multipliers", (1, 0), "one or more, all at least 1"),
        ("tokenizer.critic.layers", 0, "tokenizer.critic.layers must be at least 1"),
        ("tokenizer.loss.adversarial", -0.1, "tokenizer.loss.adversarial must be 0 or more"),
        ("tokenizer.loss.entropy_temperature", 0.0, "entropy_temperature must be above 0"),
        ("stage.tau", 0.0, "stage.tau must be above 0 .*; it is 0.0"),
        ("stage.tau", float("nan"), "stage.tau must be above 0 .*; it is nan"),
        ("stage", Naive(tau=-1.0), "stage.tau must be above 0"),
        ("stage.lam", -1.0, "stage.lam must be 0 or more"),
        ("stage", Frozen(), "tokenizer.init must be a trained tokenizer .*; it is None"),
        ("optimizer.generator_lr", 0.0, "optimizer.generator_lr must be above 0"),
        ("optimizer.clip", 0.0, "optimizer.clip must be above 0"),
        ("optimizer.beta1", 1.0, "optimizer.beta1 must be in [0, 1)"),
        ("optimizer.ema", 1.0, "optimizer.ema must be in [0, 1)"),
        ("optimizer.weight_decay", -1.0, "optimizer.weight_decay must be 0 or more"),
        ("steps", 0, "steps must be at least 1; it is 0"),
        ("batch", 0, "batch must be at least 1"),
        ("log_every", 0, "log_every must be at least 1"),
        ("save_every", -5, "save_every must be at least 1; it is -5"),
        ("seed", -1, "seed must be from 0 to"),
        ("targets", (Target(), Target()), "targets must be different encoders; it is ['dinov2-b', 'dinov2-b']"),
        ("targets", (Target(layer=0),), "targets[0].layer must be at least 1"),
        ("targets", (Target(spatial_norm=1.5),), "targets[0].spatial_norm must be in [0, 1]"),
        ("stage.lam_soft", -0.5, "stage.lam_soft must be 0 or more"),
        ("data.views", 0, "data.views must be at least 1"),
        ("data.views", 10, 'data.views must be unset unless data.crop is "random"; it is 10'),
        ("data.crop", "random", 'data.crop must be "center" for builtin'),
        ("data.workers", -1, "data.workers must be 0 or more"),
        ("data.codes", "codes", "data.codes must be unset unless the tokenizer is frozen"),
        ("tokenizer.backbone", MAGVIT2(blocks=0), "tokenizer.backbone.blocks must be at least 1"),
        ("sampling.top_p", 0.0, "sampling.top_p must be in (0, 1]"),
        ("sampling.cfg_scale", -1.0, "sampling.cfg_scale must be 0 or more"),
        ("sampling.cfg_scale", math.inf, "sampling.cfg_scale must be 0 or more"),
        ("seed", 2**63, "seed must be from 0 to"),
    ],
)
def test_an_impossible_value_is_one_sentence(field: str, value: object, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        check(changed(Config(), field, value))
    text = str(error.value)
    first, _, last = said.partition(".*")
    assert first in text
    assert last in text
    assert "\n" not in text


def test_each_stage_is_asked_for_its_own_fields_only() -> None:
    check(Config(stage=Warmup()))
    check(Config(stage=Gear(lam=0.0)))
    check(changed(Config(stage=Frozen(lam=0.0)), "tokenizer.init", "runs/warmup"))


def test_the_tokens_of_an_image() -> None:
    assert grid(Config()) == 16  # 256 px, 16-fold, Table 16
    assert grid(changed(Config(), "tokenizer.backbone.patch", 2)) == 8


# ------------------------------------------------------------------------------------------------------- differences


def test_differences_name_every_field() -> None:
    assert differences(Config(), Config()) == []
    other = changed(changed(Config(), "stage.tau", 0.5), "tokenizer.backbone.multipliers", (1, 2))
    assert differences(Config(), other) == [
        "stage.tau: 0.1 -> 0.5",
        "tokenizer.backbone.multipliers: [1, 1, 2, 2, 4] -> [1, 2]",
    ]
    kinds = differences(Config(), changed(Config(), "tokenizer.quantizer", LFQ(14)))
    assert kinds[0] == "tokenizer.quantizer.kind: VQ -> LFQ"
    assert "tokenizer.quantizer.bits: None -> 14" in kinds


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(Config) if f.type in (int, str)])
def test_every_plain_field_counts(field: str) -> None:
    value = getattr(Config(), field)
    other = changed(Config(), field, value + 1 if isinstance(value, int) else "other")
    assert [line.split(":")[0] for line in differences(Config(), other)] == [field]
