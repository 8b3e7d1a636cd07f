"""Public class-conditional generators, read strictly: LlamaGen's files and those of GEAR's trainer.

LlamaGen (c2i_B_256.pt, ...) keeps the tensors under "model" (DDP), "module" (DeepSpeed), "state_dict", or bare (FSDP),
and a moving average, if one was kept, under "ema". GEAR's trainer has "ar", "ema" and "projectors" (`projs.<number>`,
as trained: there is no average of them), and in the same file the tokenizer, the critic and the optimizers. Both name
the tensors as `gear.generator.Generator` does, and both rotate the class token as its `class_rotary="zero"` does.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from gear.config import SIZES, Generator
from gear.generator.layers import hidden_width
from gear.store import torch_file
from gear.store.foreign import UnreadableFile
from gear.store.strict import Like, clean, faults, some
from gear.store.whole import replacing

Layout = Literal["llamagen", "gear"]

HEADS = {(size.layers, size.width): size.heads for size in SIZES.values()} | {(24, 3200): 32}  # the last: LlamaGen-3B
LIVE = ("ar", "model", "module", "state_dict")  # where the trained weights are
FLOATS = {torch.float16, torch.bfloat16, torch.float32, torch.float64}
ENCODERS = {  # targets as GEAR's trainer has them in --enc-type, and here
    "dinov2": "dinov2-{}",
    "dinov2_reg": "dinov2-{}-reg",
    "dinov3": "dinov3-{}",
    "siglip2": "siglip2-{}",
    "jepa21": "vjepa2.1-{}",
    "clip": "clip-{}",
}


class ReleasedError(ValueError):
    """A file that is not one whole class-conditional generator: which, what is wrong, what to do."""


class NoGenerator(ReleasedError):
    """A whole file of weights, but not of a generator: it may be for another reader."""


@dataclass(frozen=True)
class ReleasedGenerator:
    """A public generator. `tensors` are the whole state of a `Generator` of these sizes and `target_dims`."""

    layers: int
    heads: int
    width: int  # D
    classes: int  # without the null class
    codebook_size: int  # K
    projector: int | None  # hidden width of g_phi; None where the file has no projectors
    target_dims: dict[str, int]  # channels of f(x) by target, in the file's order
    averaged: bool  # `tensors` are the moving average; projectors never are
    tensors: dict[str, Tensor]  # on the CPU, in the file's dtype
    layout: Layout

    @property
    def architecture(self) -> Generator:
        """Its configuration, with the rotation of the class token that public code has."""
        sizes = Generator(self.layers, self.heads, self.width, class_rotary="zero", classes=self.classes)
        return sizes if self.projector is None else replace(sizes, projector=self.projector)


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
    tensors = _unwrapped(path, contents[key] if key else contents)
    tensors.pop("freqs_cis", None)  # the table of rotations, a buffer once; not a weight
    sizes = _sizes(str(path), tensors)
    layers, width, codebook_size, classes = sizes
    if (heads := heads or HEADS.get((layers, width))) is None:
        known = ", ".join(f"{n} of {w}" for n, w in sorted(HEADS))
        raise ReleasedError(
            f"{path} has {layers} blocks of width {width}; LlamaGen's sizes are {known}. If it should be one of these, "
            "it is not whole: download it again. Else say how many heads it has."
        )
    bank, projector, target_dims = _projectors(path, contents, targets)
    tensors |= bank
    _check(str(path), tensors, _shapes(*sizes) | _projector_shapes(width, projector or 0, target_dims))
    layout = "gear" if contents.keys() & {"ar", "projectors", "vq", "vq_ema"} else "llamagen"
    return ReleasedGenerator(
        *(layers, heads, width, classes, codebook_size, projector, target_dims, average, tensors, layout)
    )


def write(path: Path, tensors: Mapping[str, Tensor], layout: Layout = "llamagen") -> None:
    """Writes the state of a `Generator` as a file that the public code loads strictly; whole, or not at all.

    "llamagen" has no place for projectors and leaves them out; "gear" numbers them, so `read` needs `targets` to name
    them again. That code rotates the class token by a matrix of zeros, whatever the file: only a generator with
    `class_rotary="zero"` computes there what it computes here, and its grid must be square. Raises `ReleasedError` for
    tensors that are no whole generator, and `gear.store.whole.WriteError`.
    """
    ours = {name: tensor.detach().cpu() for name, tensor in tensors.items()}
    bank = {name: ours.pop(name) for name in list(ours) if name.startswith("projectors.")}
    _check("the state to be written", ours, _shapes(*_sizes("the state to be written", ours)))
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


# ---------------------------------------------------------------------------------------------------- names


def _unwrapped(path: Path, found: Mapping[Any, Any]) -> dict[str, Tensor]:
    """Without the wrappers' prefixes. What is no generator is refused by what it is."""
    tensors: dict[str, Tensor] = {}
    for name, value in found.items():
        if (short := clean(str(name))) in tensors:
            raise ReleasedError(f"{path} has {short} twice, under different prefixes.")
        tensors[short] = value
    if any(re.match(r"(encoder|decoder|quantize|quant_conv|vq|vq_ema)(\.|$)", name) for name in tensors):
        raise NoGenerator(f"{path} holds an image tokenizer, not a generator; it belongs in tokenizer.init.")
    if any(re.search(r"^cls_embedding\.(cap_proj|uncond_embedding)|_text\.", name) for name in tensors):
        raise ReleasedError(f"{path} holds a text-to-image generator; a class-conditional one (c2i) is needed.")
    if others := [name for name, value in tensors.items() if not isinstance(value, Tensor)]:
        kind = ReleasedError if "tok_embeddings.weight" in tensors else NoGenerator
        raise kind(f"{path} is no generator's state: {some(others, ', ')} should be tensors.")
    return tensors


