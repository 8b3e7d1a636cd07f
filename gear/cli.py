"""The command line. Each command imports what it needs when it is called, so that `gear --help` answers at once."""

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import Positional

from gear.config import Config

RUNS = Path("runs")


@dataclass(frozen=True)
class Train:
    """One run: a recipe with some of its fields changed."""

    config: Annotated[Config, tyro.conf.arg(name="")]
    out: Path | None = None
    """Folder of the run; by default runs/RECIPE. Given again, the same command goes on where it was."""


def train(args: Sequence[str]) -> None:
    """Train a recipe: gear train RECIPE [--field value ...] [--out FOLDER]"""
    from gear import run
    from gear.config import from_json
    from gear.recipes import RECIPES

    if args and args[0].endswith(".json"):  # the config.json of a run, which trains it again
        file = Path(args[0])
        name, args = file.parent.name, ["again", *args[1:]]
        recipes = {"again": (f"the run of {file}", Train(from_json(file.read_text()), file.parent))}
    else:
        name = args[0] if args else ""
        recipes = {key: ((recipe.__doc__ or "").split("\n\n")[0], Train(recipe())) for key, recipe in RECIPES.items()}
    command = tyro.extras.overridable_config_cli(
        recipes, prog="gear train", args=args, config=(tyro.conf.AvoidSubcommands,)
    )
    out = command.out or RUNS / name
    run.train(command.config, out)
    print(
        f"done: {out}\nnext: gear sample {out}"
        if command.config.stage.__class__.__name__ != "Warmup"
        else f"done: {out}"
    )


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


def demo(out: Path = RUNS / "demo", steps: int | None = None, device: str = "auto") -> None:
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
    from gear import fetch

    if not name:
        print("\n".join(fetch.names()))
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
            print(f"  {name:<12} {(function.__doc__ or '').splitlines()[0]}")
        print("\ngear COMMAND --help says more. Start with: gear demo")
        return
    if args[0] not in COMMANDS:
        fail(f"there is no command {args[0]!r}; the commands are {', '.join(COMMANDS)}.")
    try:
        if args[0] == "train":
            train(args[1:])
        else:
            tyro.cli(COMMANDS[args[0]], prog=f"gear {args[0]}", args=args[1:])
    except KeyboardInterrupt as stopped:
        print(f"\ngear: {stopped or 'stopped'}; the same command goes on from there.", file=sys.stderr)
        sys.exit(130)
    except (ValueError, OSError) as error:
        if os.environ.get("GEAR_DEBUG"):
            raise
        fail(str(error))


def fail(message: str) -> None:
    print(f"gear: {message}", file=sys.stderr)
    sys.exit(2)
