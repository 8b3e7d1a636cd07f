"""The command line. Each command imports what it needs when it is called, so that `gear --help` answers at once."""

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from inspect import cleandoc
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import tyro
from tyro.conf import Positional

from gear.config import Config, Warmup

RUNS = Path("runs")
SHORT = {"--target": "--target.name"}  # options that may be given without their last part


@dataclass(frozen=True)
class Start:
    """What a recipe or a JSON file stands for: a configuration, its folder, and what to say about it."""

    config: Config
    out: Path
    about: str


@dataclass(frozen=True)
class Train:
    """One run: a recipe with some of its fields changed."""

    config: Annotated[Config, tyro.conf.arg(name="")]
    out: Path
    """Folder of the run. Given again, the same command goes on where it was."""


def train(args: Sequence[str]) -> None:
    """Train a recipe: gear train RECIPE [--field value ...] [--out FOLDER]"""
    if not args or args[0] in ("-h", "--help"):
        return recipes()
    name, *fields = args
    start = beginning(name)
    parts = (field.partition("=") for field in fields)
    fields = [SHORT.get(option, option) + equals + value for option, equals, value in parts]
    command = tyro.cli(
        Train,
        prog=f"gear train {name}",
        description=start.about,
        default=Train(start.config, start.out),
        args=fields,
        config=(tyro.conf.AvoidSubcommands,),
    )
    from gear import run  # late: it imports torch, for which neither --help nor a typing error should wait

    run.train(command.config, command.out)
    print(f"done: {command.out}")
    if isinstance(command.config.stage, Warmup):
        print(f"next: another recipe with --tokenizer.init {command.out}")
    else:
        print(f"next: gear sample {command.out}")


def beginning(name: str) -> Start:
    """Of a recipe's name or a JSON file. Raises ValueError and OSError."""
    from gear.config_json import read
    from gear.recipes import RECIPES

    file = Path(name)
    if name in RECIPES:
        recipe = RECIPES[name]
        return Start(recipe(), RUNS / name, cleandoc(recipe.__doc__ or ""))
    if file.suffix == ".json":  # the config.json of a run, which goes on with it; another is the start of a new one
        folder = file.parent if file.name == "config.json" else RUNS / file.stem
        return Start(read(file), folder, f"The configuration in {file}.")
    own = file / "config.json"
    hint = f" To go on with the run in {name}: gear train {own}" if own.exists() else ""
    raise ValueError(unknown("recipe", name, RECIPES) + hint)


def recipes() -> None:
    from gear.recipes import RECIPES

    print("usage: gear train RECIPE [--field value ...] [--out FOLDER]\n       gear train RUN/config.json\n")
    for name, recipe in RECIPES.items():
        print(f"  {name:<14} {summary(recipe)}")
    print("\ngear train RECIPE --help lists every field.")


def sample(
    run: Positional[Path],
    /,
    n: int = 64,
    classes: tuple[str, ...] = (),
    cfg_scale: float = 1.5,
    cfg_interval: tuple[int, int] | None = None,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int = 0,
    save: Literal["grid", "png", "npz"] = "grid",
    out: Path | None = None,
    device: str = "auto",
) -> None:
    """Generate images with the averaged generator and tokenizer of a run.

    Args:
        run: Run folder or checkpoint file.
        n: How many images.
        classes: Names or numbers of the classes to draw, in turn; none: all of them, balanced.
        cfg_scale: Classifier-free guidance, u + s (c - u); 1 is none.
        cfg_interval: Tokens [a, b) in which guidance acts; none: all.
        temperature: Of the softmax; 0 takes the most likely token.
        top_k: Keep the k most likely tokens; 0 keeps all.
        top_p: Keep the most likely tokens that hold this mass; 1 keeps all.
        seed: The same seed gives the same images, whatever the batch.
        save: One PNG sheet, one PNG an image, or one .npz in the layout of the ADM evaluator.
        out: File (grid, npz) or folder (png); by default in the run folder.
        device: Where to run.
    """
    from gear import inference

    options = {
        "cfg_scale": cfg_scale,
        "cfg_interval": cfg_interval,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
    }
    print(inference.sample(run, n, classes, seed, save, out, device, **options))


