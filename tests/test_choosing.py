"""From the command line to a configuration: targets said the short way, and help for every field."""

import re
from dataclasses import replace

import pytest

from gear.choosing import beginning, fields
from gear.cli import Train
from gear.config import Config, ConfigError, Part, Target


def chosen(*given: str, config: Config | None = None) -> Config:
    start = beginning("train", ["demo"], "")
    assert start is not None
    start = replace(start, config=config or start.config)
    return fields("train", start, ["demo", *given], Train(start.config, start.out)).config


@pytest.mark.parametrize(
    ("given", "targets"),
    [
        ((), (Target("efficientnet_lite0"),)),
        (("--target", "dinov2-b"), (Target("dinov2-b"),)),
        (("--target.layer", "5"), (Target("efficientnet_lite0", layer=5),)),
        (
            ("--target=dinov2-b", "--target.layer", "9", "--target", "siglip2-b", "--target.spatial-norm", "0.6"),
            (Target("dinov2-b", layer=9), Target("siglip2-b", spatial_norm=0.6)),
        ),
        (
            ("--target", "clip-l", "--target", "resnet50", "--target", "dinov3-s", "--targets.0.layer", "3"),
            (Target("clip-l", layer=3), Target("resnet50"), Target("dinov3-s")),
        ),
    ],
)
def test_targets_in_short(given: tuple[str, ...], targets: tuple[Target, ...]) -> None:
    assert chosen(*given).targets == targets


@pytest.mark.parametrize("given", [("--target.layer", "5", "--target", "dinov2-b"), ("--target.layer=5", "--target=x")])
def test_a_field_of_a_target_that_is_named_after_it(given: tuple[str, ...]) -> None:
    """It would be of one target, and the name of a second one."""
    with pytest.raises(ConfigError, match=r"^--target\.layer came before --target: give --target NAME first"):
        chosen(*given)


@pytest.mark.parametrize(
    ("given", "mixture"),
    [
        (("--mix", "more=0.5", "--mix=a=b=2"), (Part("more", 0.5), Part("a=b", 2.0))),
        (("--mix", "more", "--steps", "3"), (Part("more"),)),
        (("--seed", "3", "--mix=more"), (Part("more"),)),
    ],
)
def test_sets_to_mix(given: tuple[str, ...], mixture: tuple[Part, ...]) -> None:
    assert chosen(*given).data.mixture == mixture


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--mix", "pairs", "1"), r"write FOLDER=WEIGHT, --mix pairs=1\."),
        (("--mix", "pairs=half"), "the weight is 'half'"),
        (("--mix",), "no folder came"),
        (("--mix", "--steps", "3"), "no folder came"),
        (("--mix", "=2"), "no folder came"),
    ],
)
def test_sets_that_cannot_be_mixed(given: tuple[str, ...], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        chosen(*given)


def test_more_targets_leave_those_that_a_configuration_has(tiny: Config) -> None:
    two = replace(tiny, targets=(Target("clip-l", layer=2), Target("resnet50")))
    assert chosen("--target", "dinov2-b", config=two).targets == (Target("dinov2-b", layer=2), Target("resnet50"))


def test_every_field_has_help(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """tyro takes it from the comment on the field's line, and finds none where a formatter has wrapped the line."""
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        chosen("--help", config=Config())
    said = capsys.readouterr().out.replace("\u2502", " ")
    options = re.findall(r"^ +(--[\w.-]+)(.*?)\(default: ", said, re.DOTALL | re.MULTILINE)
    assert len(options) > 60
    for option, between in options:
        words = re.sub(r"\{.*?\}|[A-Z|]{2,}|--[\w.-]+", "", between, flags=re.DOTALL).split()
        assert len(words) > 1, f"{option} has no help"


@pytest.mark.parametrize("given", [("--help",), ("demo-text", "--help")])
def test_help_says_the_short_forms_in_80_columns(
    given: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also --mix, whose field tyro leaves out as long as it is empty."""
    monkeypatch.setenv("COLUMNS", "80")
    if (start := beginning("train", given, "")) is not None:
        with pytest.raises(SystemExit):
            fields("train", start, given, Train(start.config, start.out))
    said = capsys.readouterr().out
    assert "`--mix FOLDER=WEIGHT`" in said
    assert "`--target NAME`" in said
    assert "data.mixture" in said
    assert max(map(len, said.splitlines())) <= 80
