"""The command line. Each command imports what it needs when it is called, so that `gear --help` answers at once."""

import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import tyro
from tyro.conf import Positional

from gear.choosing import RUNS, beginning, called, fields, show_recipes, summary, unknown
from gear.commands.evidence import evidence
from gear.commands.figure import figure
from gear.commands.probe import probe
from gear.commands.reconstruct import reconstruct
from gear.commands.sample import sample
from gear.commands.table import table
from gear.config import Config, Warmup

MOST = 4000  # characters of a message
ALIKE = ("ConfigError", "Diverged", "Collapsed")  # errors that all processes of a run meet, and rank 0 tells
PATIENCE = 10  # seconds in which rank 0 should have told it; else this one does
RANK = "RANK"  # torchrun's name for the number of a process


@dataclass(frozen=True)
class Train:
    """One run: a recipe with some of its fields changed."""

    config: Annotated[Config, tyro.conf.arg(name="")]
    out: Path
    """Folder of the run. Given again, the same command goes on where it was."""


def train(args: Sequence[str]) -> None:
    """Train a recipe: gear train RECIPE [--field value ...] [--out FOLDER]"""
    if (start := beginning("train", args, summary(train))) is None:
        return
    command = fields("train", start, args, Train(start.config, start.out))
    from gear import run  # late: it imports torch, for which neither --help nor a typing error should wait

    run.train(command.config, command.out)
    if not is_first():
        return
    print(f"done: {command.out}")
    if isinstance(command.config.stage, Warmup):
        print(f"next: another recipe with --tokenizer.init {command.out}")
    else:
        said = "" if command.config.generator.text is None else ' --prompt "a red apple"'
        print(f"next: gear sample {command.out}{said}")


@dataclass(frozen=True)
class PlanFor:
    """A recipe with some of its fields changed, and the machines it would run on."""

    config: Annotated[Config, tyro.conf.arg(name="")]
    gpus: int
    """How many, in data-parallel training; they share the batch."""
    tflops: float = 989.0
    """10^12 operations a second that one GPU can do in bfloat16; 989 is an H100 or H200, 312 an A100, 165 a 4090."""
    tflops_tf32: float = 494.0
    """The same in TF32, in which a step of bfloat16 too keeps LPIPS and the tokens of a frozen tokenizer, unless
    --engine.tf32 False; 494 is an H100 or H200, 156 an A100, 83 a 4090."""
    tflops32: float = 67.0
    """The same in float32 without TF32, as the assignment is always; 67 is an H100 or H200, 19.5 an A100, 83 a 4090."""
    mfu: float = 0.4
    """Share of each which training reaches."""


def plan(args: Sequence[str]) -> None:
    """Parameters, FLOPs, memory and hours of a recipe, without running it: gear plan RECIPE [--gpus N]"""
    if (start := beginning("plan", args, summary(plan))) is None:
        return
    command = fields("plan", start, args, PlanFor(start.config, start.gpus))
    from gear import planning

    rates = planning.Rates(command.tflops, command.tflops_tf32, command.tflops32)
    planning.show(command.config, command.gpus, rates, command.mfu)


@dataclass(frozen=True)
class Encode:
    """A recipe with some of its fields changed, whose tokenizer (`tokenizer.init`) reads its images."""

    config: Annotated[Config, tyro.conf.arg(name="")]
    out: Path
    """Folder of the shards. Given again, the same command goes on where it was."""
    features: bool = False
    """Store what the alignment targets see, too: 0.4 MB an image, view and flip with DINOv2-B at 256 px; and, of a
    text-to-image recipe, the states of its captions: 1.2 MB each with Qwen3-1.7B and 300 tokens."""


def encode(args: Sequence[str]) -> None:
    """Store the tokens of a data set, for frozen training without the tokenizer: gear encode RECIPE [--field value]"""
    if (start := beginning("encode", args, summary(encode))) is None:
        return
    command = fields("encode", start, args, Encode(start.config, Path("codes") / start.out.name))
    from gear.encode import encode as store
    from gear.encode import following

    store(command.config, command.out, command.features)
    print(f"next: {following(args, command.config, command.out, start.out)}")


