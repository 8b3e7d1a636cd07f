"""A tokenizer as a released file, for the code bases that read those."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from gear import config as cfg
from gear.store.strict import faults, some
from gear.store.whole import replacing
from gear.tokenizer.released.names import (
    AVERAGED,
    COUNTERS,
    CRITIC,
    USAGE,
    USED,
    Layout,
    ReleasedError,
    critic_faults,
    dotless,
    slots,
)


def write(
    path: Path,
    layout: Layout,
    tokenizer: Mapping[str, Tensor],
    family: str,
    *,
    averaged: Mapping[str, Tensor] | None = None,
    critic: Mapping[str, Tensor] | None = None,
    families: Mapping[str, cfg.Tokenizer] = cfg.FAMILIES,
) -> None:
    """Writes a torch file, atomically, that holds tensors only and that the code base of that layout loads strictly.

    tokenizer, averaged, critic: state dicts under our names, on any device; `averaged` is an average of `tokenizer`.
    "gear" keeps all three. "lightning" too, for IBQ and LFQ; where there is no average, it has the live weights in its
    place, since its readers take the average without asking. "llamagen" and "bare" have room for one tokenizer, the
    average if there is one, and "bare" has none for a critic.
    Raises ReleasedError for tensors that are not the family's, and for a family that the layout's readers do not know;
    `WriteError` if the disk is full or read-only.
    """
    if family not in families:
        raise ReleasedError(f"There is no family {family!r}; there are {', '.join(families)}.")
    config = families[family]
    vq = isinstance(config.quantizer, cfg.VQ)
    if (layout == "llamagen" and not vq) or (layout == "lightning" and vq):
        raise ReleasedError(
            f"The layout {layout} is for {'IBQ and LFQ' if vq else 'VQ'} tokenizers, and {family} is none. "
            "GEAR's code reads any family in the layout gear."
        )
    live = _public(tokenizer, config, f"The tokenizer for {path}")
    mean = {} if averaged is None else _public(averaged, config, f"The averaged tokenizer for {path}")
    best = mean or live
    judge = {name: _plain(t) for name, t in (critic or {}).items()}
    if judge and (wrong := critic_faults(judge)):
        raise ReleasedError(f"The critic for {path} is no PatchGAN: {some(wrong)}.")
    match layout:
        case "bare":
            return _save(path, best)
        case "lightning":
            parts = {"state_dict": live | _lightning(best, judge)}
        case "llamagen":
            parts = {"model": best | {USAGE: torch.zeros(USED)}, "discriminator": judge}
        case "gear":
            parts = {"vq": live, "vq_ema": mean, "discriminator": judge}
    return _save(path, {name: part for name, part in parts.items() if part})


def _public(state: Mapping[str, Tensor], family: cfg.Tokenizer, what: str) -> dict[str, Tensor]:
    """A state dict under the family's public names, once it is seen to be one of that family."""
    wanted = slots(family)
    if wrong := faults(state, {slot.name: slot.like for slot in wanted.values()}):
        raise ReleasedError(f"{what} cannot be one of its family: {some(wrong)}.")
    return {name: _plain(state[slot.name]) for name, slot in wanted.items()}


def _lightning(mean: Mapping[str, Tensor], critic: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What stands beside the live tokenizer: the critic, and LitEma's average of both, which comes last as its readers
    look up there what they have seen. LitEma averages parameters, not the statistics of batch normalisation."""
    averages = dict(mean) | {f"{CRITIC}{name}": t for name, t in critic.items() if name.endswith(("weight", "bias"))}
    return (
        {f"{CRITIC}{name}": t for name, t in critic.items()}
        | {f"{AVERAGED}{name}": t for name, t in COUNTERS.items()}
        | {f"{AVERAGED}{dotless(name)}": t for name, t in averages.items()}
    )


def _save(path: Path, saved: Mapping[str, Tensor | Mapping[str, Tensor]]) -> None:
    with replacing(path) as temporary:
        try:
            torch.save(saved, temporary)
        except RuntimeError as error:  # how torch tells of a full disk
            raise OSError(str(error).splitlines()[0]) from error


def _plain(t: Tensor) -> Tensor:
    """A tensor of its own storage, as of a view torch.save would write the whole; on the CPU, floats as float32."""
    dtype = torch.float32 if t.is_floating_point() else t.dtype
    return t.detach().to("cpu", dtype, copy=True, memory_format=torch.contiguous_format)
