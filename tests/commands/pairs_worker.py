"""`gear evaluate reconstruction` with an Inception of one layer, for `test_evaluate_reconstruction`.

pairs_worker.py RUN DATA OUT [CHUNK]        several of it under torchrun share the images, CHUNK at a time
"""

import sys
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor, nn

from gear.commands.evaluate_reconstruction import reconstruction
from gear.evaluate import extract, inception
from gear.evaluate.inception import FidInception

CHANNELS = 6


class Small(FidInception):
    """The means of two halves, so that no chance is in it."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.scale = nn.Parameter(torch.tensor(1 / 255), requires_grad=False)
        self.channels, self.file = {"pool": CHANNELS}, Path("small.safetensors")

    def about(self) -> dict[str, str]:
        return {"name": "small", "sha256": "0"}

    def forward(self, pixels: UInt8[Tensor, "B 3 H W"]) -> dict[str, Tensor]:
        return {"pool": (pixels.float() * self.scale).unflatten(2, (2, -1)).mean((3, 4)).flatten(1)}


def main(run: str, data: str, out: str, chunk: str) -> None:
    extract.CHUNK = int(chunk)
    inception.opened = Small
    reconstruction(run, data=data, out=Path(out), trunk="alex", batch=1, device="cpu")


if __name__ == "__main__":
    main(*sys.argv[1:])