def recipes(table: int | None = None) -> None:
    """List what can be trained: every row of the paper's tables, the demo, and recipes for smaller machines.

    Args:
        table: Only the rows of this table of the paper.
    """
    show_recipes(table)


def status(run: Positional[Path], /, json: bool = False) -> None:
    """Show how far a run is, how fast and how healthy, while it trains or later; of a folder of runs, a row each.

    Args:
        run: Run folder, or a folder of them. Nothing in it is touched.
        json: Print one JSON object instead of a table; `gear.status` says its keys.
    """
    from gear import status

    print(status.as_json(run)) if json else status.show(run)


def export(
    run: Positional[Path],
    out: Positional[Path],
    /,
    layout: Literal["hub", "llamagen", "gear", "lightning", "bare"] = "hub",
    part: Literal["tokenizer", "generator"] = "tokenizer",
    resolution: int | None = None,
) -> None:
    """Write a run's averaged tokenizer or generator for other programs.

    Args:
        run: Run folder, checkpoint, saved model or public file.
        out: Folder (hub) or file (the others).
        layout: "hub": config.json, model.safetensors and a model card, which `from_pretrained` and Hugging Face read;
            else the file that the code of LlamaGen, GEAR, or Open-MAGVIT2 and SEED-Voken (lightning) loads.
        part: Which of the two.
        resolution: Pixels along a side of a generator's images, where public files do not say.
    """
    from gear import exporting

    print(exporting.export(run, out, layout, part, resolution))


def demo(out: Path = Path("demo"), steps: int | None = None, text: bool = False, device: str = "auto") -> None:
    """Train GEAR, LlamaGen-REPA and the naive way side by side on the built-in images; --text: text-to-image.

    Takes about ten minutes on two CPU cores, and writes report.html. Interrupted, the same command goes on.

    With --text about a quarter of an hour after that, and it is report-text.html.

    Args:
        out: Folder of the demo.
        steps: Steps of GEAR and LlamaGen-REPA, for a shorter or longer demo; by default the recipe's.
        text: Two text-to-image generators instead, on GEAR's tokenizer from the same folder, which is trained first if
            it is not there, and on the warm-up's. Needs `pip install 'gear[text]'` and `gear fetch minilm`.
        device: Where to run.
    """
    if text:
        from gear.demo_text import demo_text

        demo_text(out, steps, device)
    else:
        from gear.demo import demo

        demo(out, steps, device)


def fetch(name: Positional[str] = "", /, source: Annotated[Path | None, tyro.conf.arg(name="from")] = None) -> None:
    """Get a data set or pretrained weights: gear fetch NAME [--from FILE]. Without a name, lists them.

    Args:
        name: What to get.
        source: A file that is already here, instead of a download; of emoji a folder with its three archives.
    """
    from gear import fetch, weights

    if not name:
        needed = {w.name: w.needed_for for w in weights.status()}
        needed |= {"cifar10": "the recipe cifar10", "emoji": "text-to-image on captions in two styles"}
        print("\n".join(f"{name:<20} for {needed[name]}" for name in fetch.names()))
        return
    print(fetch.fetch(name, source))


def evaluate(args: Sequence[str]) -> None:
    """Measure a run, or images, by a protocol of the paper: adm, reconstruction, sweep, gpic, coco, geneval, dpg"""
    from gear.commands.evaluate_adm import adm
    from gear.commands.evaluate_coco import coco
    from gear.commands.evaluate_dpg import dpg
    from gear.commands.evaluate_geneval import geneval
    from gear.commands.evaluate_gpic import gpic
    from gear.commands.evaluate_reconstruction import reconstruction
    from gear.commands.evaluate_sweep import sweep

    protocols = {f.__name__: f for f in (adm, reconstruction, sweep, gpic, coco, geneval, dpg)}
    asked = args[0] if args else "--help"
    if asked in ("-h", "--help"):
        print(f"usage: gear evaluate PROTOCOL [...]\n\n{summary(evaluate)}\n")
        for name, function in protocols.items():
            print(f"  {name:<15} {summary(function)}")
        print("\ngear evaluate PROTOCOL --help says more.")
    elif asked in protocols:
        called(protocols[asked], f"gear evaluate {asked}", args[1:])
    else:
        fail(unknown("protocol", asked, protocols))


