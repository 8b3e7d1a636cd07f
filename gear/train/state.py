"""One file holds a run's state: safetensors for the tensors, and the step and whole configuration in its header.

Keys: `tokenizer.*`, `critic.*`, `generator.*` (live), `tokenizer_ema.*`, ... (averaged), `tokenizer_optimizer.*`, ...,
and `log.*`, the log's interval that was open.
The file is written beside its final name, synced, and renamed, so that a killed run or a full disk leaves the last one.
Its header has the SHA-256 of each part, so that a disk which changes a bit is found out before weights are used.

A run's newest is RUN/checkpoint.safetensors, and RUN/checkpoints/step-00000500.safetensors is one before it.
"""

import errno
import hashlib
import json
import logging
import math
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from gear.config import Config, ConfigError
from gear.config_json import from_json, to_json
from gear.store import torch_file
from gear.store.foreign import UnreadableFile
from gear.store.saving import save_safetensors
from gear.store.strict import faults, not_finite, some
from gear.store.whole import WriteError, beside
from gear.update import Trained, whole

warnings = logging.getLogger("gear")

NAME = "checkpoint.safetensors"
OLDER = "checkpoints"  # the folder of those before it
KEPT = re.compile(r"step-(\d+)\.safetensors")  # and their names


class CheckpointError(ValueError):
    """A checkpoint that cannot be used: which file, what was expected, what came, what to do."""


@dataclass(frozen=True)
class Checkpoint:
    """
    path: where it was read from. step: updates made so far. config: of the run that wrote it.
    classes: the names of its class labels. tensors: all of them, on the CPU. grid: of the generator's tokens, where it
    is said and no resolution is.
    """

    path: Path
    step: int
    config: Config
    classes: tuple[str, ...]
    tensors: Mapping[str, Tensor]
    grid: tuple[int, int] | None = None

    def part(self, name: str) -> dict[str, Tensor]:
        """The tensors under `name.`, without it; empty where the run had no such part."""
        return {key[len(name) + 1 :]: t for key, t in self.tensors.items() if key.startswith(name + ".")}

    def averaged(self, name: str) -> dict[str, Tensor]:
        """The averaged weights of a part, or the live ones where no average was kept."""
        return self.part(f"{name}_ema") or self.part(name)


# ----------------------------------------------------------------------------------------------- writing


def save(
    path: Path,
    groups: Iterable[Trained],
    step: int,
    config: Config,
    classes: Sequence[str],
    log: Mapping[str, Tensor] | None = None,
) -> None:
    """`collect` and `write`. A run saves by `gear.train.keep.Keeper`, which does not hold up training."""
    write(path, dict(collect(groups, log)), step, config, classes)


def collect(groups: Iterable[Trained], log: Mapping[str, Tensor] | None = None) -> Iterator[tuple[str, Tensor]]:
    """The whole state, one key after the other: the live tensors, wherever they are; one that is sharded over the ranks
    is put together when its turn comes, so that no GPU holds all of them, and all ranks must go through. log:
    `Log.pending`."""
    for group in groups:
        yield from _tensors(group)
    for key, t in (log or {}).items():
        yield f"log.{key}", t.detach()


def write(
    path: Path,
    tensors: Mapping[str, Tensor],
    step: int,
    config: Config,
    classes: Sequence[str],
    make_way: Callable[[], object] = lambda: None,
) -> None:
    """Writes what `collect` gave, atomically. make_way: called when the new file is whole and synced beside `path`,
    just before it takes its place. `CheckpointError` if the disk is full or read-only, or if training has diverged; the
    last file is then still there."""
    kept = f"The last one, {path}, is intact" if os.path.exists(path) else "No earlier one exists"
    if broken := not_finite({key: t for key, t in tensors.items() if not key.startswith("log.")}):
        raise CheckpointError(
            f"training has diverged: at step {step} {broken} is not finite, so no checkpoint was written. {kept}; "
            "train with a lower learning rate (optimizer.*_lr) in another folder."
        )
    tensors = {key: t.contiguous() for key, t in tensors.items()}
    about = header(step, config, classes)
    about["sha256"] = json.dumps(digests(tensors, about))
    try:
        with beside(path) as partial:
            save_safetensors(partial, tensors, about)
            make_way()
        sync(path.parent)
    except OSError as error:
        size = sum(t.nbytes for t in tensors.values()) / 2**20
        why = error.__cause__ if isinstance(error, WriteError) else error
        raise CheckpointError(
            f"the checkpoint of step {step} ({size:.0f} MiB) could not be written to {path.parent}: {why}. {kept}; "
            "free some space there, or make it writable, and give the same command again."
        ) from None


def header(step: int, config: Config, classes: Sequence[str]) -> dict[str, str]:
    """What a checkpoint says of itself."""
    return {"format": "gear-1", "step": str(step), "config": to_json(config), "classes": json.dumps(list(classes))}


def digests(tensors: Mapping[str, Tensor], about: Mapping[str, str]) -> dict[str, str]:
    """The SHA-256 of each part of a checkpoint, by what its keys begin with: of the names, kinds, shapes and bytes of
    its tensors, by name; and of the other entries of the header, `about`. tensors: contiguous."""
    parts = {"header": hashlib.sha256(json.dumps(dict(about), sort_keys=True).encode())}
    for key, t in sorted(tensors.items()):
        digest = parts.setdefault(key.split(".")[0], hashlib.sha256())
        digest.update(json.dumps([key, str(t.dtype), list(t.shape)]).encode())
        digest.update(t.cpu().reshape(-1).view(torch.uint8).numpy().data)  # not a copy
    return {part: digest.hexdigest() for part, digest in parts.items()}


