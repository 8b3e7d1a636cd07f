"""The eyes of our GenEval: Mask2Former (Cheng et al. 2022) finds objects, CLIP tells their colours, by transformers.

The official scorer has Mask2Former of the same size on the same Swin-S, trained by mmdetection, and the same CLIP
ViT-L/14 in open_clip; what is done before and after the networks is done here as there.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float32, UInt8
from PIL import Image
from torch import Tensor, nn

from gear.evaluate.clip_score import LARGE, Clip, nearest, zero_shot
from gear.evaluate.geneval import THRESHOLD, Found
from gear.evaluate.prompts import COLOURS
from gear.store import pretrained

DETECTOR = "facebook/mask2former-swin-small-coco-instance"
SHORT, LONG = 800, 1333  # px: the short side is resized to one, unless the long side would exceed the other
MULTIPLE = 32  # px to which sides are filled up
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
MOST = 100  # objects of an image
GREY = "#999"  # what lies around an object when its colour is told
TEMPLATES = ("a photo of a {{}} {}", "a photo of a {{}}-colored {}", "a photo of a {{}} object")
# The 80 classes of COCO in their order, in GenEval's words.
NAMES = tuple(
    """person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, stop sign,
    parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, backpack, umbrella,
    handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove, skateboard,
    surfboard, tennis racket, bottle, wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange,
    broccoli, carrot, hot dog, pizza, donut, cake, chair, couch, potted plant, bed, dining table, toilet, tv, laptop,
    computer mouse, tv remote, computer keyboard, cell phone, microwave, oven, toaster, sink, refrigerator, book, clock,
    vase, scissors, teddy bear, hair drier, toothbrush""".replace("\n", " ").split(", ")
)
CLASSES = tuple(" ".join(name.split()) for name in NAMES)


class Mask2Former(nn.Module):
    """B images -> what is in each, above `least`, with its mask; float32 even under autocast.

    model: a folder of transformers' files, or a name on the hub. Raises `PretrainedError` for anything but an instance
    segmentation of COCO's 80 classes.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: str = DETECTOR, short: int = SHORT, long: int = LONG, least: float = THRESHOLD):
        super().__init__()
        self.place, self.model = pretrained.folder(model), model
        self.net = pretrained.load("Mask2FormerForUniversalSegmentation", self.place)
        names = {int(i): name for i, name in self.net.config.id2label.items()}
        if len(names) != len(CLASSES) or names[0] != CLASSES[0] or names[79] != CLASSES[79]:
            raise pretrained.PretrainedError(
                f"{model} knows {len(names)} classes from {names.get(0)}; GenEval needs COCO's 80 objects, from person "
                f"to toothbrush, as {DETECTOR} has them."
            )
        self.short, self.long, self.least = short, long, least
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None])
        self.register_buffer("std", torch.tensor(STD)[:, None, None])

    @torch.no_grad()
    def forward(self, pixels: UInt8[Tensor, "B 3 H W"]) -> list[list[Found]]:
        H, W = pixels.shape[2:]
        scale = min(self.short / min(H, W), self.long / max(H, W))
        h, w = int(H * scale + 0.5), int(W * scale + 0.5)
        with torch.autocast(pixels.device.type, enabled=False):
            x = F.interpolate(pixels.float(), (h, w), mode="bilinear")
            x = F.pad((x / 255 - self.mean) / self.std, (0, -w % MULTIPLE, 0, -h % MULTIPLE))
            out = self.net(pixel_values=x)
            found = []
            for classes, masks in zip(out.class_queries_logits, out.masks_queries_logits, strict=True):
                masks = F.interpolate(masks[None], x.shape[2:], mode="bilinear")[:, :, :h, :w]
                found.append(objects(classes, F.interpolate(masks, (H, W), mode="bilinear")[0], self.least))
        return found

    def about(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "sha256": pretrained.digests(self.place),
            "resize": f"bilinear, short side {self.short}, long side at most {self.long}",
            "transformers": pretrained.transformers().__version__,
        }


def objects(classes: Float[Tensor, "Q K1"], masks: Float[Tensor, "Q H W"], least: float) -> list[Found]:
    """Logits of Q queries -> objects, the surest first (mmdetection's rule).

    The 100 surest pairs of query and class, the last class being none. A score is the softmax times the mean of the
    sigmoid within the mask, which is where the logit is above 0; the box is the mask's.
    """
    scores = classes.softmax(1)[:, :-1]
    top = scores.flatten().topk(min(MOST, scores.numel()))
    queries = top.indices // scores.shape[1]
    inside = masks > 0
    size = inside.flatten(1).sum(1)
    sure = (masks.sigmoid() * inside).flatten(1).sum(1) / (size + 1e-6)
    total = (top.values * sure[queries]).cpu()
    columns, rows = inside.any(1).cpu(), inside.any(2).cpu()
    labels, of = (top.indices % scores.shape[1]).tolist(), queries.tolist()
    shapes: dict[int, np.ndarray] = {}
    found = []
    for i in total.argsort(descending=True, stable=True).tolist():
        if total[i] <= least:
            break
        if (query := of[i]) not in shapes:
            shapes[query] = inside[query].cpu().numpy()
        (left, right), (top_, bottom) = (_span(line[query]) for line in (columns, rows))
        found.append(Found(CLASSES[labels[i]], total[i].item(), (left, top_, right, bottom), shapes[query]))
    return found


def _span(line: Bool[Tensor, "n"]) -> tuple[float, float]:
    """The first that is set, and one behind the last."""
    at = line.nonzero()[:, 0]
    return float(at[0]), float(at[-1] + 1)


class Painter:
    """Tells colours: the ten of GenEval by CLIP's nearest text, of an object alone on grey.

    As in the official scorer: three templates a colour, crops by the box, what is outside the mask painted over.
    """

    def __init__(self, clip: Clip | None = None):
        self.clip = clip or Clip(LARGE)
        self.texts: dict[str, Float32[Tensor, "K D"]] = {}

    def colours(self, pixels: UInt8[Tensor, "3 H W"], name: str, group: Sequence[Found]) -> list[str]:
        if name not in self.texts:
            self.texts[name] = zero_shot(self.clip, COLOURS, [template.format(name) for template in TEMPLATES])
        image = Image.fromarray(pixels.permute(1, 2, 0).cpu().numpy())
        seen = torch.cat([self.clip.images(self._crop(image, one)) for one in group])
        return [COLOURS[i] for i in nearest(seen, self.texts[name]).tolist()]

    def _crop(self, image: Image.Image, one: Found) -> UInt8[Tensor, "1 3 h w"]:
        if one.mask is not None:
            image = Image.composite(image, Image.new("RGB", image.size, GREY), Image.fromarray(one.mask))
        crop = np.array(image.crop(one.box))
        return torch.from_numpy(crop).permute(2, 0, 1)[None].to(self.clip.mean.device)
