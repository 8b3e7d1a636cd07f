"""PNG files of a folder to what FID and sFID take of them, against the bare forward of their network on ready tensors.

Ours decodes `IMAGES` files of `SIDE` px, resizes them to 299 px as TensorFlow did, and counts means and covariances of
2048 and 2023 channels in float64, all of it beside the network, whose batches are of `BATCH` on both sides. On the CPU,
seconds an image: 90 % of the bare images/s are a ratio of 1.11. What bounds it: the network, 11.4 GFLOP an image, whose
cores all else shares: of 134 ms of one core decoding would be 3 and resizing 9, and adding up covariances 0.17 s for
every call here, for 512 images (`gear.evaluate.extract.CHUNK`) in an evaluation. Where no core is free, that is 1.09
in an evaluation and 1.11 here.

The weights are random where the real ones are not on this machine; the time does not depend on it.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from bench.decoding import photograph
from bench.table import Row, alternating
from gear import weights
from gear.evaluate.extract import Stored, features
from gear.evaluate.images import opened
from gear.evaluate.inception import TRUNK, FidInception, Layers, resized

IMAGES, SIDE, BATCH = 64, 256, 8
ROUNDS = 2
COUNTED = ("pool", "spatial")


def network(folder: Path) -> FidInception:
    try:
        return FidInception(weights.path(TRUNK))
    except weights.MissingWeight:
        torch.manual_seed(0)
        net = Layers(classifier=False)
        for module in net.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)  # torch's own would end in constant features
        path = folder / "inception.safetensors"
        save_file(net.state_dict(), path)
        return FidInception(path)


def run() -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder) / "images"
        images.mkdir()
        for i in range(IMAGES):
            photograph(i).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(images / f"{i:04d}.png")
        source, detector = opened(images), network(Path(folder))
        batches = source.batches(0, IMAGES, BATCH)
        ready = [resized(pixels).contiguous(memory_format=torch.channels_last) for pixels in batches]

        def ours() -> Stored:
            with redirect_stdout(sys.stderr):  # the progress bar
                return features(detector, source, IMAGES, batch=BATCH, count=COUNTED)

        @torch.no_grad()
        def plain() -> Tensor:
            return torch.cat([detector.net(x)["pool"] for x in ready])

        measured = ours()
        torch.testing.assert_close(torch.from_numpy(measured.array("pool")), plain())  # or speed is worth nothing
        assert all(measured.moments(name).n == IMAGES for name in COUNTED)

        def seconds(side: Callable[[], object]) -> float:
            start = time.perf_counter()
            side()
            return (time.perf_counter() - start) / IMAGES

        t, spread = alternating({"ours": partial(seconds, ours), "plain": partial(seconds, plain)}, ROUNDS)
    return [Row("FID Inception", "s", t["ours"], t["plain"], 1 / 0.9, spread, f"network, {1 / t['ours']:.0f} images/s")]


if __name__ == "__main__":
    from bench.table import show

    show(run(), f"{torch.get_num_threads()} threads, torch {torch.__version__}")