def sync(folder: Path) -> None:
    """So that a crash of the machine does not undo a renaming in `folder`."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems sync no folders
            raise
    finally:
        os.close(descriptor)


# ----------------------------------------------------------------------------------------------- reading


def load(path: Path, parts: Collection[str] | None = None) -> Checkpoint:
    """Reads a checkpoint, or the newest one of a run folder that can be used, or only the `parts` of it. No pickle is
    ever opened.

    Raises `CheckpointError`.
    """
    if not path.is_dir():
        return _read(path, parts)
    found = newest(path, parts)
    return _read(path / NAME, parts) if found is None else found  # which says that there is none


def newest(run: Path, parts: Collection[str] | None = None) -> Checkpoint | None:
    """The checkpoint of the latest step in a run folder that is whole, or the `parts` of it; None if there is none.

    One that cannot be used is named in a warning, with the reason, and the one before it is tried. Raises
    `CheckpointError` if there are some and none can be used.
    """
    unusable = []
    for path in candidates(run):
        try:
            return _read(path, parts)
        except CheckpointError as error:
            _left_aside(str(error))
            unusable.append(str(error).rstrip("."))
    if unusable:
        raise CheckpointError(
            f"none of the checkpoints in {run} can be used: {'; '.join(unusable)}. Delete {run} to start anew."
        )
    return None


@cache  # a run looks for its newest checkpoint more than once
def _left_aside(error: str) -> None:
    warnings.warning("A checkpoint was left aside: %s", error)


def candidates(run: Path) -> list[Path]:
    """Whatever lies in a run folder where checkpoints do, the latest step first.

    The step is that of the header, or of the name where that cannot be read. Never the time of a file: clocks go
    backwards, and copying changes it.
    """

    def step(path: Path) -> int | float:
        if (told := step_of(path)) is not None:
            return told
        named = KEPT.fullmatch(path.name)
        return math.inf if path.name == NAME else int(named[1]) if named else -1

    there = [run / NAME, *sorted((run / OLDER).glob("[!.]*.safetensors"))]
    files = (path for path in there if os.path.lexists(path) and not os.path.isdir(path))
    return sorted(files, key=step, reverse=True)


def step_of(path: Path) -> int | None:
    """What the header of a checkpoint tells, of which no more is read; None if it cannot be read."""
    try:
        return int((torch_file.header(path) or {})["step"])
    except (KeyError, ValueError):
        return None


def _read(path: Path, parts: Collection[str] | None) -> Checkpoint:
    """One file, verified."""
    if not os.path.isfile(path):  # Path.is_file raises where a folder may not be searched
        raise CheckpointError(f"there is no checkpoint at {path}; `gear train RECIPE --out FOLDER` makes one.")
    try:
        tensors, metadata = torch_file.read_safetensors(path, lambda key: parts is None or key.split(".")[0] in parts)
    except UnreadableFile as error:
        raise CheckpointError(str(error)) from None
    if metadata.get("format") != "gear-1":
        raise CheckpointError(f"{path} is a safetensors file, but not a checkpoint that `gear train` wrote.")
    if damaged := _damaged(tensors, metadata, parts):
        raise CheckpointError(
            f"{path} is damaged: its {' and '.join(damaged)} differs from what was written, by the SHA-256; use "
            "another checkpoint of the run."
        )
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


def _damaged(tensors: Mapping[str, Tensor], metadata: Mapping[str, str], parts: Collection[str] | None) -> list[str]:
    """The parts that were read and are not those that were written. Files of the first versions have no digests."""
    if "sha256" not in metadata:
        return []
    try:
        told = dict[str, object](json.loads(metadata["sha256"]))
    except (ValueError, TypeError, RecursionError):
        return ["header"]
    wanted = {part: digest for part, digest in told.items() if part == "header" or parts is None or part in parts}
    found = digests(tensors, {key: text for key, text in metadata.items() if key != "sha256"})
    return [part for part in sorted(wanted | found) if wanted.get(part) != found.get(part)]


def load_strictly(module: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Every name, shape and kind must fit, or `CheckpointError` names those that do not."""
    if wrong := faults(tensors, module.state_dict()):
        raise CheckpointError(f"{where} does not fit: {some(wrong)}; it belongs to another configuration.")
    module.load_state_dict(tensors)


def _tensors(group: Trained) -> Iterable[tuple[str, Tensor]]:
    def flat(prefix: str, state: Mapping[str, Tensor]) -> Iterable[tuple[str, Tensor]]:
        return ((f"{prefix}.{key}", whole(t.detach())) for key, t in state.items())

    yield from flat(group.name, group.module.state_dict())
    if group.ema is not None:
        yield from flat(f"{group.name}_ema", group.ema.module.state_dict())
        yield f"{group.name}_averages", group.ema.n_averaged
    for index, moments in group.optimizer.state_dict()["state"].items():
        yield from flat(f"{group.name}_optimizer.{index}", {k: torch.as_tensor(t) for k, t in moments.items()})
