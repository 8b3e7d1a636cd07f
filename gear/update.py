"""What may move: `frozen(module)` holds a module fixed for one term, `update` moves whole groups (eqs. 11, 12)."""

import copy
import inspect
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.graph import increment_version
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.func import functional_call
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from gear import ranks
from gear.recompute import recompute

_skeletons: "weakref.WeakKeyDictionary[nn.Module, nn.Module]" = weakref.WeakKeyDictionary()


def frozen(
    module: nn.Module, needed: Callable[[str], bool] = lambda name: True, *, train: bool = False
) -> Callable[..., Any]:
    """`module` as a function of its inputs alone: same values, no gradient to any parameter.

    It runs a copy of the module's structure that owns no memory (meta tensors) on the live, detached parameters, so
    neither `requires_grad` nor the mode of the live module is touched and nothing is left to restore. Dropout is off,
    unless `train` asks for training mode: a critic with batch statistics does, and its running ones then move as they
    would in any call.

    Its activations are kept, also where those of the live module are computed again. Parameters that are sharded over
    the ranks are gathered first, by all ranks together: those whose name is `needed`.
    """
    skeleton, named = _skeleton(module).train(train), dict(module.named_parameters())
    state = {name: whole(p.detach()) for name, p in named.items() if not isinstance(p, DTensor) or needed(name)}
    complete = len(state) == len(named)
    state |= dict(module.named_buffers())
    return lambda *args, **kwargs: functional_call(skeleton, state, args, kwargs, strict=complete)


def _skeleton(module: nn.Module) -> nn.Module:
    if module not in _skeletons:
        memo: dict[int, Any] = {id(p): nn.Parameter(p.to("meta"), p.requires_grad) for p in module.parameters()}
        memo |= {id(b): b.to("meta") for b in module.buffers()}
        skeleton = copy.deepcopy(module, memo)
        for part, live in zip(skeleton.modules(), module.modules(), strict=True):
            if live._compiled_call_impl is not None:  # which deepcopy leaves out
                part.compile()
        recompute(skeleton, False)  # by the backward pass its parameters have left it
        _skeletons[module] = skeleton
    return _skeletons[module]


def whole(t: Tensor) -> Tensor:
    """A tensor that is sharded over the ranks (FSDP2) put together, by all of them; any other as it is."""
    return t.full_tensor() if isinstance(t, DTensor) else t


def averaged(module: nn.Module, decay: float) -> AveragedModel:
    """An exponential moving average of `module`, which starts as a copy of it. Buffers too, as in the released GEAR."""
    average = AveragedModel(module, multi_avg_fn=_moving_average(decay), use_buffers=True)
    average.n_averaged.fill_(1)  # the first update averages too; torch's would copy
    return average.eval().requires_grad_(False)


def _moving_average(decay: float) -> Callable[..., None]:
    move = get_ema_multi_avg_fn(decay)

    def each_kind(averages: list[Tensor], live: list[Tensor], count: Tensor | int) -> None:
        kinds: dict[Any, list[tuple[Tensor, Tensor]]] = {}  # torch takes no lists of several
        for pair in zip(averages, live, strict=True):
            kinds.setdefault((isinstance(pair[0], DTensor), pair[0].dtype), []).append(pair)
        for pairs in kinds.values():
            move([a for a, _ in pairs], [b for _, b in pairs], count)

    return each_kind


def shard(module: nn.Module, parts: str, average: AveragedModel | None) -> None:
    """Spreads the parameters of `module` and of its average over the ranks (FSDP2), one of its `parts` (the name of a
    list of modules) gathered at a time. Before the optimiser is made, whose state is then spread as well."""
    _skeleton(module)  # a sharded module cannot be copied
    # A projector's output is a view; nothing here changes one in place.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view", UserWarning)
    mesh = init_device_mesh(next(module.parameters()).device.type, (ranks.size(),))
    for net in (module,) if average is None else (module, average.module):
        for part in net.get_submodule(parts).children():
            fully_shard(part, mesh=mesh)
        fully_shard(net, mesh=mesh)


def whole_average(group: "Trained") -> nn.Module:
    """The averaged module of a group, or the module itself where no average is kept, in eval mode; put together, by all
    ranks, where it is sharded."""
    net = group.module if group.ema is None else group.ema.module
    if not group.sharded:
        return net.eval()
    on = next(net.parameters()).device
    copied = copy.deepcopy(_skeleton(group.module)).to_empty(device=on)
    copied.load_state_dict({name: whole(t) for name, t in net.state_dict().items()})
    return copied.eval().requires_grad_(False)


