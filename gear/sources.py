"""Trained weights from wherever they are, as a `Checkpoint`: a run, a folder of `save_pretrained`, or a public file.

`tokenizer.init` and `generator.init` of a configuration, and the models that `gear sample` and `gear reconstruct` take,
are each named by one text: a path, "builtin", or a name that `gear fetch` knows.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from gear import fetch, weights
from gear.config import FAMILIES, VQ, Config
from gear.data.classes import imagenet
from gear.generator import Generator as GeneratorNet
from gear.generator import released as released_generators
from gear.recipes.registry import PUBLISHED, made_by
from gear.sharing import MODEL, ModelError, about, no_larger_than, tensors_in
from gear.store import torch_file
from gear.tokenizer import released as released_tokenizers
from gear.tokenizer.tokenizer import Tokenizer as TokenizerNet
from gear.train import state
from gear.train.state import Checkpoint, CheckpointError

BUILTIN = Path(__file__).parent / "pretrained" / "demo_tokenizer.safetensors"
IMAGENET = 1000  # classes


def find(source: str) -> Path:
    """Where `source` is; what a model hub has is fetched first. Raises `MissingWeight`, which says how to bring it."""
    if source == "builtin":
        return BUILTIN
    return Path(source).expanduser() if _registered(source) is None else fetch.on_demand(source)


def file_of(source: str) -> Path:
    """The file that `source` stands for, where it is a folder the one in it that holds the weights."""
    path = find(source)
    if (path / MODEL).is_file():
        return path / MODEL
    newest = state.newest(path, ()) if path.is_dir() else None
    return path if newest is None else newest.path


def read(source: str, parts: tuple[str, ...] | None = None) -> Checkpoint:
    """The weights called `source`; of a run only the `parts` asked for, such as "tokenizer_ema", if any are.

    A public file or a saved model has made no steps, and has the configuration that its weights imply. Raises
    `MissingWeight` and `CheckpointError`, which name what is wrong.
    """
    weight, path = _registered(source), find(source)
    if path.is_dir() and (path / MODEL).is_file():
        return _saved(path)
    if not path.exists() and (command := made_by(source)):
        own = f", or give the authors' own tokenizer in its place, {PUBLISHED[source]}" if source in PUBLISHED else ""
        raise CheckpointError(f"there is no checkpoint at {source} yet; `{command}` makes it{own}.")
    if not released_tokenizers.is_released(path):
        return state.load(path, parts)
    try:
        return replace(_released(path), grid=weight and weight.grid)
    except ValueError as error:
        raise CheckpointError(str(error)) from None


def _registered(source: str) -> weights.Weight | None:
    """The entry of a name that `gear fetch` knows; none where a file has that name."""
    return None if Path(source).exists() else next((w for w in weights.WEIGHTS if w.name == source), None)


def _released(path: Path) -> Checkpoint:
    """A public tokenizer, generator, or both in one file, as GEAR's trainer leaves them; told by the tensors' names."""
    contents = torch_file.read(path)
    config, tensors = Config(), dict[str, Tensor]()
    other = None  # why it is no tokenizer
    try:
        found = released_tokenizers.recognise(path, contents)
        config = replace(config, tokenizer=replace(FAMILIES[found.family], init=str(path)))
        tensors |= _under("tokenizer", found.tokenizer) | _under("critic", found.critic or {})
    except released_tokenizers.NoTokenizer as error:
        other = error
    try:
        net = released_generators.recognise(path, contents)
    except released_generators.NoGenerator as error:
        if other is not None:
            raise CheckpointError(f"{other} Nor is it a generator: {error}") from None
        return Checkpoint(path, 0, config, (), tensors)
    if other is not None:
        config = _of_codewords(net.codebook_size)
    classes = tuple(imagenet() if net.classes == IMAGENET else map(str, range(net.classes)))  # none with text
    return Checkpoint(
        path, 0, replace(config, generator=net.architecture), classes, tensors | _under("generator", net.tensors)
    )


def _saved(path: Path) -> Checkpoint:
    """A folder of `save_pretrained`."""
    try:
        kind, settings = about(path)
        tensors = tensors_in(path / MODEL)
        if kind == "Tokenizer":
            with torch.device("meta"), no_larger_than(tensors, settings, path):
                net = TokenizerNet.from_settings(settings)
            tokenizer = replace(Config().tokenizer, quantizer=net.quantizer, backbone=net.backbone)
            return Checkpoint(path, 0, replace(Config(), tokenizer=tokenizer), (), _under("tokenizer", tensors))
        with torch.device("meta"), no_larger_than(tensors, settings, path):
            net = GeneratorNet.from_settings(settings)
        config = net.config if net.config.text is not None else replace(net.config, classes=net.null_label)
        names = net.class_names or tuple(map(str, range(net.null_label)))
        implied = replace(_of_codewords(net.codebook_size), generator=config)
        return Checkpoint(path, 0, implied, names, _under("generator", tensors), net.grid)
    except (ModelError, OSError) as error:
        raise CheckpointError(f"{path} is not a model that gear saved: {error}") from None


def _of_codewords(K: int) -> Config:
    """What a generator alone implies of its tokenizer."""
    return replace(Config(), tokenizer=replace(Config().tokenizer, quantizer=VQ(K)))


def _under(part: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{part}.{name}": tensor for name, tensor in tensors.items()}
