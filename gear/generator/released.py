"""Public generators, read strictly: LlamaGen's class-conditional files and those of GEAR's trainer, of both conditions.

LlamaGen (c2i_B_256.pt, ...) keeps the tensors under "model" (DDP), "module" (DeepSpeed), "state_dict", or bare (FSDP),
and a moving average, if one was kept, under "ema". GEAR's trainer has "ar", "ema" and "projectors" (`projs.<number>`,
as trained: there is no average of them), and in the same file the tokenizer, the critic and the optimizers. Both name
the tensors as `gear.generator.Generator` does, and both rotate the rows of the condition as its `class_rotary="zero"`
and `Text.rotary="zero"` do. GEAR's text-to-image files have no row for "no caption": no row of text is valid then.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from gear.config import SIZES, Generator, Text
from gear.generator.released_names import (
    NULL,
    NoGenerator,
    ReleasedError,
    check,
    projector_shapes,
    projectors,
    sizes,
    unwrapped,
)
from gear.store import torch_file
from gear.store.foreign import UnreadableFile
from gear.store.whole import replacing

__all__ = ["NoGenerator", "ReleasedError", "ReleasedGenerator", "read", "recognise", "write"]

Layout = Literal["llamagen", "gear"]

HEADS = {(size.layers, size.width): size.heads for size in SIZES.values()} | {(24, 3200): 32}  # the last: LlamaGen-3B
LIVE = ("ar", "model", "module", "state_dict")  # where the trained weights are


@dataclass(frozen=True)
class ReleasedGenerator:
    """A public generator. `tensors` are the whole state of a `Generator` of these sizes and `target_dims`."""

    layers: int
    heads: int
    width: int  # D
    classes: int  # without the null class; 0 with text
    text_width: int | None  # C, of the text encoder's states; None without text
    dual: int  # first blocks with weights of their own for text
    codebook_size: int  # K
    projector: int | None  # hidden width of g_phi; None where the file has no projectors
    target_dims: dict[str, int]  # channels of f(x) by target, in the file's order
    averaged: bool  # `tensors` are the moving average; projectors never are
    tensors: dict[str, Tensor]  # on the CPU, in the file's dtype
    layout: Layout

    @property
    def architecture(self) -> Generator:
        """Its configuration, with the rotation of the condition that public code has. Of a text-to-image generator it
        is taken that it was trained as the paper's: on 300 rows of Qwen3-1.7B."""
        text = None if self.text_width is None else Text(dual=self.dual, rotary="zero", padding="right")
        classes = self.classes if text is None else None
        found = Generator(self.layers, self.heads, self.width, class_rotary="zero", classes=classes, text=text)
        return found if self.projector is None else replace(found, projector=self.projector)


def read(
    path: Path, *, averaged: bool = True, heads: int | None = None, targets: Sequence[str] | None = None
) -> ReleasedGenerator:
    """The generator in a file: every tensor of it, in its shape, finite, and no other. Raises `ReleasedError`, for
    a whole file of something else `NoGenerator`.

    averaged: the moving average where the file has one; False: the trained weights, unless it has only the average.
    heads: needed for sizes that are not LlamaGen's, because no tensor's shape tells.
    targets: names for the projectors, in the file's order. By default the trainer's "args" tell; where they were taken
        out for publication, projectors are numbered "0", "1", ...
    """
    try:
        contents = torch_file.read(path)
    except UnreadableFile as error:
        raise ReleasedError(str(error)) from error
    return recognise(path, contents, averaged=averaged, heads=heads, targets=targets)


def recognise(
    path: Path,
    contents: Mapping[str, Any],
    *,
    averaged: bool = True,
    heads: int | None = None,
    targets: Sequence[str] | None = None,
) -> ReleasedGenerator:
    """`read` of a file that `gear.store.torch_file` has read already; `path` only words the errors."""
    live = next((key for key in LIVE if isinstance(contents.get(key), dict)), None)
    average = isinstance(contents.get("ema"), dict) and (averaged or live is None)
    key = "ema" if average else live
    tensors = unwrapped(path, contents[key] if key else contents)
    tensors.pop("freqs_cis", None)  # the table of rotations, a buffer once; not a weight
    found = sizes(str(path), tensors)
    if (heads := heads or HEADS.get((found.layers, found.width))) is None:
        known = ", ".join(f"{n} of {w}" for n, w in sorted(HEADS))
        raise ReleasedError(
            f"{path} has {found.layers} blocks of width {found.width}; LlamaGen's sizes are {known}. If it should be "
            "one of these, it is not whole: download it again. Else say how many heads it has."
        )
    bank, projector, target_dims = projectors(path, contents, targets)
    tensors |= bank
    check(str(path), tensors, found.shapes() | projector_shapes(found.width, projector or 0, target_dims))
    if found.text_width is not None:
        like = tensors["cls_embedding.cap_proj.fc1.weight"]
        tensors[NULL] = torch.zeros(1, found.text_width, dtype=like.dtype)
    layout = "gear" if contents.keys() & {"ar", "projectors", "vq", "vq_ema"} else "llamagen"
    return ReleasedGenerator(
        layers=found.layers,
        heads=heads,
        width=found.width,
        classes=found.classes,
        text_width=found.text_width,
        dual=found.dual,
        codebook_size=found.codebook_size,
        projector=projector,
        target_dims=target_dims,
        averaged=average,
        tensors=tensors,
        layout=layout,
    )


def write(path: Path, tensors: Mapping[str, Tensor], layout: Layout = "llamagen") -> None:
    """Writes the state of a `Generator` as a file that the public code loads strictly; whole, or not at all.

    "llamagen" has no place for projectors and leaves them out, nor for text, which is refused; "gear" numbers the
    projectors, so `read` needs `targets` to name them again. That code rotates the rows of the condition by a matrix of
    zeros, whatever the file: only a generator with `class_rotary="zero"`, or with `Text(rotary="zero",
    padding="right")` and 300 tokens, computes there what it computes here, and its grid must be square. Our row for "no
    caption" is left out, as that code has none. Raises `ReleasedError` for tensors that are no whole generator, and
    `gear.store.whole.WriteError`.
    """
    ours = {name: tensor.detach().cpu() for name, tensor in tensors.items()}
    bank = {name: ours.pop(name) for name in list(ours) if name.startswith("projectors.")}
    ours.pop(NULL, None)
    what = "the state to be written"
    found = sizes(what, ours)
    check(what, ours, found.shapes())
    if layout == "llamagen" and found.text_width is not None:
        raise ReleasedError(f'{what} is of a text-to-image generator, which only the layout "gear" has.')
    if layout == "llamagen":
        contents: dict[str, Any] = {"model": ours}
    else:
        parts = [(*name.split(".", 2)[1:], tensor) for name, tensor in bank.items()]
        order = list(dict.fromkeys(target for target, _, _ in parts))
        contents = {
            "ar": ours,
            "projectors": {f"projs.{order.index(target)}.{name}": tensor for target, name, tensor in parts},
        }
    with replacing(path) as temporary, temporary.open("wb") as file:
        torch.save(contents, file)