class Trained(nn.Module):
    """A module with its own optimiser, gradient clipping and exponential moving average. Calling it calls the module.

    name: "tokenizer", "critic" or "generator". optimizer: a fused one of torch, which leaves an update out without
    asking the host. ema: the averaged copy, in eval mode, or its decay; None without.
    """

    module: Any  # an nn.Module; what it offers beside `forward` is known to the step that uses it
    ema: AveragedModel | None

    def __init__(
        self,
        name: str,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        clip: float,
        ema: AveragedModel | float | None,
    ):
        super().__init__()
        if not optimizer.defaults.get("fused"):
            raise ValueError(f"the optimiser of {name} must be a fused one: give it fused=True.")
        self.name, self.module, self.optimizer, self.clip = name, module, optimizer, clip
        self.ema = ema if ema is None or isinstance(ema, AveragedModel) else averaged(module, ema)
        nets = (module,) if self.ema is None else (self.ema.module, module)
        self._averaged = [[t.detach() for t in (*net.parameters(), *net.buffers())] for net in nets]
        self.sharded = any(isinstance(p, DTensor) for p in module.parameters())
        self._ddp: tuple[DistributedDataParallel, ...] = ()  # in a tuple, so that its parameters are not counted twice

    def replicate(self) -> None:
        """Gradients are averaged over the ranks from now on, each of which holds the whole module. Rank 0's weights
        are everyone's."""
        on = next(self.module.parameters()).device
        # Buffers are functions of what all ranks share. Older versions of torch have another name for it.
        known = inspect.signature(DistributedDataParallel).parameters
        buffers = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
        own: dict[str, Any] = {"device_ids": None if on.type == "cpu" else [on], buffers: False}
        self._ddp = (DistributedDataParallel(self.module, gradient_as_bucket_view=True, **own),)

    @torch.no_grad()
    def average(self) -> None:
        """Moves the average. As `AveragedModel.update_parameters`, which copies its counter to the GPU at every step,
        and so waits for it."""
        if self.ema is not None:
            average, live = self._averaged
            self.ema.multi_avg_fn(average, live, self.ema.n_averaged)  # pyright: ignore[reportOptionalCall]
            self.ema.n_averaged += 1

    def alone(self) -> None:
        """Undoes `replicate`: a process group must not end before its reducers."""
        self._ddp = ()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        index, of = ranks.part()
        for ddp in self._ddp:
            ddp.require_backward_grad_sync = index == of - 1
            return ddp(*args, **kwargs)
        if self.sharded:
            self.module.set_requires_gradient_sync(index == of - 1)
        return self.module(*args, **kwargs)


def update(loss: Float[Tensor, ""], *groups: Trained) -> dict[str, Tensor]:
    """One optimiser step of each group down `loss`. Returns for the log {"grad_<name>": norm before clipping,
    "skipped_<name>": 1 if that was not finite and the group therefore stayed where it was, else 0}. The average takes
    in the group's weights in either case.

    Each group is clipped by itself: the release clips the tokenizer, the critic and the generator apart (Table 16).
    The backward pass runs outside autocast: what the forward pass kept in float32 has its gradient in float32.
    Where gradients are accumulated, `loss` is that of the part in hand; the groups move with the last part, and what is
    returned before is empty.
    """
    index, of = ranks.part()
    if index == 0:
        for group in groups:
            group.optimizer.zero_grad(set_to_none=True)  # whatever a caller's own backward pass left
    with torch.autocast(loss.device.type, enabled=False):
        # A loss that is not finite may have a finite gradient: times NaN, no rank moves by it.
        (loss / of * torch.where(loss.detach().isfinite(), 1.0, torch.nan)).backward()
    if index < of - 1:
        return {}
    told = {}
    for group in groups:
        norm = whole(nn.utils.clip_grad_norm_(group.module.parameters(), group.clip))
        skipped = (~norm.isfinite()).float()
        # Fused optimisers read these two on the device, for gradient scaling: here without the scaling.
        group.optimizer.grad_scale, group.optimizer.found_inf = None, skipped  # pyright: ignore[reportAttributeAccessIssue]
        group.optimizer.step()
        increment_version(list(group.module.parameters()))  # fused optimisers do not, and autograd should notice
        group.optimizer.zero_grad(set_to_none=True)  # the memory is the next group's
        group.average()
        told |= {f"grad_{group.name}": norm, f"skipped_{group.name}": skipped}
    return told
