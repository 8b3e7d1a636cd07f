"""Every recipe: its name, what its docstring says, what it starts from, and that none needs torch."""

import re
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from gear.cli import main
from gear.config import NAMED, Config, Data, Frozen, Sampling, Watch
from gear.recipes import RECIPES, ROWS, demo, name_of, registry, run_of
from gear.store.networks import WEIGHTS

ROOT = Path(__file__).parent.parent.parent


def doc(name: str) -> str:
    return RECIPES[name].__doc__ or ""


def flat(name: str) -> str:
    """The docstring in one line."""
    return " ".join(doc(name).split())


@pytest.fixture
def empty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A registry without recipes."""
    for name in ("RECIPES", "ROWS", "GROUP", "_RUN"):
        monkeypatch.setattr(registry, name, {})


def test_names_are_easy_to_type_and_what_they_are_called_in_python() -> None:
    for name, function in RECIPES.items():
        assert re.fullmatch(r"[a-z][a-z0-9.-]*", name)
        assert function.__name__ == name.replace("-", "_").replace(".", "_")
        assert len(name) <= 28, name  # the widest column of `gear recipes`


def test_the_commands_of_a_docstring_are_some() -> None:
    for name in RECIPES:
        assert f"- Command: `gear train {name}`" in flat(name)
        for other in re.findall(r"`gear (?:train|plan) (\S+?)`", flat(name)):
            assert other in RECIPES, (name, other)


@pytest.mark.parametrize("name", ["gear-l", "table05-tau-0.05", "table10-vjepa2.1-gear", "folder-128-laptop"])
def test_the_command_line_takes_the_names(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["train", name, "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert end.value.code in (None, 0)
    assert f"usage: gear train {name} " in said
    assert f"runs/{name})" in said  # the folder by default
    assert f"(default: {RECIPES[name]().steps})" in said
    assert flat(name) in said


@pytest.mark.parametrize("name", RECIPES)
def test_a_docstring_says_the_cost_and_the_numbers(name: str) -> None:
    config = RECIPES[name]()
    assert f"Cost: {config.steps:,} steps of {config.batch} images" in flat(name)
    assert (config.data.path in NAMED) != (f"images: {config.data.path}, or --data.path FOLDER" in flat(name))
    if name in ROWS:
        assert f"Paper, Table {ROWS[name].table}, {ROWS[name].label}:" in flat(name)
        numbers = {
            float(number) for number in re.findall(r"(?<=[a-zA-Z] )\d+\.?\d*", flat(name).partition("- Paper")[2])
        }
        assert {v for g in ROWS[name].generated.values() for v in vars(g).values()} <= numbers
        assert set(vars(ROWS[name].rebuilt).values() if ROWS[name].rebuilt else ()) <= numbers
    else:
        assert "Paper" not in flat(name).replace("PAPER", "")


@pytest.mark.parametrize("name", RECIPES)
def test_a_docstring_says_what_reads_captions(name: str) -> None:
    text = RECIPES[name]().generator.text
    said = {"minilm": "gear fetch minilm", "qwen3-1.7b": "hf download Qwen/Qwen3-1.7B"}
    assert flat(name).count("`pip install 'gear[text]'`") == (text is not None)
    assert text is None or f"- Captions: once `pip install 'gear[text]'` and `{said[text.encoder]}`." in flat(name)


@pytest.mark.parametrize("name", RECIPES)
def test_a_docstring_is_readable_as_help(name: str) -> None:
    """The command line's help wraps no line, and joins one that begins with a letter to the line before."""
    first, *rest = doc(name).split("\n")
    assert first.endswith(".")
    assert len(first) <= 60
    assert rest[0] == ""
    for before, line in pairwise(rest):
        assert not (before and line[:1].isalpha())
        assert line.count("`") % 2 == 0  # a command stands in one line, to be copied
    assert max(map(len, rest)) < 80


def test_exact_docstrings() -> None:
    assert doc("table13-resolution-256-gear") == (
        "GEAR-L at 256 px.\n"
        "\n"
        "- Command: `gear train table13-resolution-256-gear`; images: imagenet/train, or\n"
        "  --data.path FOLDER.\n"
        "- First: `gear train warmup-vq`, or the authors' own: --tokenizer.init\n"
        "  warmup-vq-16.\n"
        "- The same run as table10-dinov2-gear, sampled with\n"
        "  `gear sample runs/table10-dinov2-gear --cfg-scale 1.5`: no need to train it\n"
        "  again.\n"
        "- Cost: 100,000 steps of 256 images, 20.0 epochs;\n"
        "  `gear plan table13-resolution-256-gear` says the GPU hours and the memory.\n"
        "- Paper, Table 13, 256 +GEAR:\n"
        "  without guidance: gFID 16.837, sFID 5.408, IS 65.098, precision 0.67, recall\n"
        "    0.611\n"
        "  with guidance 1.5: gFID 5.492, sFID 5.167, IS 157.681, precision 0.822,\n"
        "    recall 0.511"
    )
    assert doc("demo-llamagen") == (
        "LlamaGen beside demo.\n"
        "\n"
        "- Frozen tokenizer, no alignment.\n"
        "- Command: `gear train demo-llamagen`.\n"
        "- Cost: 550 steps of 32 images; `gear plan demo-llamagen` says the GPU hours\n"
        "  and the memory."
    )


