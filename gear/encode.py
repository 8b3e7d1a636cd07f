"""`gear encode`: the tokens of a data set, and what the targets see in it and the text encoder reads, computed once.

Training on a frozen tokenizer otherwise runs it, and the targets, again in every epoch: 300 times for Table 1's rows.
"""

import itertools
import logging
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from gear import build, run
from gear import config as cfg
from gear.codes import about, cropping
from gear.config import Config, ConfigError, Frozen, grid
from gear.config_check import check
from gear.data import Images
from gear.data.captions import Source, Texts, read
from gear.data.decode import Skip
from gear.data.listing import Listing
from gear.data.shards import Shape, Shards, ShardWriter
from gear.data.streaming import Block, in_order
from gear.progress import bars
from gear.prompts import Prompts
from gear.run import Prepared
from gear.train.batches import in_passes, to_float
from gear.train.reader import Reader
from gear.train.stopping import Interrupted

AT_ONCE = 32  # images in one pass of the tokenizer
FEW = 512  # images whose captions are read to see how many there are

log = logging.getLogger("gear")


def encode(config: Config, out: Path, features: bool, *, console: Console | None = None) -> None:
    """Stores the tokens of every view and flip of the training images of `config` in the folder `out`, or goes on.

    features: what its targets see, too, and the states of its captions. Raises ValueError and OSError before the long
    work: without a tokenizer, with crops that are not fixed, for a folder that holds other codes. Ctrl-C raises
    `Interrupted`, and a disk that is gone `DataError`; whole shards are kept. At the end the console says what was left
    out.
    """
    config = run.in_full(check(replace(config, stage=Frozen(lam=1.0 if features else 0.0))))  # 0: no targets
    size, on = cropping(config), build.device(config)
    if size.fixed is None:
        raise ConfigError("data.views must be set, as 10, with a random crop: only fixed crops can be stored.")
    build.require(config)
    p = run.prepare(config, on)
    net = build.trained_tokenizer(config).to(on)
    side, flips = (grid(config), grid(config)), 2 if cfg.flips(config) else 1
    dims = {t.name: t.channels for t in p.targets}
    reader = p.reader if features else None
    if reader is not None and reader.encoder.padding == "right":
        raise ConfigError('generator.text.padding must be "left" for captions to be stored with --features.')
    tokens, codebook = side[0] * side[1], config.tokenizer.quantizer.codebook_size
    texts = _texts(p, reader)
    shape = Shape(len(p.train), size.fixed, flips, tokens, codebook, dims, texts)
    writer = ShardWriter(out, about(config, p.train, None if reader is None else reader.null), shape)
    missing, console = writer.missing(), console or Console()
    with bars(console) as progress:
        total, left = len(p.train), sum(map(len, missing))
        bar = progress.add_task(f"encoding into {out}", total=total, completed=total - left, note="")
        try:
            for block in itertools.chain.from_iterable(_blocks(p, config, part) for part in missing):
                index, pixels, labels = block.index, block.pixels, block.labels
                shown = pixels[:, :, None] if flips == 1 else torch.stack([pixels, pixels.flip(-1)], 2)
                flat = shown.flatten(0, 2).to(on)
                q = torch.cat([net.encode(to_float(x)) for x in flat.split(AT_ONCE)])
                seen = {t.name: in_passes(t, flat, side, config.precision) for t in p.targets}
                lead = shown.shape[:3]
                seen = {name: f.unflatten(0, lead) for name, f in seen.items()}
                said = None if reader is None or texts is None else _read(block.captions or (), reader, texts[0])
                writer.add(index, q.unflatten(0, lead), labels, seen, said)
                progress.advance(bar, len(index))
        except KeyboardInterrupt:
            raise Interrupted(
                f"stopped with {writer.stored} of {total} images in {out}; the same command goes on from there"
            ) from None
    for said in _left_out(p.train, Shards(out)):
        console.print(said, style="yellow", highlight=False, markup=False)


def _left_out(train: Images | Listing, shards: Shards) -> Iterator[str]:
    """Of what was there, and of what is stored."""
    if train.skipped:
        yield train.report()
    if shards.broken:
        yield f"{len(shards.broken)} of {len(shards)} images could not be used: training draws others instead."


def following(args: Sequence[str], config: Config, out: Path, folder: Path) -> str:
    """What to do after `gear encode` with `args`, which gave `config` and wrote `out`: the command that trains on it.

    folder: of that run if it says no other; one more is named where it holds a run already.
    """
    if not isinstance(config.stage, Frozen):
        same = f"the same images and --tokenizer.init {shlex.quote(str(config.tokenizer.init))}"
        return f"a recipe with a frozen tokenizer, as demo-repa, {same}, and --data.codes {shlex.quote(str(out))}"
    given, kept = iter(args), list[str]()
    for arg in given:
        name, equals, _ = arg.partition("=")
        if name in ("--out", "--data.codes"):
            if not equals:
                next(given)
        elif name not in ("--features", "--no-features"):
            kept.append(arg)
    kept += ["--data.codes", str(out)]
    try:
        run.claim(run.in_full(replace(config, data=replace(config.data, codes=str(out)))), folder)
    except ConfigError:
        kept += ["--out", f"{folder}-codes"]
    return shlex.join(["gear", "train", *kept])


def _texts(p: Prepared, reader: Reader | None) -> tuple[int, int, int] | None:
    """Captions of an image at most, rows and channels of each. Where captions are in files, as many as the first `FEW`
    images have."""
    if reader is None or p.train.captions is None:
        return None
    some = range(len(p.train) if isinstance(p.train.captions, tuple | Texts) else min(FEW, len(p.train)))
    return max(_count(p.train.captions[i]) for i in some), reader.encoder.tokens, reader.encoder.width


def _count(source: Source) -> int:
    try:
        return len(read(source))
    except Skip:
        return 1


def _read(captions: Sequence[tuple[str, ...]], reader: Reader, most: int) -> list[Prompts]:
    """Those of each image, read together. Of more than `most`, which is said, the first ones."""
    if more := sum(len(several) > most for several in captions):
        log.warning("%d images have more than %d captions: the further ones are not stored.", more, most)
    kept = [several[:most] for several in captions]
    prompts = reader([text for several in kept for text in several])
    ends = list(itertools.accumulate(map(len, kept), initial=0))
    return [prompts[start:end] for start, end in itertools.pairwise(ends)]


def _blocks(p: Prepared, config: Config, part: range) -> Iterator[Block]:
    """The images `part`, one after the other, with all their views and captions."""
    if isinstance(p.train, Images):
        for start in range(part.start, part.stop, AT_ONCE):
            index = np.arange(start, min(start + AT_ONCE, part.stop))
            pixels = torch.from_numpy(np.ascontiguousarray(p.train.pixels[index]))
            texts = None if p.train.captions is None else tuple(p.train.captions[i] for i in index.tolist())
            yield Block(index, pixels[:, None], torch.from_numpy(p.train.labels[index]), texts)
        return
    yield from in_order(p.train, cropping(config), AT_ONCE, workers=config.data.workers, rows=part)
