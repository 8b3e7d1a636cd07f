"""Two text-to-image generators on the built-in emoji and their names, the same but for the frozen tokenizer: GEAR's,
which `gear demo` makes, and the warm-up's. Everything is kept in one folder, beside that demo's, and the same command
goes on where it stopped.
"""

import datetime
import hashlib
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path

import torch
from rich.console import Console

from gear import build, demo, ranks, recipes, run, text, weights
from gear.config import Config, grid
from gear.config_json import read
from gear.data import Images
from gear.demo_text.judge import LOOKED, SEEDS, SHOWN, Judge, look_block
from gear.evaluate.features import PooledEfficientNet
from gear.figures.report_text import Look, TextReport, write_report
from gear.figures.results import Arm, Report
from gear.train import distributed, log, state

GENERATED = 1000  # images for gFID
TOKENIZER = "gear"  # the folder of the run whose tokenizer it is, `gear demo`'s own
LOG_EVERY = 5  # steps; the curves are read off to find when one reaches a level


@dataclass(frozen=True)
class Contender:
    key: str
    arm: str  # of the report
    name: str
    what: str
    recipe: Callable[[], Config]


CONTENDERS = (
    Contender(
        "text-gear",
        "gear",
        "GEAR",
        "On the tokenizer that was trained together with a generator of classes, frozen.",
        recipes.text.demo_text,
    ),
    Contender(
        "text-warmup",
        "llamagen-repa",
        "LlamaGen-REPA",
        "The same generator, alignment, seed and captions on the warm-up tokenizer, frozen.",
        recipes.text.demo_text_repa,
    ),
)


def demo_text(out: Path, steps: int | None, device: str) -> None:
    """Trains what is not there yet, and writes OUT/report-text.html. Raises `gear.text.TextError` first, if captions
    cannot be read."""
    console = Console(quiet=distributed.launch().rank > 0)
    first, configs = tokenizer_run(out, steps, device), text_runs(out, steps, device)
    for config in configs.values():
        if config.generator.text is not None:
            text.require(config.generator.text)
    for key, config in {TOKENIZER: first, **configs}.items():
        run.claim(config, out / key)  # another demo in this folder is refused before the long work
    console.print(f"[bold]gear demo --text[/bold] in {out}. Ctrl-C stops it; the same command goes on.")
    network = PooledEfficientNet(weights.path("efficientnet_lite1"))
    on = distributed.own_device(build.device(first))
    with distributed.joined(on):
        if not distributed.told(complete(out / TOKENIZER, first.steps) if ranks.rank() == 0 else None):
            console.print(f"First the tokenizer: {out / TOKENIZER}, which `gear demo` makes, too.")
            run.train(first, out / TOKENIZER, console=console)
        with distributed.first_here():
            prepared = run.prepare(configs[CONTENDERS[0].key], on)
        for contender in CONTENDERS:
            run.train(configs[contender.key], out / contender.key, prepared=prepared, console=console)
        if ranks.rank() == 0:
            compare(out, configs, prepared, network.to(on), console)


def tokenizer_run(out: Path, steps: int | None, device: str) -> Config:
    """Of GEAR in `gear demo`; with as many steps as the run that is there is to make."""
    config = recipes.demo()
    file = out / TOKENIZER / run.CONFIG
    asked = read(file).steps if file.exists() else steps
    return replace(config, device=device, steps=config.steps if asked is None else asked)


def text_runs(out: Path, steps: int | None, device: str) -> dict[str, Config]:
    configs = {}
    for contender in CONTENDERS:
        config = replace(contender.recipe(), device=device, log_every=LOG_EVERY)
        if config.tokenizer.init != "builtin":
            config = replace(config, tokenizer=replace(config.tokenizer, init=str(out / TOKENIZER)))
        configs[contender.key] = config if steps is None else replace(config, steps=steps)
    return configs


def complete(folder: Path, steps: int) -> bool:
    newest = state.newest(folder, ())
    return newest is not None and newest.step >= steps


def compare(
    out: Path, configs: dict[str, Config], prepared: run.Prepared, network: PooledEfficientNet, console: Console
) -> None:
    """Measures the finished runs and writes the page."""
    assert isinstance(prepared.train, Images) and isinstance(prepared.held_out, Images)  # noqa: PT018  (not streamed)
    config = configs[CONTENDERS[0].key]
    judge = Judge(network, prepared.train, prepared.held_out, config.seed, GENERATED)
    measured = [arm(c, configs[c.key], out, judge) for c in CONTENDERS]
    page = out / "report-text.html"
    write_report(report(out, config, measured, judge), page)
    console.print(f"[bold]open {page}[/bold]")


