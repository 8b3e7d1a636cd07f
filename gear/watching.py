"""What is seen of a run while it trains: sheets of samples and reconstructions, and rFID, gFID and PSNR now and then.

The training loop hands over the averaged pair and goes on as if nothing had happened: what is drawn at random here has
generators of its own.

**Any number of ranks, the same numbers.** Images go through the networks in blocks of `BLOCK`, a block whole on one
rank, the ranks taking turns, since a network rounds differently for another number of rows; `generate` fills its lanes
with them, too. A rank that has none left repeats the last one, so that all ranks call each network equally often: one
that is spread over them needs that.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Int64, UInt8
from rich.progress import Progress
from torch import Tensor
from torch.nn import functional as F

from gear import ranks, weights
from gear.config import Config, Warmup
from gear.data import Images
from gear.data.crop import Cropping
from gear.data.folder import Listing
from gear.data.images import Split
from gear.data.streaming import in_order
from gear.data.writing import save_grid
from gear.evaluate.features import PooledEfficientNet
from gear.evaluate.frechet import Gaussian, frechet, gaussian
from gear.evaluate.reconstruction import psnr
from gear.generator import Generator
from gear.generator.sampling import LANES, class_labels, generate
from gear.tokenizer.tokenizer import Tokenizer
from gear.train import lines
from gear.train.batches import to_float, to_uint8
from gear.train.distributed import told

NAME, SHEETS = "evaluations.jsonl", "watch"  # in the run folder
NETWORK = "efficientnet_lite1"  # whose features are compared: the demo's, which no training pursues
METRICS = ("rfid", "gfid", "psnr")
BLOCK = LANES  # images; on a GPU more would be faster, but would have to find room beside a training run
COLUMNS, LEGIBLE = 8, 128  # images in a row of a sheet; px, smaller ones are enlarged

Part = Images | Listing

log = logging.getLogger("gear")


@dataclass(frozen=True)
class Best:
    metric: str  # "gfid", or "rfid" where no generator was measured
    value: float
    step: int


def best(run: Path) -> Best | None:
    """The lowest gFID of the run's evaluations, or the lowest rFID; of equal ones the first. None before there are."""
    found = lines.read(run / NAME)
    for metric in ("gfid", "rfid"):
        if measured := [line for line in found if line.get(metric) is not None]:
            lowest = min(measured, key=lambda line: line[metric])
            return Best(metric, lowest[metric], lowest["step"])
    return None


