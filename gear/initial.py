"""What a run starts from: the weights that `tokenizer.init` and `generator.init` name, if they fit."""

import dataclasses

from torch import nn

from gear import config as cfg
from gear import sources
from gear.config import Config
from gear.config_json import differences
from gear.generator import Generator
from gear.store.strict import faults
from gear.tokenizer.tokenizer import Tokenizer
from gear.train import state

NULL = "cls_embedding.null"  # the unconditional input of a generator with text


def fill_tokenizer(net: Tokenizer, critic: nn.Module | None, config: Config) -> None:
    """The averaged tokenizer of another run or a public file, and its critic if it kept one of the same size."""
    assert config.tokenizer.init is not None
    checkpoint = sources.read(config.tokenizer.init, ("tokenizer", "tokenizer_ema", "critic"))
    fits_tokenizer(checkpoint, config)
    state.load_strictly(net, checkpoint.averaged("tokenizer"), f"the tokenizer of {checkpoint.path}")
    kept = checkpoint.part("critic")
    if critic is not None and not faults(kept, critic.state_dict()):  # no configuration tells that of a public file
        critic.load_state_dict(kept)


def fill_generator(net: Generator, config: Config) -> None:
    """The averaged generator of `generator.init`; a projector that it has no equal of stays as it is."""
    assert config.generator.init is not None
    checkpoint = sources.read(config.generator.init, ("generator", "generator_ema"))
    fits_generator(checkpoint, config)
    read = checkpoint.averaged("generator").get(NULL)
    if read is not None and read.shape[1] != net.text_width:
        raise state.CheckpointError(
            f"{checkpoint.path} holds a generator that reads a text encoder of {read.shape[1]} channels, and that of "
            f"this run has {net.text_width}: change generator.text.encoder, or generator.init."
        )
    own, kept = net.state_dict(), checkpoint.averaged("generator")
    projector = {name for name in own.keys() | kept.keys() if name.startswith("projectors.")}
    fitting = {name for name in projector & own.keys() & kept.keys() if own[name].shape == kept[name].shape}
    tensors = {name: t for name, t in kept.items() if name not in projector or name in fitting}
    tensors |= {name: own[name] for name in (projector & own.keys()) - fitting}
    tensors |= {name: own[name] for name in own.keys() & {NULL}}  # which is what this run's text encoder says
    state.load_strictly(net, tensors, f"the generator of {checkpoint.path}")


def fits_tokenizer(checkpoint: state.Checkpoint, config: Config) -> None:
    """A checkpoint of another quantizer or backbone is refused with the fields that differ, or, where both are public
    families, with their names."""
    known = [cfg.family(c.tokenizer) for c in (checkpoint.config, config)]
    if checkpoint.averaged("tokenizer") and all(known) and known[0] != known[1]:
        raise state.CheckpointError(
            f"{checkpoint.path} holds {known[0]}, and this configuration asks for {known[1]}: "
            "change tokenizer.quantizer and tokenizer.backbone, or tokenizer.init."
        )

    def shape(c: Config) -> Config:
        only = cfg.Tokenizer(quantizer=c.tokenizer.quantizer, backbone=c.tokenizer.backbone)
        return dataclasses.replace(Config(), tokenizer=only)

    _require_same(shape(checkpoint.config), shape(config), checkpoint, "tokenizer")


def fits_generator(checkpoint: state.Checkpoint, config: Config) -> None:
    """A checkpoint of another transformer or codebook size is refused with the fields that differ."""

    def shape(c: Config) -> Config:
        g = c.generator
        only = cfg.Generator(layers=g.layers, heads=g.heads, width=g.width, class_rotary=g.class_rotary)
        if g.text is not None:  # which encoder, of how many tokens: what fits is told by its channels
            text = cfg.Text(dual=g.dual_blocks, rotary=g.text.rotary, padding=g.text.padding)
            only = dataclasses.replace(only, class_rotary="identity", text=text)
        return dataclasses.replace(Config(), generator=only)

    _require_same(shape(checkpoint.config), shape(config), checkpoint, "generator")


def _require_same(there: Config, here: Config, checkpoint: state.Checkpoint, part: str) -> None:
    if not checkpoint.averaged(part):
        raise state.CheckpointError(f"{checkpoint.path} holds no {part}: {part}.init must name a file or run with one.")
    if different := differences(there, here):
        raise state.CheckpointError(
            f"{checkpoint.path} holds another {part} than this configuration asks for ({'; '.join(different)}): "
            f"change those fields, or {part}.init."
        )
