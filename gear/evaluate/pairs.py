"""Reconstructions beside their originals: all that Table 18 measures of them, in one pass over the pairs.

As the paper's release measures them, but that every image counts once and as much as any other: there the last batch,
however short, weighs as much as a whole one, and with several processes some images count twice.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Float64, UInt8
from torch import Tensor, nn

from gear import weights
from gear.evaluate.adm import FEW, Found, MeasureError, counted, kernel_distance
from gear.evaluate.bootstrap import frechet_jackknife, mean_interval
from gear.evaluate.extract import Stored
from gear.evaluate.frechet import frechet
from gear.evaluate.inception import FidInception
from gear.evaluate.reconstruction import l1, psnr
from gear.evaluate.results import Metric
from gear.evaluate.similarity import REACH, ssim, ssim_gaussian
from gear.store.packages import sha256
from gear.tokenizer.perceptual import SMALLEST, Perceptual

VALUES = ("psnr", "ssim", "ssim_gaussian", "l1", "lpips")  # of an image
NOTES = {
    "psnr": "dB, mean over images",
    "ssim": "scikit-image's default: 7 x 7 uniform window",
    "ssim_gaussian": "Wang et al. 2004: 11 x 11 Gaussian window",
    "l1": "of images in [0, 1]",
    "lpips": "v0.1",
}


def lpips(net: Perceptual, x_hat: UInt8[Tensor, "B 3 H W"], x: UInt8[Tensor, "B 3 H W"]) -> Float64[Tensor, "B"]:
    """LPIPS v0.1 of each pair over the trunk of `net`, 0 where they are equal; float32's digits.

    Published numbers are over VGG or AlexNet, without always saying which.
    """
    with torch.autocast(x.device.type, enabled=False):
        return net.lpips(x_hat / 127.5 - 1, x / 127.5 - 1).flatten().double()


def compared(
    x_hat: UInt8[Tensor, "B 3 H W"], x: UInt8[Tensor, "B 3 H W"], net: Perceptual | None = None
) -> dict[str, Float64[Tensor, "B"]]:
    """Each of `VALUES` of each image of a batch, on its device, lpips where there is a net. Raises ValueError for
    images below 11 px."""
    values = {
        "psnr": psnr(x_hat, x),
        "ssim": ssim(x_hat, x),
        "ssim_gaussian": ssim_gaussian(x_hat, x),
        "l1": l1(x_hat, x),
    }
    return values if net is None else values | {"lpips": lpips(net, x_hat, x)}


@torch.no_grad()
def compared_all(
    pairs: Iterable[tuple[UInt8[Tensor, "_ 3 H W"], UInt8[Tensor, "_ 3 H W"]]], net: Perceptual | None = None
) -> dict[str, Float64[Tensor, "n"]]:
    """`compared` of batches (x_hat, x) of any sizes, on the CPU, an entry an image: a mean over them weights images
    alike, those of a short last batch too. Raises ValueError for no batch."""
    parts = [{name: t.cpu() for name, t in compared(x_hat, x, net).items()} for x_hat, x in pairs]
    if not parts:
        raise ValueError("there is nothing to compare: no image came.")
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def require(n: int, resolution: tuple[int, int]) -> None:
    """Raises `MeasureError` for fewer than 4 images, and for images that a Gaussian SSIM's window does not fit in."""
    if n < 4:
        raise MeasureError(f"an rFID needs at least 4 images, and means something with 50,000; {n} came.")
    if min(resolution) <= 2 * REACH:
        raise MeasureError(
            f"SSIM's window needs images of at least {2 * REACH + 1} px; they are {resolution[0]} x {resolution[1]}."
        )


@dataclass(frozen=True)
class Trunk:
    """LPIPS over a network, and the SHA-256 of its file."""

    net: Perceptual
    file: str
    sha256: str


def perceptual(name: Literal["vgg", "alex"], resolution: tuple[int, int]) -> tuple[Trunk | None, list[str]]:
    """LPIPS, or None where its weights are not here or the images are too small, and then a warning."""
    if min(resolution) < SMALLEST[name]:
        return None, [f"lpips is left out: over {name} it needs images of at least {SMALLEST[name]} px."]
    try:
        path = weights.path(f"lpips-{name}")
    except weights.MissingWeight as missing:
        return None, [f"lpips is left out. {missing}"]
    return Trunk(Perceptual(name, path), path.name, sha256(path)), []