@pytest.mark.parametrize("name", RECIPES)
def test_what_a_recipe_starts_from_is_there_and_fits(name: str) -> None:
    """A run of another recipe with the same networks, a file that `gear fetch` knows, or what is shipped."""
    config = RECIPES[name]()
    init = config.tokenizer.init
    if init is None:
        assert not isinstance(config.stage, Frozen)
    elif init.startswith("runs/"):
        before = RECIPES[init.removeprefix("runs/")]()
        assert not isinstance(before.stage, Frozen)  # it trained a tokenizer
        assert run_of(init.removeprefix("runs/")) == init.removeprefix("runs/")
        for field in ("quantizer", "backbone", "critic"):
            assert getattr(before.tokenizer, field) == getattr(config.tokenizer, field)
        assert f"- First: `gear train {init.removeprefix('runs/')}`" in flat(name)
    elif init == "demo/gear":  # as `gear demo` leaves it, by the recipe demo
        for field in ("quantizer", "backbone", "critic"):
            assert getattr(demo().tokenizer, field) == getattr(config.tokenizer, field)
        assert "- First: `gear demo`." in flat(name)
    else:
        assert init == "builtin" or init in {weight.name for weight in WEIGHTS}
    assert config.generator.init is None


def test_published_files_stand_for_runs_of_recipes() -> None:
    assert set(registry.PUBLISHED.values()) <= {weight.name for weight in WEIGHTS}
    assert {run.removeprefix("runs/") for run in registry.PUBLISHED} <= set(RECIPES)


def test_runs_that_are_the_same() -> None:
    assert run_of("table03-gear") == "table02-gear-390k"
    assert run_of("table05-tau-0.1") == run_of("table14-cfg-1.5") == run_of("gear-l") == "gear-l"
    assert run_of("table13-resolution-256") == "table10-dinov2"
    assert run_of("table11-layer-8") == "table10-dinov2"
    assert run_of("table05-tau-0.5") == "table05-tau-0.5"
    assert run_of("table07-gear") == "gear-l"
    for name in RECIPES:
        assert run_of(run_of(name)) == run_of(name)


@pytest.mark.usefixtures("empty")
def test_names_from_functions() -> None:
    def table99_tau_0_25() -> Config:
        """A row."""
        return Config()

    def folder_16_b2_1() -> Config:
        """No row."""
        return Config(data=Data("cifar10"), sampling=Sampling(2.0))

    registry.row(99, "tau", {1.0: (1.0, 2.0, 3.0, 0.4, 0.5)})(table99_tau_0_25)
    registry.recipe("own")(folder_16_b2_1)
    registry.complete()
    assert list(registry.RECIPES) == ["table99-tau-0.25", "folder-16-b2.1"]
    assert registry.ROWS["table99-tau-0.25"].generated[1.0] == registry.Generated(1.0, 2.0, 3.0, 0.4, 0.5)
    assert list(registry.ROWS) == ["table99-tau-0.25"]
    assert registry.GROUP == {"table99-tau-0.25": 99, "folder-16-b2.1": "own"}
    with pytest.raises(ValueError, match=r"two recipes called folder-16-b2\.1"):
        registry.recipe("own")(folder_16_b2_1)


def test_recipes_stay_functions() -> None:
    assert demo is RECIPES["demo"]
    assert demo().steps == 550


def test_recipes_need_no_torch() -> None:
    code = "import sys, gear.recipes, gear.recipes.listing; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


@pytest.mark.parametrize("name", RECIPES)
def test_a_configuration_is_known_by_its_recipe(name):
    """Wherever it was run; recipes that train the same run are one."""
    config = RECIPES[name]()
    elsewhere = replace(config, device="cpu", log_every=7, sampling=Sampling(3.0), watch=Watch(sample_every=0))
    if config.data.path not in NAMED:
        elsewhere = replace(elsewhere, data=replace(config.data, path="/somewhere/else", workers=1))
    found = name_of(elsewhere)
    assert found is not None
    assert run_of(found) == run_of(name)
    assert name_of(replace(config, seed=config.seed + 1)) is None
    assert name_of(replace(config, steps=config.steps + 1)) is None