def doctor() -> None:
    """Look for what would stop a run here: Python, torch and torchvision, GPU, disk, weights; and how to mend it."""
    from gear.doctor import diagnose, print_report

    sys.exit(print_report(diagnose(RUNS)))


OWN_ARGUMENTS = {f.__name__: f for f in (train, plan, encode, evaluate)}  # read them themselves
COMMANDS: dict[str, Callable[..., None]] = {
    f.__name__: f
    for f in (
        *(demo, recipes, plan, train, status, encode, sample, reconstruct),
        *(evaluate, probe, figure, table, evidence, export, fetch, doctor),
    )
}


def main(argv: Sequence[str] | None = None) -> None:
    """Dispatches, and turns the errors a user can mend into one line. GEAR_DEBUG=1 shows the traceback instead.

    Of several processes each says what went wrong in it, with its rank; torchrun shows the first one's traceback again
    at the end.
    """
    args = list(sys.argv[1:] if argv is None else argv)
    if not args or args[0] in ("-h", "--help"):
        print("usage: gear COMMAND [...]\n")
        for name, function in COMMANDS.items():
            print(f"  {name:<12} {summary(function)}")
        print("\ngear COMMAND --help says more. Start with: gear demo")
        return
    if args[0] == "--version":
        print(f"gear {version('gear')}")
        return
    if args[0] not in COMMANDS:
        fail(unknown("command", args[0], COMMANDS))
    if RANK in os.environ:
        from torch.distributed.elastic.multiprocessing.errors import record

        record(dispatch)(args)  # pyright: ignore[reportOptionalCall]
    else:
        dispatch(args)


def dispatch(args: Sequence[str]) -> None:
    try:
        if args[0] in OWN_ARGUMENTS:
            OWN_ARGUMENTS[args[0]](args[1:])
        else:
            called(COMMANDS[args[0]], f"gear {args[0]}", args[1:])
    except KeyboardInterrupt as stopped:
        code = getattr(stopped, "code", 130)  # 0 where a machine is to be given back: nothing went wrong
        if is_first():
            print(f"\ngear: {str(stopped) or 'stopped'}.", file=sys.stderr)
        sys.exit(code)
    except BrokenPipeError:  # gear train demo --help | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains at its exit
        sys.exit(1)
    except (ValueError, OSError) as error:
        if os.environ.get("GEAR_DEBUG"):
            raise
        if not is_first() and type(error).__name__ in ALIKE:
            time.sleep(PATIENCE)  # until the launcher, which rank 0's end tells of it, ends this one
        fail(str(error))
    except RecursionError:
        if os.environ.get("GEAR_DEBUG"):
            raise
        fail("a file is nested too deeply to be read.")
    except (RuntimeError, MemoryError) as error:
        if type(error).__name__ == "PeerLost":  # the other one's message is the one to read
            say(str(error))
            sys.exit(1)
        full = any(words in str(error) for words in ("out of memory", "allocate memory"))
        if os.environ.get("GEAR_DEBUG") or not (isinstance(error, MemoryError) or full):
            raise
        fail(f"not enough memory ({str(error).splitlines()[0]}): try a smaller --batch, model or --data.resolution.")


def is_first() -> bool:
    """Whether this is rank 0 of the processes that a launcher started, or the only one."""
    return os.environ.get(RANK, "0") == "0"


def fail(message: str) -> NoReturn:
    say(message)
    sys.exit(2)


def say(message: str) -> None:
    """On one line, whatever a file put into its names: no line breaks, no codes that terminals obey, no megabytes."""
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in message[:MOST])
    who = "gear" if is_first() else f"gear, rank {os.environ[RANK]}"
    print(f"{who}: {shown}{'...' if len(message) > MOST else ''}", file=sys.stderr)
