"""What is measured of a run: of class runs with the Inception of FID, of text runs as in `gear demo --text`."""

import math
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int64, UInt8
from rich.console import Console
from torch import Tensor
from torch.nn import functional as F

from gear import data, inference, weights
from gear.commands.drawing import Drawn
from gear.commands.probing import Asked, encoder
from gear.commands.probing import measured as probed
from gear.commands.rebuilding import Beside
from gear.config import Frozen, grid
from gear.data import Images, cifar10
from gear.demo_text.judge import Judge as TextJudge
from gear.evaluate import extract, images, inception, pairs
from gear.evaluate import reference as references
from gear.evaluate.adm import MeasureError, adm
from gear.evaluate.features import PooledEfficientNet
from gear.evaluate.frechet import Gaussian, frechet
from gear.evidence.scales import Counts
from gear.probe.measure import blocks
from gear.run import Pair
from gear.targets.convolutional import fold_norms
from gear.tokenizer.perceptual import Perceptual
from gear.train.batches import to_float

TEST, SIZE = "cifar10-test", (cifar10.SIDE, cifar10.SIDE)
BATCH = 64  # images compared with their reconstructions at once
Numbers = dict[str, int | float]
NEIGHBOURS, PATCHES, TAU = 10, 4096, 0.1  # of the probes


@dataclass(frozen=True)
class Judge:
    """The networks and the images that every arm is measured against, each read when it is first needed."""

    counts: Counts
    on: torch.device
    console: Console

    @cached_property
    def inception(self) -> Any:  # `FidInception`, or what has its features
        net = inception.opened()
        fold_norms(net.net)  # the same features up to rounding, an eighth sooner on a CPU
        return net.to(self.on)

    @cached_property
    def reference(self) -> references.Measured:
        return references.measured(references.opened("cifar10", SIZE, n=self.counts.reference), self.inception)

    @cached_property
    def rebuilt_reference(self) -> Gaussian:
        opened = references.opened(TEST, SIZE, n=self.counts.rebuilt)
        return references.measured(opened, self.inception).moments["pool"]

    @cached_property
    def perceptual(self) -> Perceptual:
        return Perceptual("alex", weights.path("lpips-alex")).to(self.on)

    @cached_property
    def test(self) -> Images:
        return cifar10.images("test")

    def of_texts(self, pair: Pair) -> TextJudge:
        split = data.loaded(pair.checkpoint.config.data, True)
        network = PooledEfficientNet(weights.path("efficientnet_lite1")).to(self.on)
        return TextJudge(network, split.train, split.held_out, pair.checkpoint.config.seed, self.counts.curve)


class Rebuilt(Beside):
    """The reconstructions alone, without their originals."""

    def __init__(self, pair: Pair, originals: images.ImageSource):
        super().__init__(pair, originals)
        self.resolution = originals.resolution

    def about(self) -> dict[str, Any]:
        return super().about() | {"kind": "reconstructions alone"}

    def batches(self, start: int, stop: int, size: int) -> Iterator[UInt8[Tensor, "b 3 H W"]]:
        return (both.chunk(2, dim=2)[1] for both in super().batches(start, stop, size))


def measure(pair: Pair, judge: Judge, folder: Path, n: int) -> dict[str, Any]:
    """All that the run allows; n: images for distances of Inception, 0: without these. What takes minutes is kept in
    `folder` until all is measured, so that the same call goes on where it was broken off."""
    config = pair.checkpoint.config
    if config.generator.text is not None:
        return {"texts": judge.of_texts(pair).measure(pair)[1]["metrics"]}
    found: dict[str, Any] = {}
    if pair.generator is not None:
        found["prediction"] = prediction(pair, judge)
        if n:
            found["samples"] = samples(pair, judge, folder, n)
    if not isinstance(config.stage, Frozen):
        found["reconstruction"] = reconstruction(pair, judge)
        if n:
            found["reconstruction"]["rfid"] = rfid(pair, judge, folder)
    found["probe"] = probe(pair, judge)
    shutil.rmtree(folder, ignore_errors=True)
    return found


