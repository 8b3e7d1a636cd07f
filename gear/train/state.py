"""One file holds a run's state: safetensors for the tensors, and the step and whole configuration in its header.

Keys: `tokenizer.*`, `critic.*`, `generator.*` (live), `tokenizer_ema.*`, ... (averaged), `tokenizer_optimizer.*`, ...,
and `log.*`, the log's interval that was open.
The file is written beside its final name, synced, and renamed, so that a killed run or a full disk leaves the last one.
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from gear.config import Config, ConfigError
from gear.config_json import from_json, to_json
from gear.store.foreign import UnreadableFile
from gear.store.saving import save_safetensors
from gear.store.strict import faults, not_finite, some
from gear.store.torch_file import read_safetensors
from gear.store.whole import WriteError
from gear.update import Trained

NAME = "checkpoint.safetensors"


class CheckpointError(ValueError):
    """A checkpoint that cannot be used: which file, what was expected, what came, what to do."""


@dataclass(frozen=True)
class Checkpoint:
    """
    path: where it was read from. step: updates made so far. config: of the run that wrote it.
    classes: the names of its class labels. tensors: all of them, on the CPU.
    """

    path: Path
    step: int
    config: Config
    classes: tuple[str, ...]
    tensors: Mapping[str, Tensor]

    def part(self, name: str) -> dict[str, Tensor]:
        """The tensors under `name.`, without it; empty where the run had no such part."""
        return {key[len(name) + 1 :]: t for key, t in self.tensors.items() if key.startswith(name + ".")}

    def averaged(self, name: str) -> dict[str, Tensor]:
        """The averaged weights of a part, or the live ones where no average was kept."""
        return self.part(f"{name}_ema") or self.part(name)


def save(
    path: Path,
    trained: Iterable[Trained],
    step: int,
    config: Config,
    classes: Sequence[str],
    log: Mapping[str, Tensor] | None = None,
) -> None:
    """Writes atomically. `CheckpointError` if the disk is full or read-only, or if training has diverged; the last
    file is then still there. `log`: `Log.pending`."""
    tensors = {key: t for group in trained for key, t in _tensors(group)}
    tensors |= {f"log.{key}": t for key, t in (log or {}).items()}
    kept = f"The last one, {path}, is intact" if path.exists() else "No earlier one exists"
    if broken := not_finite(tensors):
        raise CheckpointError(
            f"training has diverged: at step {step} {broken} is not finite, so no checkpoint was written. {kept}; "
            "train with a lower learning rate (optimizer.*_lr) in another folder."
        )
    try:
        save_safetensors(path, tensors, header(step, config, classes))
    except WriteError as error:
        size, why = sum(t.nbytes for t in tensors.values()) / 2**20, error.__cause__
        raise CheckpointError(
            f"the checkpoint of step {step} ({size:.0f} MiB) could not be written to {path.parent}: {why}. {kept}; "
            "free some space and give the same command again."
        ) from None


def header(step: int, config: Config, classes: Sequence[str]) -> dict[str, str]:
    """What a checkpoint says of itself."""
    return {"format": "gear-1", "step": str(step), "config": to_json(config), "classes": json.dumps(list(classes))}


def load(path: Path, parts: Collection[str] | None = None) -> Checkpoint:
    """Reads a checkpoint or a run folder that has one, or only the `parts` of it. No pickle is ever opened.

    Raises `CheckpointError`.
    """
    if path.is_dir():
        path = path / NAME
    if not path.is_file():
        raise CheckpointError(f"there is no checkpoint at {path}; `gear train RECIPE --out FOLDER` makes one.")
    try:
        tensors, metadata = read_safetensors(path, lambda key: parts is None or key.split(".")[0] in parts)
    except UnreadableFile as error:
        raise CheckpointError(str(error)) from None
    if metadata.get("format") != "gear-1":
        raise CheckpointError(f"{path} is a safetensors file, but not a checkpoint that `gear train` wrote.")
    try:
        step, config = int(metadata["step"]), from_json(metadata["config"])
        classes = tuple(json.loads(metadata["classes"]))
    except ConfigError as error:
        raise CheckpointError(f"{path} was written by another version: {error}") from None
    except (KeyError, ValueError, RecursionError):
        raise CheckpointError(f"{path} was written by another version: its header lacks something.") from None
    if broken := not_finite(tensors):
        raise CheckpointError(f"{path} cannot be used: {broken} is not finite, so its training has diverged.")
    return Checkpoint(path, step, config, classes, tensors)


def restore(group: Trained, checkpoint: Checkpoint) -> None:
    """Everything `save` wrote of one group: weights, average, optimiser."""
    load_strictly(group.module, checkpoint.part(group.name), f"{group.name} in {checkpoint.path}")
    if group.ema is not None:
        load_strictly(group.ema.module, checkpoint.part(f"{group.name}_ema"), f"{group.name}_ema in {checkpoint.path}")
        group.ema.n_averaged.copy_(checkpoint.tensors[f"{group.name}_averages"])
    moments = checkpoint.part(f"{group.name}_optimizer")
    if moments:
        parameters = list(group.module.parameters())
        state: dict[int, dict[str, Tensor]] = {}
        for key, t in moments.items():
            index, name = key.split(".")
            p = parameters[int(index)]  # whose memory layout the moments had, and keep for speed
            state.setdefault(int(index), {})[name] = t if name == "step" else torch.empty_like(p).copy_(t)
        group.optimizer.load_state_dict({"state": state, "param_groups": group.optimizer.state_dict()["param_groups"]})


def load_strictly(module: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Every name, shape and kind must fit, or `CheckpointError` names those that do not."""
    if wrong := faults(tensors, module.state_dict()):
        raise CheckpointError(f"{where} does not fit: {some(wrong)}; it belongs to another configuration.")
    module.load_state_dict(tensors)


def _tensors(group: Trained) -> Iterable[tuple[str, Tensor]]:
    def flat(prefix: str, state: Mapping[str, Tensor]) -> Iterable[tuple[str, Tensor]]:
        return ((f"{prefix}.{key}", t.detach().contiguous()) for key, t in state.items())

    yield from flat(group.name, group.module.state_dict())
    if group.ema is not None:
        yield from flat(f"{group.name}_ema", group.ema.module.state_dict())
        yield f"{group.name}_averages", group.ema.n_averaged
    for index, moments in group.optimizer.state_dict()["state"].items():
        yield from flat(f"{group.name}_optimizer.{index}", {k: torch.as_tensor(t) for k, t in moments.items()})
