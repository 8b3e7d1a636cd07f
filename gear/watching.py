"""What is seen of a run while it trains: sheets of samples and reconstructions, and rFID, gFID and PSNR now and then.

The training loop hands over the averaged pair and goes on as if nothing had happened: what is drawn at random here has
generators of its own.

**Captions.** With text, a sheet is of held-out captions, and gFID's images are of the captions of the training images
that they are compared with. Of an image's several captions the seed chooses one. They are read, and encoded, a block at
a time.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Int64, UInt8
from rich.progress import Progress
from torch import Tensor

from gear import ranks, weights
from gear.config import Config, Warmup
from gear.data import Images
from gear.data.crop import Cropping
from gear.data.folder import Listing
from gear.data.images import Split
from gear.data.said import first_said, said
from gear.data.streaming import in_order
from gear.data.writing import save_grid
from gear.evaluate.features import PooledEfficientNet
from gear.evaluate.frechet import Gaussian, frechet
from gear.evaluate.reconstruction import psnr
from gear.figures.sheets import captioned, sheet
from gear.generator import Generator
from gear.generator.sampling import class_labels, generate
from gear.store.whole import replacing
from gear.tokenizer.tokenizer import Tokenizer
from gear.train import lines
from gear.train.batches import to_uint8
from gear.train.distributed import told
from gear.train.reader import Reader
from gear.train.turns import BLOCK, fitted, in_turns, marked, rebuilt, row, split

NAME, SHEETS, CAPTIONS = "evaluations.jsonl", "watch", "captions.txt"  # in the run folder; CAPTIONS in SHEETS
NETWORK = "efficientnet_lite1"  # whose features are compared: the demo's, which no training pursues
METRICS = ("rfid", "gfid", "psnr")

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
    reader: of captions, where they take the place of classes; without images there are none, and nothing is drawn.

    Every rank has one; rank 0 writes. Raises `gear.weights.MissingWeight`.
    """

    def __init__(
        self,
        config: Config,
        images: Split[Part] | None,
        classes: Sequence[str],
        on: torch.device,
        run: Path,
        reader: Reader | None = None,
    ):
        self.config, self.classes, self.on, self.run, self.reader = config, len(classes), on, run, reader
        self.says = config.generator.text is not None  # what is drawn, by captions
        self._orders: dict[Part, np.ndarray] = {}  # of `_chosen`, made once: names are many
        self.train = images.train if images else None
        self.seen = (images.held_out if len(images.held_out) else images.train) if images else None
        watch, first = config.watch, ranks.rank() == 0
        measures = watch.evaluate_every > 0 and images is not None
        if first and images and self.seen is self.train and (measures or watch.sample_every):
            of = "reconstructions, PSNR and rFID" + (", and the captions of samples," if reader else "")
            log.warning("Nothing is held out (data.holdout): %s are of training images.", of)
        if first and not images and self.says and (watch.evaluate_every or watch.sample_every):
            log.warning("The run reads stored codes, no images and no captions: nothing is drawn or measured.")
        elif first and watch.evaluate_every and not images:
            log.warning("The run reads stored codes and no images: samples are drawn; rFID and gFID are not measured.")
        self.network = PooledEfficientNet(weights.path(NETWORK)).to(on) if measures else None
        self.inputs = self._inputs(max(1, watch.samples // 2)) if watch.sample_every else None
        self.captions: tuple[str, ...] = ()
        if watch.sample_every and reader and self.seen is not None:
            self.captions = first_said(self.seen, self._chosen(self.seen), watch.samples, config.seed)
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
        samples = not isinstance(self.config.stage, Warmup) and (not self.says or len(self.captions) > 0)
        drawn = {"samples": samples, "reconstructions": self.inputs is not None}
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
        Captions stand under their samples, and in full, a line each, in RUN/watch/captions.txt.
        Ranks do not wait for each other, so rank 0 may draw alone, unless a network is spread over them: then all do.
        """
        sheets = {}
        with torch.autocast(self.on.type, enabled=False):
            if generator is not None and not self.says:
                labels = class_labels(self.config.watch.samples, self.classes, None, self.config.seed)
                with row(shown, "samples") as bar:
                    images = self._drawn(tokenizer, generator, labels, range(len(labels)), bar)
                sheets["samples"] = sheet(images[labels.argsort(stable=True)].cpu())
            elif generator is not None and self.captions:
                blocks, made = split(len(self.captions)), []
                with row(shown, "samples") as bar:
                    for block in blocks:
                        own = self.captions[block.start : block.stop]
                        made.append(self._drawn(tokenizer, generator, own, block).cpu())
                        bar(len(made), len(blocks))
                sheets["samples"] = captioned(torch.cat(made), self.captions)
            if self.inputs is not None:
                parts = self.inputs.to(self.on).split(BLOCK)
                sheets["reconstructions"] = sheet(
                    self.inputs, torch.cat([rebuilt(tokenizer, part) for part in parts]).cpu()
                )
        if ranks.rank() == 0:
            for name, pixels in sheets.items():
                whole = torch.from_numpy(pixels).permute(2, 0, 1)[None]
                save_grid(whole, self.run / SHEETS / f"{name}-{step:08d}.png", columns=1)
            if "samples" in sheets and self.captions:
                with replacing(self.run / SHEETS / CAPTIONS) as temporary:
                    temporary.write_text("".join(f"{' '.join(c.split())}\n" for c in self.captions), encoding="utf-8")
        return sheets

    @torch.no_grad()
    def measure(
        self, tokenizer: Tokenizer, generator: Generator | None, step: int, shown: Progress | None = None
    ) -> dict[str, float]:
        """Those of "rfid", "gfid" and "psnr" (dB) that can be measured, on every rank; and a line for them in
        RUN/evaluations.jsonl. Every rank must call it.

        gfid: `watch.generated` images, with the classes or captions of as many training images, or all, against these.
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
        """The features of generated images; with text, of those whose captions can be read."""
        n = self.config.watch.generated
        chosen = np.resize(self._chosen(train), n)

        def of_classes(blocks: list[range]) -> Iterator[Float[Tensor, "b C"]]:
            for ids in blocks:
                labels = torch.from_numpy(train.labels[chosen[ids.start : ids.stop]])
                yield self._features(self._drawn(tokenizer, generator, labels, ids))

        def of_captions(blocks: list[range]) -> Iterator[Float[Tensor, "b C"]]:
            for ids in blocks:
                captions = said(train, chosen[ids.start : ids.stop], self.config.seed)
                drawn = self._drawn(tokenizer, generator, [caption or "" for caption in captions], ids)
                whole = torch.tensor([caption is not None for caption in captions], device=self.on)
                yield marked(self._features(drawn), whole)

        return in_turns(n, of_classes if self.reader is None else of_captions, "gFID", shown)

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
        of: Int[Tensor, "n"] | Sequence[str],
        ids: Sequence[int],
        progress: Callable[[int, int], None] | None = None,
    ) -> UInt8[Tensor, "n 3 R R"]:
        """Images of labels, or of captions."""
        options, seed, prompts = asdict(self.config.sampling), self.config.seed, None
        if isinstance(of, Tensor):
            labels = of
        else:
            assert self.reader is not None
            rows = {str(caption): i for i, caption in enumerate(dict.fromkeys(of))}
            labels, prompts = torch.tensor([rows[str(caption)] for caption in of]), self.reader(list(rows))
        q = generate(
            generator, labels, seed=seed, image_ids=ids, batch=BLOCK, progress=progress, prompts=prompts, **options
        )
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
        """At most `watch.generated` images in an order of the seed, so that any first ones are of all classes; the same
        whether they are prepared, which changes their order, or not."""
        if part not in self._orders:
            order = np.random.default_rng(self.config.seed).permutation(len(part))[: self.config.watch.generated]
            if isinstance(part, Images):
                by_name = sorted(range(len(part)), key=lambda i: part.names[i].split("/"))
                order = np.array(by_name, dtype=np.int64)[order]
            self._orders[part] = order
        return self._orders[part]

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
