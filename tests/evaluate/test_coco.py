"""Which caption goes with which image, and the mean of the scores."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gear.data import DataError
from gear.evaluate import images
from gear.evaluate.captions import Caption
from gear.evaluate.clip_score import Clip, clip_score
from gear.evaluate.coco import few, metric, paired, scores

CAPTIONS = [
    Caption("139", "A room."),
    Caption("000285", "A bear."),
    Caption("cat", "A cat."),
    Caption("x", "No image."),
]


def folder(path: Path, *names: str) -> images.ImageSource:
    for i, name in enumerate(names):
        Image.new("RGB", (16, 16), (9 * i, 90, 200)).save(path / name)
    return images.opened(path)


def test_images_find_their_captions_by_name(tmp_path: Path) -> None:
    source = folder(tmp_path, "cat.png", "000000000139.jpg", "000000000285.png")
    assert paired(source, CAPTIONS) == ["A room.", "A bear.", "A cat."]  # by name, as the images


def test_images_without_a_caption(tmp_path: Path) -> None:
    source = folder(tmp_path, "cat.png", "dog.png")
    with pytest.raises(DataError, match=r"1 of 2 images in .* have no caption, such as dog: .* such as 139"):
        paired(source, CAPTIONS)


def test_names_that_are_the_same_without_folders_and_zeros(tmp_path: Path) -> None:
    """One of the two would get the other's caption."""
    for name in ("cats", "dogs"):
        (tmp_path / name).mkdir()
    source = folder(tmp_path, "cats/0139.png", "dogs/139.png")
    with pytest.raises(DataError, match=r"images .* cats/0139\.png and dogs/139\.png have one key, 139: .* of its own"):
        paired(source, CAPTIONS)
    (tmp_path / "one").mkdir()
    one = folder(tmp_path / "one", "cat.png")
    with pytest.raises(DataError, match=r"captions 139 and 000139 have one key, 139: .* of its own"):
        paired(one, [*CAPTIONS, Caption("000139", "Another.")])


def test_images_without_names_go_by_order(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", np.full((4, 8, 8, 3), 200, np.uint8))
    assert paired(images.opened(tmp_path / "a.npz"), CAPTIONS) == [c.text for c in CAPTIONS]
    with pytest.raises(DataError, match="there are 4 images and 3 captions"):
        paired(images.opened(tmp_path / "a.npz"), CAPTIONS[:3])


def test_scores_go_with_their_images(clip_folder: Path, tmp_path: Path) -> None:
    clip = Clip(str(clip_folder))
    source = folder(tmp_path, "a.png", "b.png", "c.png")
    pixels = next(source.batches(0, 3, 3))
    seen, texts = clip(pixels)["image"], ["a dog", "red cat", "a photo"]
    expected = clip_score(seen, clip.texts(texts)).numpy()
    np.testing.assert_allclose(scores(clip, seen.numpy(), texts), expected, rtol=1e-5, atol=1e-4)
    found = metric(expected)
    assert found.value == pytest.approx(expected.mean())
    assert found.interval is not None
    assert found.interval[0] <= found.value <= found.interval[1]


def test_what_is_said_of_few() -> None:
    assert few(5000, True) == []
    assert len(few(100, True)) == 2
    assert len(few(100, False)) == 1
