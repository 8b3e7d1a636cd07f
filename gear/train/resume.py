"""Where a run goes on: rank 0 reads the newest valid checkpoint, and every rank gets what is its part of it.

Only rank 0 needs to see the run's folder, so machines need not share a disk. Tensors travel one at a time.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor

from gear import ranks
from gear.store.strict import faults, some
from gear.train import state
from gear.train.distributed import told
from gear.update import Trained


@dataclass(frozen=True)
class Start:
    """
    step: updates made so far. log: what `state.collect` was given, on rank 0, else empty.
    """

    step: int
    log: Mapping[str, Tensor]


def resume(run: Path, groups: Sequence[Trained], classes: Sequence[str]) -> Start:
    """Puts the newest valid checkpoint of `run` into the groups, on all ranks; (0, {}) where there is none.

    Raises `CheckpointError` for one of other classes or of another configuration.
    """
    found = state.newest(run) if ranks.rank() == 0 else None
    if found is not None:
        _require_classes(found, classes)
    step = told(None if found is None else found.step)
    if step is None:
        return Start(0, {})
    for group in groups:
        restore(group, found)
    return Start(step, {} if found is None else found.part("log"))


def _require_classes(found: state.Checkpoint, classes: Sequence[str]) -> None:
    if tuple(classes) == found.classes:
        return
    gone, new = (sorted(set(a) - set(b)) for a, b in ((found.classes, classes), (classes, found.classes)))
    parts = [f"{len(names)} {what} ({some(names, ', ')})" for what, names in (("gone", gone), ("new", new)) if names]
    raise state.CheckpointError(
        f"the classes of the images have changed since {found.path} was written ({'; '.join(parts) or 'their order'}): "
        "restore the folder as it was, or train in another one with --out."
    )


def restore(group: Trained, found: state.Checkpoint | None) -> None:
    """Weights, average and optimiser of one group, from rank 0's checkpoint; all ranks call it together."""
    live = {group.name: group.module.state_dict()}
    if group.ema is not None:
        live[f"{group.name}_ema"] = group.ema.module.state_dict()
        live[f"{group.name}_averages"] = {"": group.ema.n_averaged}
    for part, tensors in live.items():
        kept = {"": found.tensors[part]} if found and part in found.tensors else found.part(part) if found else {}
        if found is not None and (wrong := faults(kept, tensors)):
            where = f"{part} in {found.path}"
            raise state.CheckpointError(f"{where} does not fit: {some(wrong)}; it belongs to another configuration.")
        for name, t in tensors.items():
            _fill(t, kept.get(name))
    moments = found.part(f"{group.name}_optimizer") if found else {}
    _restore_optimizer(group, told(list(moments)), moments)


def _restore_optimizer(group: Trained, keys: Collection[str], kept: Mapping[str, Tensor]) -> None:
    parameters = list(group.module.parameters())
    moments: dict[int, dict[str, Tensor]] = {}
    for key in keys:
        index, name = key.split(".")
        p = parameters[int(index)]  # whose memory layout the moments had, and keep for speed
        t = torch.zeros((), device=p.device) if name == "step" else torch.zeros_like(p)
        _fill(t.detach(), kept.get(key))
        moments.setdefault(int(index), {})[name] = t
    if moments:
        param_groups = group.optimizer.state_dict()["param_groups"]
        group.optimizer.load_state_dict({"state": moments, "param_groups": param_groups})


@torch.no_grad()
def _fill(live: Tensor, kept: Tensor | None) -> None:
    """kept: the whole tensor, on rank 0."""
    if isinstance(live, DTensor):
        whole = torch.empty(live.shape, dtype=live.dtype, device=live.device)
        if kept is not None:
            whole.copy_(kept)
        live.copy_(distribute_tensor(whole, live.device_mesh, live.placements))  # from rank 0
        return
    if kept is not None:
        live.copy_(kept)
    if ranks.size() > 1:
        dist.broadcast(live, 0)