def samples(pair: Pair, judge: Judge, folder: Path, n: int) -> Numbers:
    """gFID, sFID, KID, precision and recall of n images, without guidance unless the run's `sampling` has some; n alone
    where all are the same image."""
    drawn = Drawn(pair, n, pair.checkpoint.config.seed)
    kept = extract.features(judge.inception, drawn, n, folder, title="samples", count=("pool", "spatial"))
    try:
        found = adm(kept, judge.reference, seed=0, resamples=False)
    except MeasureError as alike:
        judge.console.print(str(alike), style="yellow", highlight=False, markup=False)
        return {"n": n}
    return {"n": n} | {name: metric.value for name, metric in found.metrics.items()}


def reconstruction(pair: Pair, judge: Judge) -> Numbers:
    """Means over test images of PSNR, SSIM, L1 and LPIPS."""
    n = judge.counts.rebuilt
    both = (each.chunk(2, dim=2) for each in Beside(pair, images.opened(TEST)).batches(0, n, BATCH))
    values = pairs.compared_all(((x_hat, x) for x, x_hat in both), judge.perceptual)
    return {"n": n} | {name: float(each.mean()) for name, each in values.items()}


def rfid(pair: Pair, judge: Judge, folder: Path) -> float:
    """Of test images and their reconstructions."""
    n, rebuilt, title = judge.counts.rebuilt, Rebuilt(pair, images.opened(TEST)), "reconstructions"
    kept = extract.features(judge.inception, rebuilt, n, folder, title=title, count=("pool",), only=("pool",))
    return frechet(kept.moments("pool").gaussian(), judge.rebuilt_reference)


def prediction(pair: Pair, judge: Judge) -> Numbers:
    """The next-token loss of test images and their classes in nats a token, which tells generators on one tokenizer
    apart; the bits that an image's tokens take by it, and those that they take if each codeword is as likely, which
    belong to the tokenizer; the loss of the last token, which no guidance reaches, and of the others of the last row.
    """
    config, n = pair.checkpoint.config, judge.counts.rebuilt
    loss = torch.cat([_losses(pair, judge.test, rows) for rows in torch.arange(n).split(inference.AT_ONCE)])
    mean, tokens, side = loss.mean(0).double(), loss.shape[1], grid(config)
    bits = math.log2(config.tokenizer.quantizer.codebook_size)
    return {
        "n": n,
        "ntp": mean.mean().item(),
        "bits": mean.sum().item() / math.log(2),
        "rate": tokens * bits,
        "ntp_last": mean[-1].item(),
        "ntp_last_row": mean[-side:-1].mean().item(),
    }


@torch.no_grad()
def _losses(pair: Pair, test: Images, rows: Int64[Tensor, "b"]) -> Float[Tensor, "b N"]:
    """Of each token of some test images, in nats."""
    assert pair.generator is not None
    x = to_float(torch.from_numpy(test.pixels[rows.numpy()]).to(pair.on))
    q = pair.tokenizer.encode(x)
    logits = pair.generator(q[:, :-1], torch.from_numpy(test.labels[rows.numpy()]).to(pair.on)).logits
    return F.cross_entropy(logits.mT, q, reduction="none").cpu()


def probe(pair: Pair, judge: Judge) -> dict[str, Any]:
    """Similarity to the target, smoothness and use of the codebook, as `gear probe` has them."""
    asked = Asked(judge.counts.probed, NEIGHBOURS, PATCHES, TAU, seed=0, interpolation="bicubic")
    chosen, file = encoder(pair, None)
    _, found = probed(pair, chosen, file, images.opened(TEST), asked, judge.console)
    size = pair.checkpoint.config.tokenizer.quantizer.codebook_size
    return blocks(found, chosen.name, asked.k, asked.tau, size)
