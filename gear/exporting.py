"""`gear export`: a run's averaged weights for other programs."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

from gear import config as cfg
from gear import run, sources
from gear.config import FAMILIES, family
from gear.config_json import to_json
from gear.generator import Generator
from gear.generator import released as released_generators
from gear.sharing import CONFIG, require_own
from gear.tokenizer import released as released_tokenizers
from gear.tokenizer.tokenizer import Tokenizer
from gear.train.state import Checkpoint

Layout = Literal["hub", "llamagen", "gear", "lightning", "bare"]


def export(
    source: Path,
    out: Path,
    layout: Layout,
    part: Literal["tokenizer", "generator"],
    resolution: int | None = None,
) -> Path:
    """Writes `part` of `source` to `out`, a folder for "hub" and a file for the other layouts.

    resolution: of a generator, px along a side, where `source` does not tell. Raises ValueError for what the layout
    cannot hold, a tokenizer or generator that the public code does not have, and for a folder of other files.
    """
    if layout == "hub":
        _require_own(out, part.capitalize())
    checkpoint = sources.read(str(source))
    if part == "generator" and resolution is not None:
        checkpoint = run.sized(checkpoint, resolution)
    elif part == "generator" and layout == "hub" and not checkpoint.step and checkpoint.grid is None:
        raise ValueError(
            f"{source} does not say what images its generator draws, of how many pixels: give --resolution, as 256 "
            "or 384."
        )
    net = run.tokenizer_of(checkpoint) if part == "tokenizer" else run.generator_of(checkpoint)
    if layout == "hub":
        net.save_pretrained(out, model_card_kwargs={"training": _training(checkpoint)})
    elif isinstance(net, Tokenizer):
        critic = checkpoint.part("critic") or None
        released_tokenizers.write(out, layout, net.state_dict(), _family(net), critic=critic)
    elif layout in ("llamagen", "gear"):
        if fault := _elsewhere(net):
            raise ValueError(f"{fault}: it would draw other images there. Export it with --layout hub.")
        released_generators.write(out, net.state_dict(), layout)
    else:
        raise ValueError(f'no public code reads a generator in the layout "{layout}"; take hub, llamagen or gear.')
    return out


def _require_own(folder: Path, kind: str) -> None:
    """What was exported there before may be replaced, and nothing else."""
    require_own(folder, kind)
    if folder.is_dir() and not (folder / CONFIG).exists() and (others := sorted(p.name for p in folder.iterdir())):
        raise ValueError(f"{folder} holds other files, such as {others[0]}: export into a folder of its own.")


def _elsewhere(net: Generator) -> str | None:
    """Why public code would not compute what a generator does, or None."""
    config, (h, w) = net.config, net.grid
    if h != w:
        return f"public code draws squares of tokens, and this generator {h} x {w}"
    if config.text is None and config.class_rotary != "zero":
        return (
            'public code rotates the class token by zeros, and this generator was trained with class_rotary "'
            f'{config.class_rotary}"'
        )
    if (text := config.text) is not None and text != replace(text, tokens=300, rotary="zero", padding="right"):
        return (
            "public code pads captions behind to 300 tokens and rotates them by zeros, and this generator was trained "
            f'with {text.tokens} tokens, padding "{text.padding}" and rotary "{text.rotary}"'
        )
    return None


def _family(net: Tokenizer) -> str:
    if (name := family(cfg.Tokenizer(quantizer=net.quantizer, backbone=net.backbone))) is None:
        raise ValueError(
            f"no public code has a tokenizer of these sizes; they have {', '.join(FAMILIES)}. "
            "Export it with --layout hub."
        )
    return name


def _training(checkpoint: Checkpoint) -> str:
    if not checkpoint.step:
        return ""
    config = to_json(checkpoint.config)
    return f"Averaged weights after {checkpoint.step:,} steps of this configuration:\n\n```json\n{config}\n```"