class Compared(nn.Module):
    """A detector of pairs, an original above its reconstruction in one image of twice the height.

    original, rebuilt: the pooled features of either that FID takes, 2048. values: those of `VALUES` that are in
    `names`. All in float32. trunk: for lpips; None leaves it out.
    """

    name = "compared"

    def __init__(self, inception: FidInception, trunk: Trunk | None):
        super().__init__()
        self.inception, self.trunk = inception, trunk
        self.net = trunk and trunk.net
        self.names = VALUES[:-1] if trunk is None else VALUES
        pool = inception.channels["pool"]
        self.channels = {"original": pool, "rebuilt": pool, "values": len(self.names)}

    def about(self) -> dict[str, Any]:
        """What its values depend on."""
        lpips = None if self.trunk is None else {"trunk": self.trunk.net.trunk, "sha256": self.trunk.sha256}
        return {"name": self.name, "inception": self.inception.about(), "values": list(self.names), "lpips": lpips}

    def weights(self) -> dict[str, str]:
        """File to SHA-256."""
        mine = {} if self.trunk is None else {self.trunk.file: self.trunk.sha256}
        return {self.inception.file.name: self.inception.about()["sha256"]} | mine

    @torch.no_grad()
    def forward(self, pixels: UInt8[Tensor, "B 3 HH W"]) -> dict[str, Float[Tensor, "B D"]]:
        x, x_hat = pixels.chunk(2, dim=2)
        values = compared(x_hat, x, self.net)
        original, rebuilt = self.inception(torch.cat([x, x_hat]))["pool"].chunk(2)
        rows = torch.stack([values[name] for name in self.names], dim=1).float()
        return {"original": original, "rebuilt": rebuilt, "values": rows}


def reconstruction(pairs: Stored, names: tuple[str, ...], *, seed: int = 0, resamples: bool | None = None) -> Found:
    """rfid, and the mean of each of `names`, of what `Compared` made of the pairs; on rank 0. Each mean has a 95 %
    bootstrap interval over the images.

    resamples: whether rfid has an interval (`frechet_jackknife` over pairs), which takes a minute; None: where n is
    below `FEW`.
    """
    n = pairs.n
    metrics = {"rfid": _rfid(pairs, n < FEW if resamples is None else resamples, seed)}
    metrics["kid"] = kernel_distance(pairs.array("rebuilt"), pairs.array("original"), False, seed)
    for name, values in zip(names, pairs.array("values").T, strict=True):
        low, high = mean_interval(values.astype(np.float64), seed=seed).pair()
        metrics[name] = Metric(values.mean(dtype=np.float64).item(), n, (low, high), NOTES[name])
    return Found(metrics, _few(n, pairs.channels["rebuilt"]))


def _rfid(pairs: Stored, interval: bool, seed: int) -> Metric:
    note = "FID Inception, originals against reconstructions"
    if not interval:
        a, b = (pairs.moments(name).gaussian() for name in ("original", "rebuilt"))
        return Metric(frechet(a, b), pairs.n, note=note)
    with counted("interval of rfid") as progress:
        found = frechet_jackknife(pairs.array("rebuilt"), pairs.array("original"), seed=seed, progress=progress)
    span = (found.interval.low, found.interval.high)
    return Metric(found.value, pairs.n, span, f"{note}; interval at this n, of which few images make {found.bias:.4g}")


def _few(n: int, channels: int) -> list[str]:
    if n < channels:
        return [
            f"rfid: {n:,} images are fewer than the {channels:,} dimensions of the features: their covariances are "
            "singular. Between runs it compares only over the very same images; read psnr and lpips, or give more."
        ]
    if n < 50_000:
        return [
            f"rfid: published numbers are of the 50,000 images of ImageNet's validation set; of {n:,} it is higher, "
            "by a bias that falls with n. Compare only at equal n."
        ]
    return []
