"""Blurred and noisier copies of CIFAR-10's test images through the real networks: every measure must get worse by step.

    python -m bench.ladders --n 512

Half of 2 n images are the reference, the other half are distorted and measured against it (gFID, sFID, KID, precision,
recall) and against themselves (rFID, rsFID, PSNR, SSIM, L1, LPIPS). Ends with 1 if a step of a ladder goes the wrong
way in a measure that has to follow it. Three have not: precision and recall, since distorted images can lie beside
others; and sFID, of which few images have mostly the bias, which falls with the variance that a blur takes away.
"""

import argparse
import json
import sys
from collections.abc import Callable

import torch
from jaxtyping import UInt8
from torch import Tensor
from torchvision.transforms.v2.functional import gaussian_blur

from gear import weights
from gear.data import cifar10
from gear.evaluate import inception, pairs
from gear.evaluate.frechet import Gaussian, frechet, gaussian
from gear.evaluate.kernel import kid
from gear.evaluate.neighbours import precision_recall
from gear.progress import bars
from gear.tokenizer.perceptual import Perceptual

Pixels = UInt8[Tensor, "n 3 H W"]
RISING = ("gfid", "kid", "rfid", "rsfid", "l1", "lpips")
FALLING = ("psnr", "ssim", "ssim_gaussian")
BATCH = 32


def blurred(x: Pixels, sigma: float) -> Pixels:
    return gaussian_blur(x, [13, 13], [sigma, sigma]) if sigma else x


def noisy(x: Pixels, sd: float) -> Pixels:
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0)) * sd
    return (x + noise).round().clamp(0, 255).to(torch.uint8)


LADDERS: dict[str, tuple[Callable[[Pixels, float], Pixels], tuple[float, ...]]] = {
    "blur, sigma in px": (blurred, (0.0, 0.5, 1.0, 2.0)),
    "noise, sd in levels": (noisy, (0.0, 8.0, 16.0, 32.0)),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.ladders", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--n", type=int, default=512)
    n = parser.parse_args().n
    net, lpips = inception.opened(), Perceptual("vgg", weights.path("lpips-vgg"))
    pixels = torch.from_numpy(cifar10.images("test").pixels[: 2 * n].copy())
    reference, x = pixels[:n], pixels[n:]
    names = tuple(name for name in ("pool", "spatial") if name in net.channels)
    seen = features(net, reference, names, "reference")
    against = {name: gaussian(seen[name]) for name in names}
    own: dict[str, Gaussian] = {}
    right = True
    for title, (distort, levels) in LADDERS.items():
        before: dict[str, float] = {}
        for level in levels:
            x_hat = distort(x, level)
            found = features(net, x_hat, names, f"{title} {level:g}")
            own = own or {name: gaussian(found[name]) for name in names}
            pool = found["pool"].numpy()
            near = precision_recall(seen["pool"].numpy(), pool)
            with torch.no_grad():
                paired = [pairs.compared(a, b, lpips) for a, b in zip(x_hat.split(BATCH), x.split(BATCH), strict=True)]
            row = {
                "gfid": frechet(gaussian(found["pool"]), against["pool"]),
                "sfid": frechet(gaussian(found["spatial"]), against["spatial"]),
                "kid": kid(pool, seen["pool"].numpy(), subsets=20, size=n // 2).mean,
                "precision": near.precision,
                "recall": near.recall,
                "rfid": frechet(gaussian(found["pool"]), own["pool"]),
                "rsfid": frechet(gaussian(found["spatial"]), own["spatial"]),
                **{name: torch.cat([part[name] for part in paired]).mean().item() for name in paired[0]},
            }
            print(json.dumps({"ladder": title, "level": level, "n": n} | row), flush=True)
            for name, sign in [(name, 1) for name in RISING] + [(name, -1) for name in FALLING]:
                if before and sign * (row[name] - before[name]) <= 0:
                    print(f"{title}: {name} goes from {before[name]:.4g} to {row[name]:.4g} at {level:g}.")
                    right = False
            before = row
    sys.exit(not right)


@torch.no_grad()
def features(net: torch.nn.Module, x: Pixels, names: tuple[str, ...], title: str) -> dict[str, Tensor]:
    found: dict[str, list[Tensor]] = {name: [] for name in names}
    with bars() as shown:
        bar = shown.add_task(title, total=len(x), note="")
        for part in x.split(BATCH):
            made = net(part)
            for name in names:
                found[name].append(made[name])
            shown.advance(bar, len(part))
    return {name: torch.cat(parts) for name, parts in found.items()}


if __name__ == "__main__":
    main()
