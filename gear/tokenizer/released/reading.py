"""From a released file to a tokenizer's tensors under our names: the family is told by names and shapes, strictly."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gear import config as cfg
from gear.store.strict import faults, some
from gear.tokenizer.released.names import (
    AVERAGED,
    COUNTERS,
    CRITIC,
    HELPERS,
    LAYOUTS,
    USAGE,
    Layout,
    NoTokenizer,
    ReleasedError,
    Slot,
    critic_faults,
    dotless,
    slots,
)
from gear.tokenizer.released.opening import groups, is_ours, opened

TOKENS = "tok_embeddings.weight"
GENERATOR = " A generator has such tensors, and belongs in generator.init."


@dataclass(frozen=True)
class Released:
    """
    family: which of `families` it is, in `gear.config.FAMILIES` by default.
    layout: how the file is arranged.
    averaged: whether `tokenizer` is an exponential moving average, or the weights as last trained.
    tokenizer: the state dict of a `Tokenizer` of that family; float32, on the CPU.
    critic: that of the PatchGAN `Critic` trained with it; None if the file has none.
    """

    family: str
    layout: Layout
    averaged: bool
    tokenizer: dict[str, Tensor]
    critic: dict[str, Tensor] | None


def is_released(path: Path) -> bool:
    """Whether `path` is a file to `read`, rather than a run or its checkpoint. Cheap, and no promise that it can be."""
    return path.is_file() and not is_ours(path)


def read(path: Path, *, averaged: bool = True, families: Mapping[str, cfg.Tokenizer] = cfg.FAMILIES) -> Released:
    """A released tokenizer, its average where it has one and `averaged`.

    Layouts and families are recognised, also below `module.` and `_orig_mod.`, also as safetensors. The tokenizer's
    tensors must be exactly those of one of `families`; what trainers put beside it (optimisers, counters, the networks
    of the losses) may be there or not. No code in a file is ever run.
    Raises NoTokenizer for a whole file of something else, ReleasedError for a tensor too few or too many, another
    shape, a weight that is not finite, no live weights where `averaged` is False, a file that is damaged, is none of
    weights, or holds code.
    """
    return recognise(path, opened(path), averaged=averaged, families=families)


def recognise(
    path: Path,
    contents: Mapping[str, Any],
    *,
    averaged: bool = True,
    families: Mapping[str, cfg.Tokenizer] = cfg.FAMILIES,
) -> Released:
    """`read` of a file that `gear.store.torch_file` has read already; `path` only words the errors."""
    found = groups(path, contents)
    layout, live, mean, critic = _parts(found)
    if not live and not mean:
        raise NoTokenizer(f"{path} holds {', '.join(found)}, and no tokenizer: one of {', '.join(families)} is wanted.")
    if not averaged and not live:
        raise ReleasedError(f"{path} holds only averaged weights, and the live ones are asked for (averaged=False).")
    use_mean = averaged and bool(mean)
    family, tensors = _recognised(path, mean if use_mean else live, families)
    return Released(family, layout, use_mean, tensors, _critic(path, critic))


def _parts(
    found: Mapping[str, dict[str, Tensor]],
) -> tuple[Layout, dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    """The layout of a file, its live and averaged tokenizers, and its critic, each empty where there is none."""
    for layout, parts in LAYOUTS.items():
        mixed = found.get(parts.live, {})
        mean = found.get(parts.averaged, {}) if parts.averaged else _below(AVERAGED, mixed)
        critic = found.get(parts.critic, {}) if parts.critic else _below(CRITIC, mixed)
        if mixed or mean:
            lightning = layout == "bare" and any(name.startswith((AVERAGED, *HELPERS)) for name in mixed)
            live = {name: t for name, t in mixed.items() if not _beside(name) and not name.startswith(AVERAGED)}
            mean = {name: t for name, t in mean.items() if not _beside(name)}
            return "lightning" if lightning else layout, live, mean, critic
    return "bare", {}, {}, {}


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def _beside(name: str) -> bool:
    """Whether a tensor among the tokenizer's is none of it."""
    return name.startswith(HELPERS) or name in COUNTERS or name == USAGE


def _recognised(
    path: Path, found: Mapping[str, Tensor], families: Mapping[str, cfg.Tokenizer]
) -> tuple[str, dict[str, Tensor]]:
    """The family whose tensors these are, and they under our names; LitEma's names have no dots."""
    plain = not any("." in name for name in found)
    wanted: dict[str, dict[str, Slot]] = {}
    fitting: dict[str, int] = {}
    for family, config in families.items():
        wanted[family] = {dotless(name) if plain else name: slot for name, slot in slots(config).items()}
        fitting[family] = sum(n in found and found[n].shape == s.like.shape for n, s in wanted[family].items())
    best = max(fitting, key=lambda family: fitting[family] / len(wanted[family]))
    if fitting[best] < len(wanted[best]) / 2:
        known = ", ".join(f"{family} ({len(wanted[family])} tensors)" for family in families)
        raise NoTokenizer(
            f"{path} holds no known tokenizer: of its {len(found)} tensors ({', '.join(list(found)[:3])}, ...) at most "
            f"{max(fitting.values())} are of one. Known are {known}.{GENERATOR if TOKENS in found else ''}"
        )
    if wrong := faults(found, {name: slot.like for name, slot in wanted[best].items()}):
        raise ReleasedError(f"{path} resembles a {best} tokenizer most, and cannot be one: {some(wrong)}.")
    return best, {wanted[best][name].name: _own(t) for name, t in found.items()}


def _critic(path: Path, found: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    if wrong := critic_faults(found):
        raise ReleasedError(
            f"{path} holds a critic (discriminator) that is no PatchGAN: {some(wrong)}. Save the file without it."
        )
    return {name: _own(t) for name, t in found.items()} or None


def _own(t: Tensor) -> Tensor:
    """A copy in memory, of float32 if it is of floats."""
    dtype = torch.float32 if t.is_floating_point() else t.dtype
    return t.detach().to(dtype, copy=True, memory_format=torch.contiguous_format)
