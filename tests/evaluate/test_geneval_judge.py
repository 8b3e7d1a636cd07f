"""Detector and painter on random networks, and what is made of a network's output, by hand and against loops."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from torch import Tensor
from transformers.image_utils import SizeDict

from gear.evaluate.clip_score import Clip
from gear.evaluate.geneval import Found
from gear.evaluate.geneval_judge import CLASSES, Mask2Former, Painter, objects
from gear.evaluate.prompts import COLOURS
from gear.store.pretrained import PretrainedError


def blob(top: int, left: int, bottom: int, right: int, logit: float) -> Tensor:
    mask = torch.full((20, 30), -5.0)
    mask[top:bottom, left:right] = logit
    return mask


def test_objects_by_hand() -> None:
    """Query 0 is surely a person with a mask of sigmoid(2); query 1 a dog or a cat; query 2 nothing; query 3 a dog
    without a mask."""
    classes = torch.full((4, 81), -10.0)
    classes[0, 0] = classes[2, 80] = classes[3, 16] = 10
    classes[1, [15, 16]] = torch.tensor([1.0, 2.0])
    masks = torch.stack(
        [blob(2, 3, 10, 14, 2.0), blob(0, 20, 20, 30, 5.0), blob(0, 0, 9, 9, 5.0), blob(0, 0, 0, 0, 0.0)]
    )
    first, second, third = objects(classes, masks, least=0.2)
    sure = torch.tensor(2.0).sigmoid().item()
    assert (first.label, first.box) == ("person", (3, 2, 14, 10))
    assert first.score == pytest.approx(sure, abs=1e-4)
    assert first.mask is not None
    assert first.mask.sum() == 8 * 11
    two = torch.tensor([1.0, 2.0]).softmax(0) * torch.tensor(5.0).sigmoid()
    assert (second.label, third.label) == ("dog", "cat")
    assert [second.score, third.score] == pytest.approx([two[1].item(), two[0].item()], abs=1e-3)
    assert second.box == third.box == (20, 0, 30, 20)


def test_objects_equal_loops() -> None:
    classes, masks = 2 * torch.randn(6, 81), torch.randn(6, 12, 10)
    expected = []
    for q in range(6):
        inside = masks[q] > 0
        sure = masks[q][inside].sigmoid().mean().item()
        rows, columns = np.nonzero(inside.numpy())
        box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        expected += [(classes[q].softmax(0)[k].item() * sure, CLASSES[k], box) for k in range(80)]
    expected = sorted((one for one in expected if one[0] > 0.05), reverse=True)
    got = objects(classes, masks, least=0.05)
    assert len(got) > 3
    assert [(one.label, one.box) for one in got] == [(label, box) for _, label, box in expected]
    assert [one.score for one in got] == pytest.approx([score for score, _, _ in expected], rel=1e-4)


@pytest.fixture(scope="module")
def detector(mask2former_folder: Path) -> Mask2Former:
    return Mask2Former(str(mask2former_folder), short=64, long=100, least=0.0)


@torch.no_grad()
def test_the_detector_equals_its_parts(detector: Mask2Former, mask2former_folder: Path) -> None:
    """An image of 32 x 64 px becomes 50 x 100, the long side's limit, in a canvas of 64 x 128."""
    pixels = torch.randint(0, 256, (2, 3, 32, 64), dtype=torch.uint8)
    found = detector(pixels)
    processor: Any = transformers.Mask2FormerImageProcessor(
        size={"height": 50, "width": 100}, image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225]
    )
    canvas = SizeDict(height=64, width=128)
    x = processor(images=list(pixels), pad_size=canvas, return_tensors="pt").pixel_values
    assert x.shape == (2, 3, 64, 128)
    net = transformers.Mask2FormerForUniversalSegmentation.from_pretrained(mask2former_folder).eval()
    out = net(pixel_values=x)
    grow = torch.nn.functional.interpolate
    for i in range(2):
        masks = grow(out.masks_queries_logits[i : i + 1], (64, 128), mode="bilinear")[:, :, :50, :100]
        expected = objects(out.class_queries_logits[i], grow(masks, (32, 64), mode="bilinear")[0], 0.0)
        assert len(found[i]) == len(expected) > 0
        assert sorted(one.score for one in found[i]) == pytest.approx(sorted(e.score for e in expected), abs=1e-3)
        assert found[i][0].mask is not None
        assert found[i][0].mask.shape == (32, 64)


def test_another_segmentation_is_refused(mask2former_folder: Path, tmp_path: Path) -> None:
    for file in mask2former_folder.iterdir():
        text = file.read_bytes()
        (tmp_path / file.name).write_bytes(text.replace(b'"toothbrush"', b'"lamp post"'))
    with pytest.raises(PretrainedError, match="GenEval needs COCO's 80 objects"):
        Mask2Former(str(tmp_path))


def test_the_painter_sees_the_object_alone_on_grey(clip_folder: Path) -> None:
    """A red disc on blue, and the same cropped with grey around it, are one to the network."""
    painter = Painter(Clip(str(clip_folder)))
    y, x = np.mgrid[:40, :50]
    mask = (x - 20) ** 2 + (y - 18) ** 2 < 100
    picture = np.where(mask[..., None], (255, 0, 0), (0, 0, 255)).astype(np.uint8)
    pixels = torch.from_numpy(picture).permute(2, 0, 1)
    one = Found("dog", 0.9, (11.0, 9.0, 30.0, 28.0), mask)
    crop = painter._crop(Image.fromarray(picture), one)
    assert crop.shape == (1, 3, 19, 19)
    expected = np.where(mask[9:28, 11:30, None], (255, 0, 0), 0x99)
    assert torch.equal(crop[0].permute(1, 2, 0), torch.from_numpy(expected.astype(np.uint8)))
    seen = painter.colours(pixels, "dog", [one, Found("dog", 0.8, (0.0, 0.0, 50.0, 40.0))])
    assert len(seen) == 2
    assert set(seen) <= set(COLOURS)
    texts = painter.clip.texts(
        [
            t
            for c in COLOURS
            for t in (f"a photo of a {c} dog", f"a photo of a {c}-colored dog", f"a photo of a {c} object")
        ]
    )
    classes = texts.unflatten(0, (10, 3)).mean(1)
    sharp = painter.clip.images(crop) @ (classes / classes.norm(dim=1, keepdim=True)).T
    assert seen[0] == COLOURS[int(sharp.argmax())]
