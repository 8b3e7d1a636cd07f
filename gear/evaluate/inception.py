"""The Inception network that FID, sFID, Inception Score, KID, precision and recall are defined in.

It is TensorFlow's of December 2015 (classify_image_graph_def.pb) in the layers of torch-fidelity, which differ from
torchvision's in their pooling. A number made with any other Inception, or another resize, is another number.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn
from torch_fidelity.feature_extractor_inceptionv3 import (
    BasicConv2d,
    InceptionA,
    InceptionB,
    InceptionC,
    InceptionD,
    InceptionE_1,
    InceptionE_2,
)

from gear import weights
from gear.store.packages import sha256
from gear.targets import files

SIDE = 299  # px at which every image is read
SPATIAL = 7  # channels of sFID
WHOLE, TRUNK = "inception-torch-fidelity", "inception-fid"  # in the registry: with the classifier, and without


class FidInception(nn.Module):
    """Pooled, spatial and class features of one pass, as ADM's evaluator takes them from the graph.

    pool: `pool_3`, 2048 values. spatial: the first 7 channels of `mixed_6/conv`, which is the rectified 1x1 branch of
    torch-fidelity's Mixed_6d and therefore the first channels of that block's output, 17 x 17 of them, a position's 7
    beside each other. logits: 1008, without their bias, as ADM's evaluator and torch-fidelity's "logits_unbiased" have
    them; only where the weights have the classifier.

    weights_path: torch-fidelity's file, or what `gear fetch inception-fid` makes. Raises ValueError for another.
    """

    name = "fid_inception"

    def __init__(self, weights_path: Path):
        super().__init__()
        tensors = files.read(weights_path)
        with torch.device("meta"):
            self.net = Layers(classifier="fc.weight" in tensors)
        counts = [name for name in self.net.state_dict() if name.endswith("num_batches_tracked")]
        tensors = dict.fromkeys(counts, torch.tensor(0)) | tensors  # which say nothing here, and only some files have
        files.fill(self.net, tensors, weights_path, "the FID Inception")
        self.net.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.channels = {"pool": 2048, "spatial": 17 * 17 * SPATIAL} | ({"logits": 1008} if self.net.fc else {})
        self.file = weights_path

    def about(self) -> dict[str, Any]:
        """What its features depend on."""
        return {
            "name": self.name,
            "sha256": sha256(self.file),
            "resize": f"bilinear to {SIDE} px as in TensorFlow 1, not antialiased",
            "precision": "float32",
        }

    @torch.no_grad()
    def forward(self, pixels: UInt8[Tensor, "B 3 H W"]) -> dict[str, Float[Tensor, "B D"]]:
        """float32, even under autocast, and without TF32, whose 10 bits would move the distances."""
        with torch.autocast(pixels.device.type, enabled=False), _exact():
            x = resized(pixels)
            return self.net(x.contiguous(memory_format=torch.channels_last))


def resized(pixels: UInt8[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 299 299"]:
    """As the graph does it: bilinear from the top left corner, then (x - 128) / 128.

    To the bit what torch-fidelity's `interpolate_bilinear_2d_like_tensorflow1x` gives, in a third of the time: rows are
    interpolated once, not for both of the rows that each comes between.
    """
    (top, bottom, dy), (left, right, dx) = (_between(n, pixels.device) for n in pixels.shape[2:])
    x = pixels.float()
    x, other = x.index_select(3, left), x.index_select(3, right)
    x = other.sub_(x).mul_(dx).add_(x)
    x, other = x.index_select(2, top), x.index_select(2, bottom)
    return other.sub_(x).mul_(dy[:, None]).add_(x).sub_(128).div_(128)


def _between(n: int, device: torch.device) -> tuple[Int64[Tensor, "s"], Int64[Tensor, "s"], Float[Tensor, "s"]]:
    """Of each output row or column the two inputs it lies between, and how far from the first."""
    at = torch.arange(SIDE, dtype=torch.float32, device=device) * torch.tensor(n / SIDE, dtype=torch.float32)
    low = at.long()
    return low, (low + 1).clamp_max(n - 1), at - low


@contextmanager
def _exact() -> Iterator[None]:
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def opened() -> FidInception:
    """With the classifier where its weights are on this machine, else without. Raises `gear.weights.MissingWeight`."""
    try:
        return FidInception(weights.path(WHOLE))
    except weights.MissingWeight:
        return FidInception(weights.path(TRUNK))


class Layers(nn.Module):
    """Named as in torch-fidelity's file."""

    def __init__(self, classifier: bool):
        super().__init__()
        self.Conv2d_1a_3x3 = BasicConv2d(3, 32, kernel_size=3, stride=2)
        self.Conv2d_2a_3x3 = BasicConv2d(32, 32, kernel_size=3)
        self.Conv2d_2b_3x3 = BasicConv2d(32, 64, kernel_size=3, padding=1)
        self.Conv2d_3b_1x1 = BasicConv2d(64, 80, kernel_size=1)
        self.Conv2d_4a_3x3 = BasicConv2d(80, 192, kernel_size=3)
        self.Mixed_5b = InceptionA(192, pool_features=32)
        self.Mixed_5c = InceptionA(256, pool_features=64)
        self.Mixed_5d = InceptionA(288, pool_features=64)
        self.Mixed_6a = InceptionB(288)
        self.Mixed_6b = InceptionC(768, channels_7x7=128)
        self.Mixed_6c = InceptionC(768, channels_7x7=160)
        self.Mixed_6d = InceptionC(768, channels_7x7=160)
        self.Mixed_6e = InceptionC(768, channels_7x7=192)
        self.Mixed_7a = InceptionD(768)
        self.Mixed_7b = InceptionE_1(1280)
        self.Mixed_7c = InceptionE_2(2048)
        self.fc = nn.Linear(2048, 1008) if classifier else None

    def forward(self, x: Float[Tensor, "B 3 299 299"]) -> dict[str, Float[Tensor, "B _"]]:
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(nn.functional.max_pool2d(x, 3, 2)))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(nn.functional.max_pool2d(x, 3, 2))))
        x = self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x))))
        found = {"spatial": x[:, :SPATIAL].permute(0, 2, 3, 1).flatten(1)}
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(self.Mixed_6e(x)))).mean((2, 3))
        found = {"pool": x} | found
        return found if self.fc is None else found | {"logits": x @ self.fc.weight.T}
