"""CLIP on a random network of two layers, against transformers' own way from PIL images and texts to logits."""

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from gear.evaluate.clip_score import MEAN, STD, Clip, clip_score, nearest, zero_shot
from gear.store import pretrained
from gear.store.pretrained import PretrainedError

TEXTS = ["a photo of a dog", "red cat", "the blue object is there, the blue object is there, the blue object is there"]


@pytest.fixture(scope="module")
def clip(clip_folder: Path) -> Clip:
    return Clip(str(clip_folder))


def images(n: int = 3, h: int = 64, w: int = 64) -> Tensor:
    return torch.randint(0, 256, (n, 3, h, w), dtype=torch.uint8)


@torch.no_grad()
def test_equals_transformers_on_pil_images(clip: Clip, clip_folder: Path) -> None:
    """The logits are the cosines times the scale; PIL resizes, torchvision's transforms crop and normalise."""
    from torchvision.transforms import v2

    transform = v2.Compose(
        [v2.Resize(32, interpolation=v2.InterpolationMode.BICUBIC), v2.CenterCrop(32), v2.PILToTensor()]
    )
    pixels = images(3, 48, 80)
    seen = torch.stack([transform(Image.fromarray(x.permute(1, 2, 0).numpy())) for x in pixels])
    x = (seen / 255 - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    tokenizer = transformers.CLIPTokenizer.from_pretrained(clip_folder)
    tokens = tokenizer(TEXTS, padding=True, truncation=True, max_length=12, return_tensors="pt")
    model = transformers.CLIPModel.from_pretrained(clip_folder).eval()
    logits = model(pixel_values=x, **tokens).logits_per_image
    expected = 100 * logits.diag() / model.logit_scale.exp()
    score = clip_score(clip.images(pixels), clip.texts(TEXTS))
    torch.testing.assert_close(score, expected.double(), rtol=1e-4, atol=1e-4)
    assert score.min() < 0  # a random network: not cut off at 0


def test_the_score_by_hand() -> None:
    a = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    b = torch.tensor([[0.6, 0.8], [-1.0, 0.0], [0.0, 1.0]])
    assert clip_score(a, b).tolist() == pytest.approx([60, -60, 100], rel=1e-6)


def test_a_text_does_not_depend_on_those_beside_it_nor_an_image(clip: Clip) -> None:
    together = clip.texts(TEXTS)
    for i, text in enumerate(TEXTS):
        torch.testing.assert_close(clip.texts([text])[0], together[i], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(together.norm(dim=1), torch.ones(3))
    pixels = images()
    torch.testing.assert_close(clip.images(pixels[1:2])[0], clip.images(pixels)[1], rtol=1e-4, atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        assert clip.images(pixels).dtype == clip.texts(TEXTS).dtype == torch.float32


def test_zero_shot_is_the_mean_over_templates_at_length_1(clip: Clip) -> None:
    classes = zero_shot(clip, ["red", "blue"], ["a photo of a {}", "a {} dog", "{}"])
    for name, vector in zip(["red", "blue"], classes, strict=True):
        mean = sum(clip.texts([t])[0] for t in (f"a photo of a {name}", f"a {name} dog", name))
        assert isinstance(mean, Tensor)
        torch.testing.assert_close(vector, mean / mean.norm(), rtol=1e-4, atol=1e-5)
    assert nearest(torch.tensor([[0.0, 1.0], [0.9, 0.1]]), torch.eye(2)).tolist() == [1, 0]


def test_what_its_numbers_depend_on(clip: Clip, clip_folder: Path) -> None:
    about = clip.about()
    assert about["sha256"] == {"model.safetensors": pretrained.sha256(clip_folder / "model.safetensors")}
    assert not any(p.requires_grad for p in clip.parameters())


def test_a_folder_of_something_else(clip_folder: Path, tmp_path: Path) -> None:
    for name in ("config.json", "vocab.json", "merges.txt"):
        (tmp_path / name).write_bytes((clip_folder / name).read_bytes())
    with pytest.raises(PretrainedError, match=r"lacks model\.safetensors or pytorch_model\.bin or"):
        Clip(str(tmp_path))
    tensors = load_file(clip_folder / "model.safetensors")
    left = {name: tensor for name, tensor in tensors.items() if "visual_projection" not in name}
    save_file(left, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(PretrainedError, match=r"weights of a CLIPModel: it lacks visual_projection\.weight"):
        Clip(str(tmp_path))
    tensors["visual_projection.weight"] = torch.zeros(3, 16)
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(PretrainedError, match=r"visual_projection\.weight"):
        Clip(str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"no such thing")
    with pytest.raises(PretrainedError, match="cannot be read as a CLIPModel"):
        Clip(str(tmp_path))


def test_without_the_weights_the_ways_to_bring_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        PretrainedError, match=r"hf download openai/clip-vit-base-patch32 --local-dir FOLDER.*or put it"
    ):
        Clip()
    with pytest.raises(PretrainedError, match="is no name of a repository"):
        Clip("no/such/folder")


def test_the_cache_is_looked_into(clip_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEAR_CACHE", str(tmp_path))
    place = pretrained.kept("openai/clip-vit-base-patch32")
    place.parent.mkdir(parents=True)
    place.symlink_to(clip_folder)
    assert Clip().place == place


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(PretrainedError, match=r"pip install 'gear\[text\]'"):
        pretrained.transformers()


def test_arrays_of_images_are_what_it_takes(clip: Clip) -> None:
    """An image of noise and its copy in another order of colours are told apart."""
    x = images(1)
    assert not torch.allclose(clip.images(x), clip.images(x.flip(1)))
    assert np.isfinite(clip.images(x).numpy()).all()