def reconstruct(
    run: Positional[Path], images: Positional[tuple[Path, ...]], /, out: Path | None = None, device: str = "auto"
) -> None:
    """Encode images to tokens and back; writes a sheet of inputs above reconstructions and prints the PSNR of each.

    Args:
        run: Run folder or checkpoint file.
        images: Image files, or folders of them.
        out: The PNG sheet; by default reconstructions.png in the run folder.
        device: Where to run.
    """
    from gear import inference

    print(inference.reconstruct(run, images, out, device))


def demo(out: Path = Path("demo"), steps: int | None = None, device: str = "auto") -> None:
    """Train GEAR, LlamaGen-REPA and the naive way side by side on the built-in images, and write report.html.

    Takes about ten minutes on two CPU cores. Interrupted, the same command goes on.

    Args:
        out: Folder of the demo.
        steps: Steps of GEAR and LlamaGen-REPA, for a shorter or longer demo; by default the recipe's.
        device: Where to run.
    """
    from gear.demo import demo

    demo(out, steps, device)


def fetch(name: Positional[str] = "", /, source: Annotated[Path | None, tyro.conf.arg(name="from")] = None) -> None:
    """Get a data set or pretrained weights: gear fetch NAME [--from FILE]. Without a name, lists them.

    Args:
        name: What to get.
        source: A file that is already here, instead of a download.
    """
    from gear import fetch, weights

    if not name:
        needed = {w.name: w.needed_for for w in weights.status()} | {"cifar10": "the recipe cifar10"}
        print("\n".join(f"{name:<20} for {needed[name]}" for name in fetch.names()))
        return
    print(fetch.fetch(name, source))


def doctor() -> None:
    """Look for what would stop a run here: Python, torch and torchvision, GPU, disk, weights; and how to mend it."""
    from gear.doctor import diagnose, print_report

    sys.exit(print_report(diagnose(RUNS)))


COMMANDS: dict[str, Callable[..., None]] = {f.__name__: f for f in (demo, train, sample, reconstruct, fetch, doctor)}


def main(argv: Sequence[str] | None = None) -> None:
    """Dispatches, and turns the errors a user can mend into one line. GEAR_DEBUG=1 shows the traceback instead."""
    args = list(sys.argv[1:] if argv is None else argv)
    if not args or args[0] in ("-h", "--help"):
        print("usage: gear COMMAND [...]\n")
        for name, function in COMMANDS.items():
            print(f"  {name:<12} {summary(function)}")
        print("\ngear COMMAND --help says more. Start with: gear demo")
        return
    if args[0] not in COMMANDS:
        fail(unknown("command", args[0], COMMANDS))
    try:
        if args[0] == "train":
            train(args[1:])
        else:
            tyro.cli(COMMANDS[args[0]], prog=f"gear {args[0]}", args=args[1:])
    except KeyboardInterrupt as stopped:
        print(f"\ngear: {str(stopped) or 'stopped'}.", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # gear train demo --help | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains at its exit
        sys.exit(1)
    except (ValueError, OSError) as error:
        if os.environ.get("GEAR_DEBUG"):
            raise
        fail(str(error))
    except (RuntimeError, MemoryError) as error:
        if os.environ.get("GEAR_DEBUG") or not (isinstance(error, MemoryError) or "memory" in str(error)):
            raise
        fail(f"not enough memory ({str(error).splitlines()[0]}): try a smaller --batch, model or --data.resolution.")


def summary(function: Callable[..., object]) -> str:
    """The first paragraph of its docstring, in one line."""
    return " ".join((function.__doc__ or "").split("\n\n")[0].split())


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """One sentence that names the ones there are, and the nearest."""
    names = list(known)
    near = get_close_matches(name, names, n=1)
    meant = f"perhaps you meant {near[0]!r}; " if near else ""
    return f"there is no {what} {name!r}; {meant}the {what}s are {', '.join(names)}."


def fail(message: str) -> NoReturn:
    print(f"gear: {message}", file=sys.stderr)
    sys.exit(2)
