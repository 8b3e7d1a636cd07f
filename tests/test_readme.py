"""The README's commands run, and what it names exists."""

import re
import shlex
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.distributed.run import get_args_parser

from gear.choosing import beginning, fields
from gear.cli import Train, main
from gear.config_check import check
from gear.evaluate import inception, reference

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
COMMANDS = [
    line.split("#")[0].strip()
    for block in re.findall(r"```bash\n(.*?)```", README, re.S)
    for line in block.splitlines()
]
CAPTIONED = (
    "gear demo --text",
    "gear train folder-text-256",
    "gear sample RUN",
    "gear evaluate geneval RUN",
    "gear evaluate sweep RUN",
)
GEAR = [c for c in COMMANDS if c.startswith("gear ") and not c.startswith(CAPTIONED)]
TEXT = [c for c in COMMANDS if c.startswith(CAPTIONED)]


def test_the_two_commands_are_targets_of_the_makefile():
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M)
    named = re.findall(r"\bmake ([a-z]+)", README)
    assert {"demo", "test"} <= set(named) <= set(targets)
    assert [c for c in COMMANDS if c.startswith("make")] == ["make demo", "make test"]


def test_files_it_names_exist():
    named = set(re.findall(r"`((?:gear|scripts|tests|bench)/[\w/.]+|[A-Z]+\.md|NOTICE|Makefile)`", README))
    assert len(named) > 10
    assert not [name for name in named if not (ROOT / name).exists()]


def test_nothing_is_left_to_fill_in():
    assert not re.findall(r"@[A-Z]+@|TODO|TBD", README)


def exit_code(arguments: list[str]) -> object:
    try:
        main(arguments)
    except SystemExit as end:  # --help and doctor end so, with 0
        return end.code or 0
    return 0


class Means(inception.FidInception):
    """In place of the Inception network of FID: means over the image and its quarters."""

    name, file, channels = "means", Path("means"), {"pool": 3, "spatial": 12}

    def __init__(self):
        nn.Module.__init__(self)
        self.weight = nn.Parameter(torch.ones(1), requires_grad=False)

    def forward(self, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        x = pixels.float() / 255
        return {"pool": x.mean((2, 3)), "spatial": nn.functional.adaptive_avg_pool2d(x, 2).flatten(1)}

    def about(self) -> dict[str, str]:
        return {"name": self.name, "sha256": "00"}


def test_commands_then_its_python_run_in_their_order(images_folder, tmp_path, monkeypatch, capsys):
    """As written, but for the placeholders, two steps instead of hundreds, and demo/gear being what these made."""
    monkeypatch.chdir(tmp_path)
    folder = shlex.quote(str(images_folder))
    shorter = {
        "gear train demo ": " --steps 2 --batch 4 --out demo/gear",
        "gear sample": " --n 4",
        "gear encode": f" --data.path {folder}",
        "gear evaluate adm": " --n 8",  # of the two the later counts
        "gear evaluate sweep": " --n 8 --scales 1 2",
        "gear probe": " --n 8 --k 3",
    }
    monkeypatch.setattr(inception, "opened", Means)  # the network is fetched
    monkeypatch.setattr(reference, "SIZES", Means.channels)
    assert len(GEAR) == 19
    for command in GEAR:
        more = next((options for start, options in shorter.items() if command.startswith(start)), "")
        command = command.replace("FOLDER", folder).replace("IMAGES...", folder) + more
        assert exit_code(shlex.split(command)[1:]) == 0, f"{command}: {capsys.readouterr().err}"
    measured = [
        next(tmp_path.glob(f"demo/gear/evaluations/{name}-*/results.json"))
        for name in ("adm", "reconstruction", "sweep")
    ]
    pictures = ("demo/gear/samples.png", "demo/gear/reconstructions.png", "figures/figure5.png")
    for made in (*pictures, *measured, "demo/gear/probe.json", "codes/index.json"):
        assert (tmp_path / made).stat().st_size > 100
    said = capsys.readouterr().out
    for expected in ("dB", "cifar10", "table05-tau-0.5", "GPU hours", "--data.codes codes", "gfid", "CKNNA"):
        assert expected in said
    for block in re.findall(r"```python\n(.*?)```", README, re.S):
        exec(block, {})
    said = capsys.readouterr().out
    for expected in ("(2, 64) (2, 3, 64, 64)", "align_soft"):
        assert expected in said
    assert "nan" not in said


@pytest.mark.parametrize("command", TEXT)
def test_what_it_says_of_captions_is_understood(command, capsys):
    """The commands themselves need a text encoder that is fetched, or days."""
    _, name, *args = shlex.split(command)
    if name == "train":
        start = beginning("train", args, "")
        assert start is not None
        asked = fields("train", start, args, Train(start.config, start.out))
        assert check(asked.config).generator.text is not None
        assert len(asked.config.data.mixture) == command.count("--mix")
        return
    assert exit_code([name, *args[: name == "evaluate"], "--help"]) == 0
    shown = capsys.readouterr().out
    assert [option for option in args if option.startswith("--") and option not in shown] == []


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("torchrun ") and "evaluate" in c])
def test_torchrun_leaves_an_evaluation_its_own_options(command):
    """Else it takes --n for the beginning of one of its own, --nnodes or --nproc-per-node."""
    asked = get_args_parser().parse_args(shlex.split(command)[1:])
    assert (asked.module, asked.training_script, asked.nproc_per_node) == (True, "gear", "8")
    assert "--n" in asked.training_script_args
    assert exit_code([*asked.training_script_args, "--help"]) == 0


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("torchrun ") and " -m gear train " in c])
def test_what_it_starts_on_several_gpus_is_understood(command):
    launcher, _, arguments = command.partition(" -m gear train ")
    assert launcher == "torchrun --nproc-per-node 8"
    args = shlex.split(arguments)
    start = beginning("train", args, "")
    assert start is not None
    asked = fields("train", start, args, Train(start.config, start.out))
    check(asked.config)
    assert str(asked.out) == args[-1]
    assert asked.config.engine.shard == ("--engine.shard" in args)
    assert asked.config.batch % 8 == 0


@pytest.mark.parametrize("option", re.findall(r"(--[\w-]+)", " ".join(re.findall(r"gear sample[^\n]*", README))))
def test_options_of_sample_it_names_exist(option, capsys):
    with pytest.raises(SystemExit) as end:
        main(["sample", "--help"])
    assert end.value.code == 0
    assert option in capsys.readouterr().out
