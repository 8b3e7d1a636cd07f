"""What is in a public generator's file: which tensors, under which names and in which shapes, for either condition."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gear.generator.layers import hidden_width
from gear.store.strict import Like, clean, faults, some

FLOATS = {torch.float16, torch.bfloat16, torch.float32, torch.float64}
NULL = "cls_embedding.null"  # ours alone: a public text-to-image generator has no row for "no caption"
ENCODERS = {  # targets as GEAR's trainer has them in --enc-type, and here
    "dinov2": "dinov2-{}",
    "dinov2_reg": "dinov2-{}-reg",
    "dinov3": "dinov3-{}",
    "siglip2": "siglip2-{}",
    "jepa21": "vjepa2.1-{}",
    "clip": "clip-{}",
}


class ReleasedError(ValueError):
    """A file that is not one whole generator: which, what is wrong, what to do."""


class NoGenerator(ReleasedError):
    """A whole file of weights, but not of a generator: it may be for another reader."""


@dataclass(frozen=True)
class Sizes:
    """What the tensors of a generator tell, and what they must then be."""

    layers: int
    width: int  # D
    codebook_size: int  # K
    classes: int  # without the null class; 0 with text
    text_width: int | None = None  # C, of the text encoder's states; None without text
    dual: int = 0  # first blocks with weights of their own for text

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Every tensor of a file, projectors apart."""
        D, C, F = self.width, self.text_width, hidden_width(self.width)
        block = {"attention.wqkv": (3 * D, D), "attention.wo": (D, D), "attention_norm": (D,), "ffn_norm": (D,)}
        block |= {"feed_forward.w1": (F, D), "feed_forward.w3": (F, D), "feed_forward.w2": (D, F)}
        text = {"attention.wqkv_text": (3 * D, D), "attention.wo_text": (D, D), "attention_norm_text": (D,)}
        around = {"tok_embeddings": (self.codebook_size, D), "norm": (D,), "output": (self.codebook_size, D)}
        if C is None:
            around |= {"cls_embedding.embedding_table": (self.classes + 1, D)}
        else:
            around |= {"cls_embedding.cap_proj.fc1": (D, C), "cls_embedding.cap_proj.fc2": (D, D)}
        blocks = {
            f"layers.{i}.{name}": shape
            for i in range(self.layers)
            for name, shape in (block | (text if i < self.dual else {})).items()
        }
        return {f"{name}.weight": shape for name, shape in (around | blocks).items()}


def sizes(what: str, tensors: Mapping[str, Tensor]) -> Sizes:
    """Of the tensors of one generator, by some of their shapes; the others are not looked at. `what` names it in
    errors."""
    embedding = tensors.get("tok_embeddings.weight")
    if embedding is None or embedding.ndim != 2:
        raise NoGenerator(
            f"{what} holds no LlamaGen generator: tok_embeddings.weight (K, width) is not among {some(tensors, ', ')}."
        )
    found = [(int(number[1]), number[2]) for name in tensors if (number := re.match(r"layers\.(\d{1,4})\.(.+)", name))]
    layers = max((number + 1 for number, _ in found), default=0)
    dual = sorted({number for number, name in found if "_text." in name})
    if dual or any(name.startswith("cls_embedding.cap_proj.") for name in tensors):
        return Sizes(layers, embedding.shape[1], embedding.shape[0], 0, _text_width(tensors), _first(what, dual))
    classes = _rows(tensors, "cls_embedding.embedding_table.weight") - 1
    if "cls_embedding.embedding_table.weight" in tensors and classes < 1:
        raise ReleasedError(f"{what} has no classes: cls_embedding.embedding_table.weight needs two rows or more.")
    return Sizes(layers, embedding.shape[1], embedding.shape[0], classes)


def _text_width(tensors: Mapping[str, Tensor]) -> int:
    fc1 = tensors.get("cls_embedding.cap_proj.fc1.weight")
    return fc1.shape[1] if fc1 is not None and fc1.ndim == 2 else 0


def _first(what: str, dual: Sequence[int]) -> int:
    """How many blocks have weights of their own for text, which must be the first ones."""
    if not dual:
        raise ReleasedError(
            f"{what} holds a text-to-image generator of one stream; only those of GEAR's trainer can be read, whose "
            "first blocks have weights of their own for text (attention.wqkv_text)."
        )
    if list(dual) != list(range(len(dual))):
        numbers = some(list(map(str, dual)), ", ", most=8)
        raise ReleasedError(
            f"{what} has weights for text in the blocks {numbers}; they must be the first ones, without a gap."
        )
    return len(dual)


def unwrapped(path: Path, found: Mapping[Any, Any]) -> dict[str, Tensor]:
    """Without the wrappers' prefixes. What is no generator is refused by what it is."""
    tensors: dict[str, Tensor] = {}
    for name, value in found.items():
        if (short := clean(str(name))) in tensors:
            raise ReleasedError(f"{path} has {short} twice, under different prefixes.")
        tensors[short] = value
    if any(re.match(r"(encoder|decoder|quantize|quant_conv|vq|vq_ema)(\.|$)", name) for name in tensors):
        raise NoGenerator(f"{path} holds an image tokenizer, not a generator; it belongs in tokenizer.init.")
    if "cls_embedding.uncond_embedding" in tensors:
        raise ReleasedError(
            f"{path} holds LlamaGen's own text-to-image generator, which reads T5 in one stream of weights; only those "
            "of GEAR's trainer can be read, or a class-conditional one (c2i)."
        )
    if others := [name for name, value in tensors.items() if not isinstance(value, Tensor)]:
        kind = ReleasedError if "tok_embeddings.weight" in tensors else NoGenerator
        raise kind(f"{path} is no generator's state: {some(others, ', ')} should be tensors.")
    return tensors


def check(what: str, tensors: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> None:
    wrong = faults(tensors, {name: Like(shape) for name, shape in shapes.items()})
    wrong = wrong or [f"its {name} is of {t.dtype}" for name, t in tensors.items() if t.dtype not in FLOATS]
    if wrong:
        raise ReleasedError(f"{what} is no whole LlamaGen generator: {some(wrong)}.")


# ---------------------------------------------------------------------------------------------------- projectors


def projectors(
    path: Path, contents: Mapping[str, Any], targets: Sequence[str] | None
) -> tuple[dict[str, Tensor], int | None, dict[str, int]]:
    """GEAR's projectors by our names, their hidden width, and the channels of each target."""
    if not isinstance(contents.get("projectors"), dict) or not contents["projectors"]:
        return {}, None, {}
    bank = unwrapped(path, contents["projectors"])
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


def projector_shapes(width: int, hidden: int, target_dims: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for name, channels in target_dims.items():
        for number, (rows, columns) in {0: (hidden, width), 2: (hidden, hidden), 4: (channels, hidden)}.items():
            layer = f"{_module(name)}.{number}"
            shapes |= {f"{layer}.weight": (rows, columns), f"{layer}.bias": (rows,)}
    return shapes


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


def _rows(tensors: Mapping[str, Tensor], name: str) -> int:
    return len(tensors[name]) if name in tensors and tensors[name].ndim else 0
