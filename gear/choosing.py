"""From what stands on the command line to a configuration: a recipe's name or a JSON file, then fields to change."""

import re
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from inspect import cleandoc
from pathlib import Path
from typing import Any, TypeVar

import tyro
from rich.console import Console
from rich.table import Table

from gear.config import Config, ConfigError, Part, Target

RUNS = Path("runs")
# What no field's help says. Each line as tyro prints it: one that began with a letter would join the one before.
SHORT = """\
- `--target NAME` takes another encoder, given again one more;
  `--target.layer N` is of the one named last.
- `--mix FOLDER=WEIGHT`, of a run with captions, adds a folder to data.path:
  WEIGHT of its images, without a number 1, for each one of data.path. It fills
  data.mixture, and may be given again."""
T = TypeVar("T", bound=Any)  # a dataclass with a `config`


@dataclass(frozen=True)
class Start:
    """What a recipe or a JSON file stands for: a configuration, its folder, what to say about it, GPUs it is for."""

    config: Config
    out: Path
    about: str
    gpus: int


def beginning(command: str, args: Sequence[str], about: str) -> Start | None:
    """Of the first argument, a recipe's name or a JSON file. Without one, says `about`, what there is, returns None.

    Raises ValueError and OSError.
    """
    from gear.config_json import read
    from gear.recipes import RECIPES, gpus, name_of

    if not args or args[0] in ("-h", "--help"):
        print(f"usage: gear {command} RECIPE [--field value ...]\n       gear {command} RUN/config.json\n\n{about}\n")
        show_recipes()
        print(f"\ngear {command} RECIPE --help lists every field. In short:\n{SHORT}")
        return None
    name, file = args[0], Path(args[0])
    if name in RECIPES:
        recipe = RECIPES[name]
        return Start(recipe(), RUNS / name, cleandoc(recipe.__doc__ or ""), gpus(name))
    if file.suffix == ".json":  # the config.json of a run, which goes on with it; another is the start of a new one
        folder = file.parent if file.name == "config.json" else RUNS / file.stem
        if not file.is_file():
            raise ValueError(f"there is no file {file}: give the config.json of a run, or a recipe's name.")
        config = read(file)
        return Start(config, folder, f"The configuration in {file}.", gpus(name_of(config)))
    if name.startswith("-"):
        raise ValueError(f"{name} comes before any recipe: gear {command} RECIPE {name} ..., of `gear recipes`.")
    own = file / "config.json"
    hint = f" To go on with the run in {name}: gear {command} {own}" if own.exists() else ""
    raise ValueError(unknown("recipe", name, RECIPES) + hint)


def show_recipes(table: int | None = None) -> None:
    """All of them in groups, or those of one table of the paper. Raises ValueError for a table without any."""
    from gear.recipes.listing import HEADER, LEGEND, WITHOUT, groups

    console = Console(highlight=False)
    for group in groups(table):
        listed = _columns(group.title, *HEADER[:2])
        for name in HEADER[2:]:
            listed.add_column(name, justify="right", no_wrap=True)
        for entry in group.entries:
            listed.add_row(*entry.cells)
        console.print(listed)
        console.print(f"{group.note}\n" if group.note else "")
    if table is None:
        other = _columns("Tables without a recipe", "table", "")
        for number, why in WITHOUT.items():
            other.add_row(str(number), why)
        console.print(other)
        console.print()
    console.print(LEGEND)


def _columns(title: str, *names: str) -> Table:
    listed = Table(*names, title=title, title_justify="left", box=None, pad_edge=False, header_style="dim")
    listed.columns[0].no_wrap = True
    return listed


def fields(command: str, start: Start, args: Sequence[str], default: T) -> T:
    """`default`, whose `config` is that of `start`, with the fields that `args` give after the first."""
    name, *given = args
    given, last = in_full(given)
    given, parts = mixed(given)
    more = max(0, last + 1 - len(start.config.targets))
    config = replace(start.config, targets=start.config.targets + (Target(),) * more)
    if parts:
        config = replace(config, data=replace(config.data, mixture=parts))
    return tyro.cli(
        type(default),
        prog=f"gear {command} {name}",
        description=f"{start.about}\n{SHORT}",
        default=replace(default, config=config),
        args=given,
        config=(tyro.conf.AvoidSubcommands,),
    )


def in_full(given: Iterable[str]) -> tuple[list[str], int]:
    """The short ways to say targets as the schema has them, and the number of the last target, from 0; -1 without any.

    The first `--target dinov3-b` names the first target, the next one the second, and `--target.layer 9` is of the one
    named last: --targets.0.name dinov3-b --targets.0.layer 9. Without a name it is of the first one that a recipe has.
    Raises `ConfigError` where the name comes behind.
    """
    written, last, early = [], -1, ""
    for option in given:
        name, equals, value = option.partition("=")
        if name == "--target":
            if early:
                raise ConfigError(f"{early} came before --target: give --target NAME first, and then what is of it.")
            last += 1
            name = f"--targets.{last}.name"
        elif name.startswith("--target."):
            if last < 0:
                last, early = 0, name
            name = name.replace("--target.", f"--targets.{last}.")
        written.append(name + equals + value)
    return written, last


def mixed(given: Iterable[str]) -> tuple[list[str], tuple[Part, ...]]:
    """What is left without each `--mix FOLDER=WEIGHT`, and those; without a weight it is 1. Raises `ConfigError`."""
    left, parts, options = [], [], deque(given)
    while options:
        option = options.popleft()
        name, equals, value = option.partition("=")
        if name != "--mix":
            left.append(option)
            continue
        if not equals and options and not options[0].startswith("--"):
            value = options.popleft()
            if options and not options[0].startswith("-"):
                raise ConfigError(f"--mix {value} {options[0]}: write FOLDER=WEIGHT, --mix {value}={options[0]}.")
        path, weighed, weight = value.rpartition("=")
        try:
            parts.append(Part(path, float(weight)) if weighed else Part(weight))
        except ValueError:
            raise ConfigError(
                f"--mix must be FOLDER or FOLDER=WEIGHT, as more=0.5; the weight is {weight!r}."
            ) from None
        if not parts[-1].path:
            raise ConfigError("--mix must be followed by FOLDER=WEIGHT, as more=0.5; no folder came.")
    return left, tuple(parts)


def called(function: Callable[..., Any], prog: str, args: Sequence[str]) -> None:
    """Calls a command with what stands on the command line. tyro shows what is said of an argument with the line breaks
    of the docstring, so that is put in one line first."""
    function.__doc__ = re.sub(r"\n {8,}(?=\S)", " ", cleandoc(function.__doc__ or ""))
    tyro.cli(function, prog=prog, args=args)


def summary(function: object) -> str:
    """The first paragraph of its docstring, in one line."""
    return " ".join((function.__doc__ or "").split("\n\n")[0].split())


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """One sentence with the nearest names, or with all of them if they are few."""
    names = list(known)
    near = get_close_matches(name, names, n=3)
    meant = f"perhaps you meant {' or '.join(map(repr, near))}; " if near else ""
    listed = (
        f"the {what}s are {', '.join(names)}"
        if len(names) <= 20
        else f"`gear {what}s` lists the {len(names)} there are"
    )
    return f"there is no {what} {name!r}; {meant}{listed}."
