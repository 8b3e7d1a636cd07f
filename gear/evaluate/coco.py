"""Images and the captions they were drawn from: which goes with which, and the CLIP score (Table 3)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, Float64

from gear.data import DataError
from gear.evaluate.bootstrap import mean_interval
from gear.evaluate.captions import Caption, stem
from gear.evaluate.clip_score import Clip, clip_score
from gear.evaluate.images import Decoded, ImageSource
from gear.evaluate.results import Metric
from gear.progress import bars

AT_ONCE = 256  # texts
USUAL = 5000  # images of the paper's, the validation set of COCO 2017


def paired(source: ImageSource, captions: Sequence[Caption]) -> list[str]:
    """The caption of each image, in the images' order.

    By name where images have one: the name without folder and suffix is the caption's key, leading zeros aside, since
    COCO calls image 139 000000000139.jpg. Images of an .npz have none, and must be as many as captions, in their order.
    Raises `DataError` for an image without a caption, and where two images or two captions have one key.
    """
    if not isinstance(source, Decoded):
        if len(source) != len(captions):
            raise DataError(
                f"images without names go with captions by their order, and must be as many; there are {len(source)} "
                f"images and {len(captions)} captions. A folder of images named by the captions' keys may be fewer."
            )
        return [caption.text for caption in captions]
    texts = {_plain(caption.key): caption.text for caption in captions}
    names = [stem(Path(name).name) for name in source.files.names]
    keys, written = [_plain(name) for name in names], [caption.key for caption in captions]
    _require_own(keys, source.files.names, f"images of {source.path}")
    _require_own([_plain(key) for key in written], written, "captions")
    if without := [name for name, key in zip(names, keys, strict=True) if key not in texts]:
        raise DataError(
            f"{len(without)} of {len(names)} images in {source.path} have no caption, such as {without[0]}: images "
            f"must be named by the captions' keys, such as {captions[0].key}."
        )
    return [texts[key] for key in keys]


def scores(clip: Clip, seen: Float32[np.ndarray, "n D"], texts: Sequence[str]) -> Float64[np.ndarray, "n"]:
    """`clip_score` of each image. seen: by `clip.images`. texts: their captions."""
    parts = []
    with bars() as bar:
        task = bar.add_task("captions", total=len(texts), note="")
        for i in range(0, len(texts), AT_ONCE):
            read = clip.texts(texts[i : i + AT_ONCE]).cpu()
            parts.append(clip_score(torch.from_numpy(seen[i : i + AT_ONCE].copy()), read))
            bar.advance(task, len(read))
    return torch.cat(parts).numpy()


def metric(of: Float64[np.ndarray, "n"], seed: int = 0) -> Metric:
    """The mean, with a 95 % bootstrap interval over the images."""
    span = mean_interval(of, seed=seed) if len(of) > 1 else None
    note = "100 cos, not cut off at 0"
    return Metric(float(of.mean()), len(of), None if span is None else (span.low, span.high), note)


def _plain(key: str) -> str:
    return key.lstrip("0") or "0"


def _require_own(keys: Sequence[str], names: Sequence[str], what: str) -> None:
    """Raises `DataError` for two names with one key."""
    seen: dict[str, str] = {}
    for key, name in zip(keys, names, strict=True):
        if (first := seen.setdefault(key, name)) != name:
            raise DataError(
                f"the {what} {first} and {name} have one key, {key}: without folder, suffix and leading zeros, each "
                "needs a name of its own."
            )


def few(n: int, fid: bool) -> list[str]:
    """What to say of n images."""
    said = []
    if fid and n < 2048:
        said.append(f"fid: {n:,} images are fewer than the 2,048 dimensions of the features: it says little.")
    if n != USUAL:
        said.append(f"the paper's numbers are of the {USUAL:,} images of COCO 2017's validation set, these of {n:,}.")
    return said
