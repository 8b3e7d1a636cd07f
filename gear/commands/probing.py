"""What `gear probe` does: networks and images found, probed, shown, and written to probe.json."""

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from gear import build, fetch, sources
from gear.commands.models import folder as evaluations
from gear.commands.models import is_older, run_of, slug
from gear.commands.models import model as model_of
from gear.config import Target, TargetName, grid
from gear.data import DataError
from gear.data.crop import Interpolation
from gear.evaluate import images, results
from gear.evaluate.images import ImageSource
from gear.evaluate.results import Model, Results
from gear.probe.features import Seen, look
from gear.probe.measure import Probed, blocks, measure
from gear.probe.table import show
from gear.progress import bars
from gear.run import SOME, Pair
from gear.store.packages import sha256
from gear.targets import ENCODERS, check_grid
from gear.train.state import Checkpoint

NAME = "probe.json"
AT_ONCE = 32  # images in one pass of the networks
FLOOR = 0.05  # of biased CKA, from which it is worth a warning
MEANING = {  # of the numbers, for whom meets the file alone
    "cka": "linear; HSIC biased, in cka_unbiased unbiased",
    "cknna": "rows of unit length, unbiased HSIC",
    "image": "mean over positions",
    "patch": "positions drawn from all images",
    "moran": "rook neighbours, binary weights, mean over channels, then over images",
    "fft_high": "share of energy above 0.25 cycles a token, without the mean",
    "generator": "raw states, layer 0 the embedding's output; teacher forcing, null class",
}


@dataclass(frozen=True)
class Asked:
    """What the numbers depend on besides images and networks; as in `gear probe`."""

    n: int
    k: int
    patches: int
    tau: float
    seed: int
    interpolation: Interpolation

    def check(self) -> None:
        """Raises ValueError for numbers with which nothing can be measured."""
        if self.k < 2:
            raise ValueError(f"k must be at least 2, the fewest neighbours that CKNNA compares; it is {self.k}.")
        for name, value in (("n", self.n), ("patches", self.patches)):
            if value < self.fewest:
                raise ValueError(f"{name} must be at least {self.fewest} for k = {self.k} neighbours; it is {value}.")
        if not self.tau > 0:
            raise ValueError(f"tau must be above 0 (usage is of softmax(A / tau)); it is {self.tau}.")
        results.require_seed(self.seed)

    @property
    def fewest(self) -> int:
        """Images, and patches; 4 for the unbiased HSIC."""
        return max(self.k + 1, 4)


def probe(
    pair: Pair,
    data: str,
    target: TargetName | None,
    asked: Asked,
    out: Path | None,
    *,
    tokenizer: str | None = None,
    console: Console | None = None,
) -> Path:
    """Writes probe.json in `out`, by default `folder`, and returns it; prints the numbers and what one should
    know before one believes them. tokenizer: where it came from, if not from `pair.checkpoint`. Raises ValueError and
    OSError before the long work."""
    start, console = time.monotonic(), console or Console()
    config, path = pair.checkpoint.config, pair.checkpoint.path
    chosen, file = encoder(pair, target)
    files = {chosen.name: file, "model": sources.file_of(str(path))}
    files |= {} if tokenizer is None else {"tokenizer": sources.file_of(tokenizer)}
    source = opened(data, pair, asked)
    seen, probed = measured(pair, chosen, file, source, asked, console)
    found = Results(
        protocol="probe",
        metrics={},
        source=source.about(),
        reference={"kind": "target encoder", **asdict(chosen), "standardised": ENCODERS[chosen.name].standardised},
        settings=settings(pair, seen, asked),
        weights={name: sha256(used) for name, used in files.items()},
        warnings=warnings(pair, seen, probed, asked),
        seconds=time.monotonic() - start,
        model=model(pair),
        more=blocks(probed, chosen.name, asked.k, asked.tau, config.tokenizer.quantizer.codebook_size),
    )
    show(probed, chosen.name, asked.tau, console)
    for warning in found.warnings:
        console.print(f"warning: {warning}", style="yellow", highlight=False, markup=False)
    return results.write(out or folder(pair.checkpoint), found, NAME)


def folder(checkpoint: Checkpoint) -> Path:
    """The run's, or of an older checkpoint one of its own below it, where figures find it too; of public files here."""
    if is_older(checkpoint):
        return evaluations(checkpoint) / slug("probe", f"step-{checkpoint.step}")
    return run_of(checkpoint) if checkpoint.step else Path(".")


