"""`gear demo`: GEAR, LlamaGen-REPA and the naive way from the same warm-up tokenizer, seed and budget, and a page that
shows them side by side. Everything is kept in one folder, and the same command goes on where it stopped.
"""

import dataclasses
import datetime
import json
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from rich.console import Console
from torch import Tensor

from gear import build, inference, ranks, recipes, run, weights
from gear.config import Config, grid
from gear.data import Images
from gear.evaluate.features import PooledEfficientNet
from gear.evaluate.frechet import Gaussian, frechet, gaussian
from gear.evaluate.reconstruction import psnr
from gear.figures.report import Arm, Report, write_report
from gear.generator.sampling import class_labels
from gear.progress import bars
from gear.store.whole import replacing
from gear.train import distributed, log
from gear.train.batches import to_float

GENERATED, SHOWN, PAIRS = 1000, 8, 12  # images for gFID; samples of each class and reconstructions on the page
SAMPLING = dataclasses.asdict(recipes.demo().sampling)


@dataclass(frozen=True)
class Contender:
    key: str
    name: str
    what: str
    recipe: Callable[[], Config]
    draws: bool  # samples are drawn from the first two; the third is there for its collapse


CONTENDERS = (
    Contender(
        "gear",
        "GEAR",
        "Both trained together; the generator's alignment guides the tokenizer through the soft read-out.",
        recipes.demo,
        draws=True,
    ),
    Contender(
        "llamagen-repa",
        "LlamaGen-REPA",
        "The conventional pipeline: the same generator and alignment on the frozen warm-up tokenizer.",
        recipes.demo_repa,
        draws=True,
    ),
    Contender(
        "naive",
        "Naive straight-through",
        "Every generator loss sent straight through into the tokenizer, for as long as shows the collapse.",
        recipes.demo_naive,
        draws=False,
    ),
)


def demo(out: Path, steps: int | None, device: str) -> None:
    console = Console(quiet=distributed.launch().rank > 0)
    configs = {c.key: dataclasses.replace(c.recipe(), device=device) for c in CONTENDERS}
    if steps is not None:
        configs = {
            k: dataclasses.replace(c, steps=min(steps, c.steps) if k == "naive" else steps) for k, c in configs.items()
        }
    for key, config in configs.items():
        run.claim(config, out / key)  # another demo in this folder is refused before the long work
    console.print(f"[bold]gear demo[/bold] in {out}. Ctrl-C stops it; the same command goes on.")
    network = PooledEfficientNet(weights.path("efficientnet_lite1"))
    on = distributed.own_device(build.device(configs["gear"]))
    with distributed.joined(on):
        with distributed.first_here():
            prepared = run.prepare(configs["gear"], on)
        for contender in CONTENDERS:
            run.train(configs[contender.key], out / contender.key, prepared=prepared, console=console)
        if ranks.rank() == 0:
            compare(out, configs, prepared, network.to(on), console)


def compare(
    out: Path, configs: dict[str, Config], prepared: run.Prepared, network: PooledEfficientNet, console: Console
) -> None:
    """Measures the finished runs and writes the page."""
    assert isinstance(prepared.train, Images) and isinstance(prepared.held_out, Images)  # noqa: PT018  (not streamed)
    judge = Judge(network, prepared.train, prepared.held_out, configs["gear"].seed)
    measured = [arm(c, configs[c.key], out, judge) for c in CONTENDERS]
    page = out / "report.html"
    write_report(
        report(configs["gear"], [a for a, _ in measured], judge, sum(seconds for _, seconds in measured)), page
    )
    console.print(f"[bold]open {page}[/bold]")


