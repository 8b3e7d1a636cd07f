"""The README's commands run, and what it names exists."""

import re
import shlex
from pathlib import Path

import pytest

from gear.cli import main

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
COMMANDS = [
    line.split("#")[0].strip()
    for block in re.findall(r"```bash\n(.*?)```", README, re.S)
    for line in block.splitlines()
]
GEAR = [command for command in COMMANDS if command.startswith("gear ")]


def test_the_two_commands_are_targets_of_the_makefile():
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M)
    named = re.findall(r"\bmake ([a-z]+)", README)
    assert {"demo", "test"} <= set(named) <= set(targets)
    assert [c for c in COMMANDS if c.startswith("make")] == ["make demo", "make test"]


def test_files_it_names_exist():
    named = set(re.findall(r"`((?:gear|scripts|tests|bench)/[\w/.]+|[A-Z]+\.md|NOTICE|Makefile)`", README))
    assert len(named) > 10
    assert not [name for name in named if not (ROOT / name).exists()]


def test_its_python_runs(capsys):
    for block in re.findall(r"```python\n(.*?)```", README, re.S):
        exec(block, {})
    said = capsys.readouterr().out
    assert "align_soft" in said
    assert "nan" not in said


def test_nothing_is_left_to_fill_in():
    assert not re.findall(r"@[A-Z]+@|TODO|TBD", README)


def exit_code(arguments: list[str]) -> object:
    try:
        main(arguments)
    except SystemExit as end:  # --help and doctor end so, with 0
        return end.code or 0
    return 0


def test_commands_run_in_their_order(images_folder, tmp_path, monkeypatch, capsys):
    """As written, but for the placeholders, two steps instead of hundreds, and demo/gear being what these made."""
    monkeypatch.chdir(tmp_path)
    shorten = "--steps 2 --batch 4 --out demo/gear"
    replacements = {"FOLDER": str(images_folder), "IMAGES...": str(images_folder)}
    assert len(GEAR) == 6
    for command in GEAR:
        for placeholder, value in replacements.items():
            command = command.replace(placeholder, shlex.quote(value))
        if command.startswith("gear train demo "):
            command = f"{command} {shorten}"
        if command.startswith("gear sample"):
            command += " --n 4"
        assert exit_code(shlex.split(command)[1:]) == 0, f"{command}: {capsys.readouterr().err}"
    assert (tmp_path / "demo/gear/samples.png").stat().st_size > 1000
    assert (tmp_path / "demo/gear/reconstructions.png").stat().st_size > 1000
    said = capsys.readouterr().out
    assert "dB" in said
    assert "cifar10" in said


@pytest.mark.parametrize("option", re.findall(r"(--[\w-]+)", " ".join(re.findall(r"gear sample[^\n]*", README))))
def test_options_of_sample_it_names_exist(option, capsys):
    with pytest.raises(SystemExit) as end:
        main(["sample", "--help"])
    assert end.value.code == 0
    assert option in capsys.readouterr().out