@dataclass(frozen=True)
class Measured:
    arm: Arm
    looks: tuple[Look, ...]
    block: str  # whose attention they are
    seconds: float  # in all


def arm(contender: Contender, config: Config, out: Path, judge: Judge) -> Measured:
    """Measured once, see `gear.demo.once`."""
    folder = out / contender.key
    pair = run.load(folder, config.device)
    sampling = asdict(pair.checkpoint.config.sampling)
    asked = hashlib.sha256("\n".join(judge.captions).encode()).hexdigest()
    about = {"step": pair.checkpoint.step, "generated": len(judge.chosen), "sampling": sampling, "captions": asked}
    arrays, found = demo.once(
        folder, about | {"shown": SHOWN, "seeds": SEEDS, "looked": LOOKED}, lambda: judge.measure(pair)
    )
    lines = log.read(folder / log.NAME)
    looks = []
    for i, words in enumerate(found["words"]):
        number = int(arrays[f"looked_{i}"])
        looks.append(Look(judge.captions[number], tuple(words), arrays[f"look_{i}"], arrays["samples"][number, 0]))
    recipe = contender.recipe.__name__.replace("_", "-")
    own = "" if config.tokenizer.init == "builtin" else f" --tokenizer.init {config.tokenizer.init}"
    seconds, block = lines[-1]["seconds"], look_block(pair)
    measured = Arm(
        key=contender.arm,
        name=contender.name,
        what=contender.what,
        commands=(
            f"gear train {recipe} --steps {config.steps} --log-every {LOG_EVERY}{own} --out {folder}",
            f'gear sample {folder} --prompt "{judge.captions[0]}"',
        ),
        log=lines,
        metrics=found["metrics"],
        steps=pair.checkpoint.step,
        seconds=seconds,
        images_per_s=config.batch * pair.checkpoint.step / seconds,
        samples=arrays["samples"],
        reconstructions=None,
    )
    dual = config.generator.dual_blocks
    kind = (
        "which has one set of weights for text and image" if block > dual else "which has weights of its own for text"
    )
    where = f"Attention in block {block} of {config.generator.layers}, {kind}"
    return Measured(measured, tuple(looks), where, seconds + found["seconds"])


def report(out: Path, config: Config, measured: Sequence[Measured], judge: Judge) -> TextReport:
    said = config.generator.text
    assert said is not None
    shown = min(SHOWN, len(judge.captions))
    sampling, n = config.sampling, len(judge.held_out)
    whole = Report(
        title="GEAR from captions, on your own machine",
        summary=(
            f"Two text-to-image generators, trained on {len(judge.train):,} emoji of {config.data.resolution} px and "
            "their names: the same but for the frozen tokenizer whose tokens they predict."
        ),
        arms=tuple(m.arm for m in measured),
        classes=tuple(judge.captions[:shown]),
        inputs=judge.real[:shown].permute(0, 2, 3, 1).numpy(),
        feature_network="EfficientNet-Lite1, pooled, 1,280 channels",
        n_generated=len(judge.chosen),
        n_reconstructed=n,
        codebook_size=config.tokenizer.quantizer.codebook_size,
        seed=config.seed,
        hardware=demo.hardware(build.device(config)),
        versions=f"gear {version('gear')}, torch {torch.__version__}, Python {platform.python_version()}",
        date=datetime.date.today().isoformat(),
        total_seconds=sum(m.seconds for m in measured),
        settings={
            "images": f"{config.data.resolution} px: {len(judge.train):,}, and {n:,} held out, whose captions no other "
            "image has, though their words may be there",
            "text encoder": f"{said.encoder}, up to {said.tokens} tokens of a caption",
            "generator": f"{config.generator.layers} blocks of width {config.generator.width}, "
            f"{config.generator.dual_blocks} with weights of its own for text",
            "tokens": f"{grid(config)} x {grid(config)} an image, K = {config.tokenizer.quantizer.codebook_size}",
            "batch": str(config.batch),
            "sampling": f"CFG scale {sampling.cfg_scale}, temperature {sampling.temperature}, averaged weights",
        },
        notes=(
            f"gFID compares {len(judge.chosen):,} images, one for the caption of each of as many training images, with "
            "these images.",
            f"The tokenizer of {out / TOKENIZER} was trained with classes, by `gear demo`; the time for that is not in "
            "the times on this page.",
        ),
        reproduce=("make demo-text",),
    )
    return TextReport(
        whole=whole,
        looks={m.arm.key: m.looks for m in measured},
        chance=judge.chance,
        block=measured[0].block,
        n_asked=n,
        interval=LOG_EVERY,
        encoder=said.encoder,
    )
