"""Reconstructions beside their originals: all that is measured of a pair, in one pass over the pairs."""

from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Float, Float64, UInt8
from torch import Tensor, nn

from gear.evaluate.reconstruction import l1, psnr
from gear.evaluate.similarity import ssim, ssim_gaussian
from gear.tokenizer.perceptual import Perceptual

VALUES = ("psnr", "ssim", "ssim_gaussian", "l1", "lpips")  # of an image
LEAST = {"alex": 31, "vgg": 16}  # px, that LPIPS can be taken of


def lpips(net: Perceptual, x_hat: UInt8[Tensor, "B 3 H W"], x: UInt8[Tensor, "B 3 H W"]) -> Float64[Tensor, "B"]:
    """LPIPS v0.1 of each pair over the trunk of `net`, 0 where they are equal; float32's digits.

    Published numbers are over VGG or AlexNet, without always saying which. The image must be as large as `LEAST` says.
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


class Compared(nn.Module):
    """A detector of pairs, an original above its reconstruction in one image of twice the height.

    pool: the FID Inception's features of the reconstruction, 2048. values: `VALUES` of the pair, or those without
    lpips where there is no net. Both float32, whatever surrounds it.
    """

    name = "compared"

    def __init__(self, inception: nn.Module, net: Perceptual | None):
        super().__init__()
        self.inception, self.net = inception, net
        self.names = VALUES if net is not None else VALUES[:-1]
        self.channels = {"pool": 2048, "values": len(self.names)}

    def about(self) -> dict[str, Any]:
        """What its values depend on."""
        return {"name": self.name, "values": list(self.names)}

    @torch.no_grad()
    def forward(self, pixels: UInt8[Tensor, "B 3 HH W"]) -> dict[str, Float[Tensor, "B D"]]:
        x, x_hat = pixels.chunk(2, dim=2)
        values = compared(x_hat, x, self.net)
        return {
            "pool": self.inception(x_hat)["pool"],
            "values": torch.stack([values[name] for name in self.names], dim=1).float(),
        }