class Judge:
    """Measures every arm against the same images with the same network. Reference features are made once, when first
    needed."""

    def __init__(self, network: PooledEfficientNet, train: Images, held_out: Images, seed: int):
        self.network, self.train, self.held_out, self.seed = network, train, held_out, seed
        self.inputs = torch.from_numpy(np.asarray(held_out.pixels))
        self._references: dict[str, Gaussian] = {}

    def measure(self, pair: run.Pair, draws: bool) -> dict[str, Any]:
        rebuilt = inference.rebuild(pair, self.inputs)
        metrics: dict[str, float | None] = {
            "psnr": psnr(rebuilt, self.inputs).mean().item(),
            "rfid": frechet(self._of("held-out", self.inputs), gaussian(self._features(rebuilt, "rFID"))),
            "gfid": None,
            "held_out_ntp": None,
        }
        samples = None
        if draws:
            chosen = np.random.default_rng(self.seed).choice(len(self.train), GENERATED, replace=False)
            labels = torch.from_numpy(self.train.labels[chosen])  # classes as often as in the training images
            drawn = inference.draw(pair, labels, self.seed, **SAMPLING)
            reference = self._of("train", torch.from_numpy(self.train.pixels[np.sort(chosen)]))
            metrics["gfid"] = frechet(reference, gaussian(self._features(drawn, "gFID")))
            metrics["held_out_ntp"] = held_out_ntp(pair, self.held_out)
            samples = shown(pair, self.seed)
        return {"metrics": metrics, "samples": samples, "rebuilt": rebuilt.permute(0, 2, 3, 1).numpy()}

    def _of(self, name: str, pixels: UInt8[Tensor, "n 3 H W"]) -> Gaussian:
        if name not in self._references:
            self._references[name] = gaussian(self._features(pixels, f"reference, {name}"))
        return self._references[name]

    def _features(self, pixels: UInt8[Tensor, "n 3 H W"], title: str) -> Float[Tensor, "n C"]:
        return features(self.network, pixels, f"features ({title})")


def features(network: PooledEfficientNet, pixels: UInt8[Tensor, "n 3 H W"], title: str) -> Float[Tensor, "n C"]:
    """What the network sees in each image, on the CPU; with a bar."""
    on = next(network.parameters()).device
    with bars() as progress:
        bar = progress.add_task(title, total=len(pixels), note="")
        out = []
        for part in pixels.split(inference.AT_ONCE):
            out.append(network(part.to(on)).cpu())
            progress.advance(bar, len(part))
    return torch.cat(out)


def shown(pair: run.Pair, seed: int) -> UInt8[np.ndarray, "classes SHOWN H W 3"]:
    """A row of samples for each class: what `gear sample` draws with this seed and number."""
    classes = len(pair.checkpoint.classes)
    labels = class_labels(classes * SHOWN, classes, None, seed)
    images = inference.draw(pair, labels, seed, **SAMPLING)[labels.argsort(stable=True)]
    return images.permute(0, 2, 3, 1).unflatten(0, (classes, SHOWN)).numpy()


@torch.no_grad()
def held_out_ntp(pair: run.Pair, images: Images) -> float:
    """Mean next-token loss on images that neither part was trained on, nats per token of the pair's own tokens."""
    assert pair.generator is not None
    total = 0.0
    for part in torch.arange(len(images)).split(inference.AT_ONCE):
        q = pair.tokenizer.encode(to_float(torch.from_numpy(images.pixels[part.numpy()]).to(pair.on)))
        labels = torch.from_numpy(images.labels[part.numpy()]).to(pair.on)
        total += pair.generator(q[:, :-1], labels, targets=q).ntp.item() * len(part)
    return total / len(images)


