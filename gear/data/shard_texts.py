"""The captions of stored images, as a text encoder sees them: up to G of an image, T rows of C channels, padded in
front."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from gear.prompts import Prompts


def arrays(images: int, shape: tuple[int, int, int]) -> dict[str, tuple[tuple[int, ...], Any]]:
    """Name -> shape and dtype of what a shard of so many images holds: states, rows that are text, captions each."""
    return {
        "texts": ((images, *shape), np.float16),
        "text_lengths": ((images, shape[0]), np.int32),
        "caption_counts": ((images,), np.int32),
    }


def packed(texts: Sequence[Prompts] | None, images: int, shape: tuple[int, int, int] | None) -> dict[str, Tensor]:
    """Those arrays. Raises ValueError for captions that do not fit `shape`, (G, T, C)."""
    if (texts is None) != (shape is None) or (texts is not None and len(texts) != images):
        raise ValueError("texts must be given of every image where the shape has texts, and of none else.")
    if texts is None or shape is None:
        return {}
    most, length, channels = shape
    states = torch.zeros(images, *shape, dtype=torch.float16)
    lengths = torch.zeros(images, most, dtype=torch.int32)
    for row, several in enumerate(texts):
        valid = several.valid.cpu()
        size = valid.sum(1)
        in_front = several.states.shape[1] == length and torch.equal(
            valid, torch.arange(length) >= length - size[:, None]
        )
        if len(several) > most or several.states.shape[2] != channels or not in_front:
            raise ValueError(
                f"an image has up to {most} captions of {length} rows of {channels}, padded in front; "
                f"{tuple(several.states.shape)} came."
            )
        states[row, : len(several)] = several.states.half().cpu()
        lengths[row, : len(several)] = size
    counts = torch.tensor([len(several) for several in texts], dtype=torch.int32)
    return {"texts": states, "text_lengths": lengths, "caption_counts": counts}


def chosen(
    shards: Sequence[Mapping[str, np.ndarray]],
    inside: Int64[np.ndarray, "B"],
    which: Float64[np.ndarray, "B"],
    shape: tuple[int, int, int],
    pin: bool,
) -> Prompts:
    """Of each image, given by its shard and its place inside, the caption that `which` in [0, 1) falls on."""
    _, length, channels = shape
    states = torch.empty(len(inside), length, channels, dtype=torch.float16, pin_memory=pin)
    valid = torch.empty(len(inside), length, dtype=torch.bool, pin_memory=pin)
    into, filled = states.numpy(), valid.numpy()
    for row, (shard, image, u) in enumerate(zip(shards, inside, which, strict=True)):
        caption = int(u * shard["caption_counts"][image])
        into[row] = shard["texts"][image, caption]
        filled[row] = np.arange(length) >= length - shard["text_lengths"][image, caption]
    return Prompts(states, valid)