def encoder(pair: Pair, name: TargetName | None) -> tuple[Target, Path]:
    """The target and the file of its weights. Raises `MissingWeight`, and ValueError for a grid that it cannot have."""
    config = pair.checkpoint.config
    chosen = config.targets[0] if name is None and config.targets else Target(name or Target().name)
    check_grid(chosen.name, config.data.resolution, grid(config))
    return chosen, Path(chosen.weights) if chosen.weights else fetch.on_demand(chosen.name)


def opened(data: str, pair: Pair, asked: Asked) -> ImageSource:
    """Images at the run's resolution of which the first n are probed, as of `images.part`. Raises `DataError` for too
    few."""
    source = images.opened(data, pair.checkpoint.config.data.resolution, asked.interpolation)
    if len(source) < asked.fewest:
        raise DataError(f"{data} has {len(source)} images, and {asked.fewest} are needed: give more, or a smaller --k.")
    return images.part(source, asked.n)


def measured(
    pair: Pair, chosen: Target, file: Path, source: ImageSource, asked: Asked, console: Console
) -> tuple[Seen, Probed]:
    """One pass over the images, and what comes of it. A target of which a run standardises the channels over its
    training images has them standardised over some of these."""
    config, n = pair.checkpoint.config, min(asked.n, len(source))
    net = ENCODERS[chosen.name].load(file, chosen.layer).to(pair.on)
    some = min(n, SOME)
    fitted = images.part(source, some)
    net = build.target(net, chosen, config, lambda: torch.cat([*fitted.batches(0, some, AT_ONCE)]), pair.on)
    maps = 2 if pair.generator is None else 3 + len(pair.generator.layers)
    with bars(console) as progress:
        reading = progress.add_task("reading features", total=n, note="")
        seen = look(
            pair.tokenizer,
            pair.generator,
            net,
            source.batches(0, n, AT_ONCE),
            n,
            (grid(config), grid(config)),
            patches=asked.patches,
            tau=asked.tau,
            seed=asked.seed,
            on=pair.on,
            advance=lambda images: progress.advance(reading, images),
        )
        comparing = progress.add_task("comparing", total=maps, note="")
        return seen, measure(seen, asked.k, lambda: progress.advance(comparing))


def settings(pair: Pair, seen: Seen, asked: Asked) -> dict[str, Any]:
    """All that may change a number; n and patches as they were, which may be fewer than asked for."""
    used = {"n": len(seen.target.pooled), "patches": len(seen.target.patches)}
    align = None if pair.generator is None else pair.generator.config.align  # which state meets which patch
    return asdict(asked) | used | {"align": align, "meaning": MEANING}


def warnings(pair: Pair, seen: Seen, probed: Probed, asked: Asked) -> list[str]:
    """What one should know before one believes the numbers."""
    found, n = [], len(seen.target.pooled)
    if n < asked.n:
        found.append(f"there are {n} images, not {asked.n}.")
    maps = (seen.pre, *seen.layers)
    for level, rows in (("image", n), ("patch", len(seen.target.patches))):
        D, C = (max(kept.pooled.shape[1] for kept in part) for part in (maps, (seen.target,)))
        floor = (D * C / ((rows + D) * (rows + C))) ** 0.5
        if floor > FLOOR:
            found.append(
                f"cka by {level} is biased: noise of this size ({rows} rows, {D} and {C} channels) has {floor:.2f}; "
                "cka_unbiased has 0."
            )
    if pair.generator is not None and pair.generator.config.class_drop == 0:
        found.append("the generator was trained with class_drop = 0 and has never met the null class it is given here.")
    if probed.flat:
        counts = ", ".join(f"{name} {images}" for name, images in probed.flat.items())
        found.append(f"maps that are the same everywhere have no Moran's I and no high frequencies: {counts}.")
    return found


def model(pair: Pair) -> Model:
    """What was probed; a run by its folder, else by its file."""
    checkpoint, nets = pair.checkpoint, [net for net in (pair.tokenizer, pair.generator) if net is not None]
    place = run_of(checkpoint) if checkpoint.step else checkpoint.path
    return model_of(checkpoint, place.resolve().name, *nets)