def arm(contender: Contender, config: Config, out: Path, judge: Judge) -> tuple[Arm, float]:
    """The arm and the seconds it took in all."""
    folder = out / contender.key
    pair = run.load(folder, config.device)
    about = {"step": pair.checkpoint.step, "generated": GENERATED, "sampling": SAMPLING}

    def measure() -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        made = judge.measure(pair, contender.draws)
        return {k: made[k] for k in ("samples", "rebuilt") if made[k] is not None}, {"metrics": made["metrics"]}

    kept, found = once(folder, about, measure)
    lines = log.read(folder / log.NAME)
    last = lines[-1]
    recipe = contender.recipe.__name__.replace("_", "-")
    commands = (f"gear train {recipe} --steps {config.steps} --out {folder}",)
    if contender.draws:
        n = SHOWN * len(pair.checkpoint.classes)
        guided = f"--cfg-scale {SAMPLING['cfg_scale']} --temperature {SAMPLING['temperature']}"
        commands += (f"gear sample {folder} --n {n} --seed {config.seed} {guided}",)
    measured = Arm(
        key=contender.key,
        name=contender.name,
        what=contender.what,
        commands=commands,
        log=lines,
        metrics=found["metrics"] | {k: last[k] for k in ("codebook_entropy", "effective_size")},
        steps=pair.checkpoint.step,
        seconds=last["seconds"],
        images_per_s=config.batch * pair.checkpoint.step / last["seconds"],
        samples=kept.get("samples"),
        reconstructions=kept["rebuilt"][:PAIRS],
    )
    return measured, last["seconds"] + found["seconds"]


def once(
    folder: Path, about: dict[str, Any], measure: Callable[[], tuple[dict[str, np.ndarray], dict[str, Any]]]
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """What `measure` gives, arrays and numbers, with the "seconds" it took. The second time it is read from
    `measured.npz` and `measured.json` of the folder, unless it is `about` something else, such as a later step."""
    arrays, numbers = folder / "measured.npz", folder / "measured.json"
    found = read_measured(numbers) if arrays.exists() else {}
    if found.get("about") != about:
        start = time.perf_counter()
        made, said = measure()
        with replacing(arrays) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **made)  # pyright: ignore[reportArgumentType]
        found = {"about": about, **said, "seconds": time.perf_counter() - start}
        with replacing(numbers) as temporary:
            temporary.write_text(json.dumps(found, indent=2) + "\n")
    with np.load(arrays) as kept:
        return dict(kept), found


def read_measured(path: Path) -> dict[str, Any]:
    """Empty, so that all is measured again, if the file is not there or not whole."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return {}


def report(config: Config, arms: Sequence[Arm], judge: Judge, seconds: float) -> Report:
    classes = judge.train.classes
    return Report(
        title="GEAR, ten minutes on your own machine",
        summary=(
            f"An image tokenizer and an autoregressive generator, trained on {len(judge.train):,} emoji of "
            f"{config.data.resolution} px from the same warm-up tokenizer, three ways."
        ),
        arms=tuple(arms),
        classes=classes,
        inputs=judge.held_out.pixels[:PAIRS].transpose(0, 2, 3, 1),
        feature_network="EfficientNet-Lite1, pooled, 1,280 channels",
        n_generated=GENERATED,
        n_reconstructed=len(judge.held_out),
        codebook_size=config.tokenizer.quantizer.codebook_size,
        seed=config.seed,
        hardware=hardware(build.device(config)),
        versions=f"gear {version('gear')}, torch {torch.__version__}, Python {platform.python_version()}",
        date=datetime.date.today().isoformat(),
        total_seconds=seconds,
        settings={
            "images": f"{config.data.resolution} px: {len(judge.train):,}, and {len(judge.held_out):,} held out",
            "tokens": f"{grid(config)} x {grid(config)} an image, K = {config.tokenizer.quantizer.codebook_size}",
            "batch": str(config.batch),
            "stage": str(config.stage),
            "sampling": f"CFG scale {SAMPLING['cfg_scale']}, temperature {SAMPLING['temperature']}, averaged weights",
        },
        notes=(
            f"gFID compares {GENERATED:,} generated images with as many training images, classes as often as there; "
            "rFID compares the held-out images with their reconstructions.",
            "Before the three runs, all start from a tokenizer that was trained for reconstruction alone "
            "(`gear train demo-warmup`) and ships with the package.",
        ),
        reproduce=("make demo",),
    )


def hardware(on: torch.device) -> str:
    if on.type == "cuda":
        return torch.cuda.get_device_name(on)
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        cpu = next((line.split(":")[1].strip() for line in info.read_text().splitlines() if "model name" in line), cpu)
    return f"{cpu}, {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads"