def _projectors(
    path: Path, contents: Mapping[str, Any], targets: Sequence[str] | None
) -> tuple[dict[str, Tensor], int | None, dict[str, int]]:
    """GEAR's projectors by our names, their hidden width, and the channels of each target."""
    if not isinstance(contents.get("projectors"), dict) or not contents["projectors"]:
        return {}, None, {}
    bank = _unwrapped(path, contents["projectors"])
    parts = {name: re.fullmatch(r"projs\.(\d{1,4})\.(.+)", name) for name in bank}
    if strange := [name for name, part in parts.items() if part is None]:
        raise ReleasedError(f"{path} has projectors that are not called projs.<number>: {some(strange, ', ')}.")
    numbers = sorted({int(part[1]) for part in parts.values() if part})
    names = list(targets or _encoders(contents.get("args")) or map(str, numbers))
    if not len(names) == len(set(names)) == len(numbers):
        raise ReleasedError(f"{path} has {len(numbers)} projectors, for as many targets, not for {', '.join(names)}.")
    target = dict(zip(numbers, names, strict=True))
    renamed = {f"{_module(target[int(part[1])])}.{part[2]}": bank[name] for name, part in parts.items() if part}
    target_dims = {name: _rows(bank, f"projs.{number}.4.weight") for number, name in target.items()}
    return renamed, _rows(bank, f"projs.{numbers[0]}.0.weight"), target_dims


def _module(target: str) -> str:
    """The projector of a target; a module's name has no dots, which a target's may (vjepa2.1-b)."""
    return f"projectors.{target.replace('.', '_')}"


def _encoders(args: Any) -> list[str] | None:
    """Our names of the targets that a run of GEAR's trainer had, `type-vit-size,...`; None if they are not known."""
    given = args.get("enc_type") if isinstance(args, dict) else None
    if not isinstance(given, str):
        return None
    names = []
    resolution = args.get("image_size")  # anything at all may be there
    for kind, _, size in (encoder.split("-") for encoder in given.split(",") if encoder.count("-") == 2):
        large = "-512" if kind == "siglip2" and isinstance(resolution, int) and resolution == 512 else ""
        names.append(ENCODERS[kind].format(size.lower()) + large if kind in ENCODERS else "")
    return names if names and all(names) else None


# ---------------------------------------------------------------------------------------------------- shapes


def _sizes(what: str, tensors: Mapping[str, Tensor]) -> tuple[int, int, int, int]:
    """Layers, width, codebook size, classes."""
    embedding = tensors.get("tok_embeddings.weight")
    if embedding is None or embedding.ndim != 2:
        raise NoGenerator(
            f"{what} holds no LlamaGen generator: tok_embeddings.weight (K, width) is not among {some(tensors, ', ')}."
        )
    layers = [int(number[1]) + 1 for name in tensors if (number := re.match(r"layers\.(\d{1,4})\.", name))]
    classes = _rows(tensors, "cls_embedding.embedding_table.weight") - 1
    if "cls_embedding.embedding_table.weight" in tensors and classes < 1:
        raise ReleasedError(f"{what} has no classes: cls_embedding.embedding_table.weight needs two rows or more.")
    return max(layers, default=0), embedding.shape[1], embedding.shape[0], classes


def _rows(tensors: Mapping[str, Tensor], name: str) -> int:
    return len(tensors[name]) if name in tensors and tensors[name].ndim else 0


def _shapes(layers: int, width: int, codebook_size: int, classes: int) -> dict[str, tuple[int, ...]]:
    """Every tensor of a generator without projectors."""
    D, F = width, hidden_width(width)
    block = {"attention.wqkv": (3 * D, D), "attention.wo": (D, D), "attention_norm": (D,), "ffn_norm": (D,)}
    block |= {"feed_forward.w1": (F, D), "feed_forward.w3": (F, D), "feed_forward.w2": (D, F)}
    around = {"tok_embeddings": (codebook_size, D), "norm": (D,), "output": (codebook_size, D)}
    around |= {"cls_embedding.embedding_table": (classes + 1, D)}
    blocks = {f"layers.{i}.{name}": shape for i in range(layers) for name, shape in block.items()}
    return {f"{name}.weight": shape for name, shape in (around | blocks).items()}


def _projector_shapes(width: int, hidden: int, target_dims: dict[str, int]) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for name, channels in target_dims.items():
        for number, (rows, columns) in {0: (hidden, width), 2: (hidden, hidden), 4: (channels, hidden)}.items():
            layer = f"{_module(name)}.{number}"
            shapes |= {f"{layer}.weight": (rows, columns), f"{layer}.bias": (rows,)}
    return shapes


def _check(what: str, tensors: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> None:
    wrong = faults(tensors, {name: Like(shape) for name, shape in shapes.items()})
    wrong = wrong or [f"its {name} is of {t.dtype}" for name, t in tensors.items() if t.dtype not in FLOATS]
    if wrong:
        raise ReleasedError(f"{what} is no whole LlamaGen generator: {some(wrong)}.")