class Watcher:
    """Built once, before the long work: what it needs is loaded, or refused, and its images are chosen, by the seed.

    images: prepared, or files that are decoded when needed, where broken ones are left out; None where a run reads
        stored codes alone: then samples are drawn and nothing is measured. Where nothing is held out, training images
        stand in for it. classes: names of the labels. on: the device of the pair. run: the folder to write to.

    Every rank has one; rank 0 writes. Raises `gear.weights.MissingWeight`.
    """

    def __init__(self, config: Config, images: Split[Part] | None, classes: Sequence[str], on: torch.device, run: Path):
        self.config, self.classes, self.on, self.run = config, len(classes), on, run
        self.train = images.train if images else None
        self.seen = (images.held_out if len(images.held_out) else images.train) if images else None
        watch, first = config.watch, ranks.rank() == 0
        measures = watch.evaluate_every > 0 and images is not None
        if first and images and self.seen is self.train and (measures or watch.sample_every):
            log.warning("Nothing is held out (data.holdout): reconstructions, PSNR and rFID are of training images.")
        if first and watch.evaluate_every and not images:
            log.warning("The run reads stored codes and no images: samples are drawn; rFID and gFID are not measured.")
        self.network = PooledEfficientNet(weights.path(NETWORK)).to(on) if measures else None
        self.inputs = self._inputs(max(1, watch.samples // 2)) if watch.sample_every else None
        self._references: dict[str, Gaussian | None] = {}

    def begin(self, step: int) -> None:
        """Where the run goes on after `step` updates: drops later evaluations, which are made again, and torn ones."""
        if ranks.rank() == 0:
            lines.cut(self.run / NAME, step)

    def measured(self, step: int) -> bool:
        """Whether all that is due after `step` updates is in the folder; else the run was stopped while it was made."""
        watch = self.config.watch
        if watch.evaluate_every and step % watch.evaluate_every == 0 and self.network is not None:
            return told(any(line["step"] == step for line in lines.read(self.run / NAME)))
        due = watch.sample_every and step % watch.sample_every == 0
        drawn = {"samples": not isinstance(self.config.stage, Warmup), "reconstructions": self.inputs is not None}
        sheets = [self.run / SHEETS / f"{name}-{step:08d}.png" for name, is_drawn in drawn.items() if is_drawn]
        return told(not due or all(sheet.exists() for sheet in sheets))

    def best(self) -> Best | None:
        """`best` of the run."""
        return best(self.run)

    @torch.no_grad()
    def draw(
        self, tokenizer: Tokenizer, generator: Generator | None, step: int, shown: Progress | None = None
    ) -> dict[str, UInt8[np.ndarray, "_ _ 3"]]:
        """The sheets "samples" and "reconstructions" (inputs above), also as RUN/watch/samples-00000200.png, ...

        The same seed and images at every step. Without a generator or images the sheet that needs them is left out.
        Ranks do not wait for each other, so rank 0 may draw alone, unless a network is spread over them: then all do.
        """
        sheets = {}
        with torch.autocast(self.on.type, enabled=False):
            if generator is not None:
                labels = class_labels(self.config.watch.samples, self.classes, None, self.config.seed)
                with row(shown, "samples") as bar:
                    images = self._drawn(tokenizer, generator, labels, range(len(labels)), bar)
                sheets["samples"] = sheet(images[labels.argsort(stable=True)].cpu())
            if self.inputs is not None:
                parts = self.inputs.to(self.on).split(BLOCK)
                sheets["reconstructions"] = sheet(
                    self.inputs, torch.cat([rebuilt(tokenizer, part) for part in parts]).cpu()
                )
        if ranks.rank() == 0:
            for name, pixels in sheets.items():
                whole = torch.from_numpy(pixels).permute(2, 0, 1)[None]
                save_grid(whole, self.run / SHEETS / f"{name}-{step:08d}.png", columns=1)
        return sheets

    @torch.no_grad()
    def measure(
        self, tokenizer: Tokenizer, generator: Generator | None, step: int, shown: Progress | None = None
    ) -> dict[str, float]:
        """Those of "rfid", "gfid" and "psnr" (dB) that can be measured, on every rank; and a line for them in
        RUN/evaluations.jsonl. Every rank must call it.

        gfid: `watch.generated` images, with classes as in the training images, against as many of these, or all.
        rfid, psnr: the held-out images, at most as many, against their reconstructions. A distance needs two images.

        shown: the live display to which a row is added while it works; None: silent.
        """
        if self.network is None or self.train is None or self.seen is None:
            return {}
        start = time.perf_counter()
        with torch.autocast(self.on.type, enabled=False):
            rows = self._of_reconstructions(tokenizer, self.seen, shown)
            distances = {"rfid": (self._reference("held-out", self.seen, shown), fitted(rows[:, :-1]))}
            drawn = None
            if generator is not None:
                drawn = self._of_samples(tokenizer, generator, self.train, shown)
                distances["gfid"] = (self._reference("training", self.train, shown), fitted(drawn))
        found: dict[str, float] = {}
        if ranks.rank() == 0:  # seconds of float64 on the CPU, which the ranks of a machine share
            found = {name: frechet(a, b) for name, (a, b) in distances.items() if a and b}
            found |= {"psnr": rows[:, -1].mean().item()} if len(rows) else {}
            line = {"step": step} | {name: found.get(name) for name in METRICS}
            counts = {"n": len(rows if drawn is None else drawn), "n_reconstructed": len(rows), "network": NETWORK}
            lines.append(self.run / NAME, line | counts | {"seconds": round(time.perf_counter() - start, 3)})
        return told(found)

    def _of_reconstructions(self, tokenizer: Tokenizer, part: Part, shown: Progress | None) -> Float[Tensor, "n D"]:
        """The features of each reconstruction, then its PSNR."""

        def work(blocks: list[range]) -> Iterator[Float[Tensor, "b D"]]:
            for pixels, whole in self._opened(part, blocks):
                x_hat = rebuilt(tokenizer, pixels)
                quality = psnr(x_hat.cpu(), pixels.cpu()).float().to(self.on)
                yield marked(torch.cat([self._features(x_hat), quality[:, None]], dim=1), whole)

        return in_turns(min(len(part), self.config.watch.generated), work, "rFID", shown)

    def _of_samples(
        self, tokenizer: Tokenizer, generator: Generator, train: Part, shown: Progress | None
    ) -> Float[Tensor, "n C"]:
        """The features of generated images."""
        n = self.config.watch.generated
        labels = torch.from_numpy(np.resize(train.labels[self._chosen(train)], n))

        def work(blocks: list[range]) -> Iterator[Float[Tensor, "b C"]]:
            for ids in blocks:
                yield self._features(self._drawn(tokenizer, generator, labels[ids.start : ids.stop], ids))

        return in_turns(n, work, "gFID", shown)

    def _reference(self, name: str, part: Part, shown: Progress | None) -> Gaussian | None:
        """Of the images themselves; made once."""
        if name not in self._references:

            def work(blocks: list[range]) -> Iterator[Float[Tensor, "b C"]]:
                return (marked(self._features(pixels), whole) for pixels, whole in self._opened(part, blocks))

            n = min(len(part), self.config.watch.generated)
            self._references[name] = fitted(in_turns(n, work, f"{name} images", shown))
        return self._references[name]

    def _features(self, pixels: UInt8[Tensor, "b 3 R R"]) -> Float[Tensor, "b C"]:
        assert self.network is not None
        return self.network(pixels)

    def _drawn(
        self,
        tokenizer: Tokenizer,
        generator: Generator,
        labels: Int[Tensor, "n"],
        ids: Sequence[int],
        progress: Callable[[int, int], None] | None = None,
    ) -> UInt8[Tensor, "n 3 R R"]:
        options, seed = asdict(self.config.sampling), self.config.seed
        q = generate(generator, labels, seed=seed, image_ids=ids, batch=BLOCK, progress=progress, **options)
        return torch.cat([to_uint8(tokenizer.decode(part)) for part in q.split(BLOCK)])

    def _inputs(self, wanted: int) -> UInt8[Tensor, "n 3 R R"] | None:
        """What is reconstructed on the sheets: the first images that can be opened."""
        found: list[Tensor] = []
        if self.seen is not None:
            for block in split(len(self._chosen(self.seen))):
                for pixels, whole in self._opened(self.seen, [block], workers=0):
                    found += pixels.cpu()[whole.cpu()]
                if len(found) >= wanted:
                    break
        return torch.stack(found[:wanted]) if found else None

    def _chosen(self, part: Part) -> Int64[np.ndarray, "n"]:
        """At most `watch.generated` images in an order of the seed, so that any first ones are of all classes."""
        return np.random.default_rng(self.config.seed).permutation(len(part))[: self.config.watch.generated]

    def _opened(
        self, part: Part, blocks: list[range], workers: int | None = None
    ) -> Iterator[tuple[UInt8[Tensor, "b 3 R R"], Bool[Tensor, "b"]]]:
        """The chosen images, on the device, block by block, and which of them could be opened."""
        data, index = self.config.data, self._chosen(part)
        if isinstance(part, Images):
            for block in blocks:
                pixels = np.ascontiguousarray(part.pixels[index[block.start : block.stop]])
                yield torch.from_numpy(pixels).to(self.on), torch.ones(len(block), dtype=torch.bool, device=self.on)
            return
        listing = part.rows([int(index[i]) for block in blocks for i in block])
        middle = Cropping(data.resolution, interpolation=data.interpolation)
        for decoded in in_order(listing, middle, BLOCK, workers=data.workers if workers is None else workers):
            yield decoded.pixels[:, 0].to(self.on), (decoded.labels >= 0).to(self.on)


def split(n: int) -> list[range]:
    """0 .. n - 1 in blocks; only the last may be short."""
    return [range(i, min(i + BLOCK, n)) for i in range(0, n, BLOCK)]


def in_turns(
    n: int, work: Callable[[list[range]], Iterator[Float[Tensor, "_ D"]]], title: str, shown: Progress | None
) -> Float[Tensor, "m D"]:
    """The rows that `work` makes of images 0 .. n - 1, in their order and on the CPU, on every rank; m < n where some
    are `marked`. `work` is given the blocks of one rank and yields the rows of each."""
    blocks, made = split(n), []
    turns = -(-len(blocks) // ranks.size())
    mine = [blocks[min(turn * ranks.size() + ranks.rank(), len(blocks) - 1)] for turn in range(turns)]
    with row(shown, title) as bar:
        for rows in work(mine):
            made.append(F.pad(rows, (0, 0, 0, BLOCK - len(rows))))
            bar(len(made), turns)
    own = torch.stack(made)
    every = ranks.gathered(own) if ranks.size() > 1 else own[None]
    rows = every.transpose(0, 1).flatten(0, 2)[:n].cpu()
    return rows[~rows.isnan().any(1)]


def marked(rows: Float[Tensor, "b D"], whole: Bool[Tensor, "b"]) -> Float[Tensor, "b D"]:
    """Not numbers for images that could not be opened: the one thing that finite pixels never give."""
    return rows.masked_fill(~whole[:, None], torch.nan)


def fitted(features: Float[Tensor, "n C"]) -> Gaussian | None:
    """None of fewer than two images, which have no covariance."""
    return gaussian(features) if len(features) > 1 else None


def rebuilt(tokenizer: Tokenizer, pixels: UInt8[Tensor, "b 3 R R"]) -> UInt8[Tensor, "b 3 R R"]:
    """Encoded and decoded."""
    return to_uint8(tokenizer.decode(tokenizer.encode(to_float(pixels))))


def sheet(*images: UInt8[Tensor, "n 3 R R"]) -> UInt8[np.ndarray, "_ _ 3"]:
    """In rows of `COLUMNS`, white where the last is short; of several sets, one row of each in turn. Small images are
    enlarged by a whole number."""
    n, side = len(images[0]), images[0].shape[-1]
    columns, scale = min(COLUMNS, n), max(1, LEGIBLE // side)
    padded = torch.stack([F.pad(part, (0, 0) * 3 + (0, -n % columns), value=255) for part in images])
    grid = padded.unflatten(1, (-1, columns)).permute(1, 0, 4, 2, 5, 3)  # row, set, y, column, x, channel
    return grid.flatten(3, 4).flatten(0, 2).numpy().repeat(scale, axis=0).repeat(scale, axis=1)


@contextmanager
def row(shown: Progress | None, title: str) -> Iterator[Callable[[int, int], None]]:
    """Gives what is to be called with (done, in all); a row of a live display, which is gone afterwards."""
    if shown is None or ranks.rank():
        yield lambda done, total: None
        return
    task = shown.add_task(title, total=None, note="")
    try:
        yield lambda done, total: shown.update(task, completed=done, total=total)
    finally:
        shown.remove_task(task)
