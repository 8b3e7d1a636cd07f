"""What may move: `frozen(module)` holds a module fixed for one term, `update` moves whole groups (eqs. 11, 12)."""

import copy
import weakref
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

_skeletons: "weakref.WeakKeyDictionary[nn.Module, nn.Module]" = weakref.WeakKeyDictionary()


def frozen(module: nn.Module, *, train: bool = False) -> Callable[..., Any]:
    """`module` as a function of its inputs alone: same values, no gradient to any parameter.

    It runs a copy of the module's structure that owns no memory (meta tensors) on the live, detached parameters, so
    neither `requires_grad` nor the mode of the live module is touched and nothing is left to restore. Dropout is off,
    unless `train` asks for training mode: a critic with batch statistics does, and its running ones then move as they
    would in any call.
    """
    if module not in _skeletons:
        memo: dict[int, Any] = {id(p): nn.Parameter(p.to("meta"), p.requires_grad) for p in module.parameters()}
        memo |= {id(b): b.to("meta") for b in module.buffers()}
        _skeletons[module] = copy.deepcopy(module, memo)
    skeleton = _skeletons[module].train(train)
    state = {name: p.detach() for name, p in module.named_parameters()} | dict(module.named_buffers())
    return lambda *args, **kwargs: functional_call(skeleton, state, args, kwargs, strict=True)


class Trained(nn.Module):
    """A module with its own optimiser, gradient clipping and exponential moving average. Calling it calls the module.

    name: "tokenizer", "critic" or "generator". ema: the averaged copy, in eval mode; None without a decay.
    """

    module: Any  # an nn.Module; what it offers beside `forward` is known to the step that uses it
    ema: AveragedModel | None

    def __init__(self, name: str, module: nn.Module, optimizer: torch.optim.Optimizer, clip: float, ema: float | None):
        super().__init__()
        self.name, self.module, self.optimizer, self.clip = name, module, optimizer, clip
        # Buffers are averaged too, as in the released GEAR.
        average = (
            None if ema is None else AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(ema), use_buffers=True)
        )
        self.ema = None if average is None else average.eval().requires_grad_(False)
        if average is not None:
            average.n_averaged.fill_(1)  # the first update averages too; torch's would copy

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)


def update(loss: Float[Tensor, ""], *groups: Trained) -> dict[str, Tensor]:
    """One optimiser step of each group down `loss`. Returns {"grad_<name>": norm before clipping} for the log.

    Each group is clipped by itself: the release clips the tokenizer, the critic and the generator apart (Table 16).
    The backward pass runs outside autocast: what the forward pass kept in float32 has its gradient in float32.
    """
    for group in groups:
        group.optimizer.zero_grad(set_to_none=True)  # whatever a caller's own backward pass left
    with torch.autocast(loss.device.type, enabled=False):
        loss.backward()
    norms = {}
    for group in groups:
        norms[f"grad_{group.name}"] = nn.utils.clip_grad_norm_(group.module.parameters(), group.clip)
        group.optimizer.step()
        group.optimizer.zero_grad(set_to_none=True)  # the memory is the next group's
        if group.ema is not None:
            group.ema.update_parameters(group.module)
    return norms
