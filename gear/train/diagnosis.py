"""Why a run stopped on numbers that are not finite: the step once more, watched, and the sentence that tells of it.

The batch is kept in the run's folder, so that somebody can look at it, or replay it later.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.modules import module as every_module

from gear import ranks
from gear.prompts import Prompts
from gear.step import Batch, Encoded, Step
from gear.store import strict
from gear.store.foreign import UnreadableFile
from gear.store.saving import save_safetensors
from gear.store.strict import clean, some
from gear.store.torch_file import read_safetensors
from gear.update import Trained

FOLDER, FORMAT = "nonfinite", "gear-batch-1"
CAUSES = ("batch", "weights", "forward", "loss", "backward", "norm", "nowhere")  # in the order of a step
OWNER = {"ntp": "generator", "align_hard": "generator", "critic": "critic"}  # the other losses are the tokenizer's


@dataclass(frozen=True)
class Diagnosis:
    """What was not finite when the step was repeated; names are like "generator.layers.3.attention".

    terms: of `Step.terms`, the losses in their order, then the norms of gradients.
    batch: the first part of the batch, "x" or "f.dinov2-b". weight: the first parameter, before the step.
    module: the first one, in the order in which they finish, to give a value that is not finite for inputs that are.
    gradient: the first parameter, in the order of the backward pass, whose gradient is not finite.
    """

    terms: tuple[str, ...]
    batch: str | None
    weight: str | None
    module: str | None
    gradient: str | None

    @property
    def severity(self) -> int:
        """Smaller where it arises earlier: of what several ranks find, the smallest is the cause."""
        return CAUSES.index(self.where)

    @property
    def term(self) -> str | None:
        """The first loss that is not finite; where all are, the first norm of a gradient."""
        return self.terms[0] if self.terms else None

    @property
    def where(self) -> Literal["batch", "weights", "forward", "loss", "backward", "norm", "nowhere"]:
        """Where it arises, the earliest cause first. "loss": in what the step computes outside modules. "norm": only
        the norm over all gradients overflows. "nowhere": the repeated step was finite."""
        if self.batch is not None:
            return "batch"
        if self.weight is not None:
            return "weights"
        if self.module is not None:
            return "forward"
        if self.term is not None and not self.term.startswith("grad_"):
            return "loss"
        if self.gradient is not None:
            return "backward"
        return "norm" if self.terms else "nowhere"


def diagnose(
    groups: Sequence[Trained], step: Callable[[Any], Step], batch: Batch | Encoded, seed: Callable[[], object]
) -> Diagnosis:
    """Runs `step` on `batch` again, on the weights as they are, and says where numbers stop being finite.

    step: as the loop runs it, with its autocast. seed: sets the randomness of that step; torch's state is put back.
    Whatever the step moves (weights, averages, buffers, optimiser) is kept on the host meanwhile and is bit for bit
    what it was afterwards, also if the step raises; gradients are cleared. With several ranks all must call this, and
    each looks at its own rows and shards.

    Modules are watched by hooks on all modules, not on those of `groups`: `gear.update.frozen` runs a copy of a
    group, where hooks of the live module do not fire, and which would keep them if it were made now. The copy's
    modules go by the live ones' names, others by their class. What is not a module is not seen: the losses, and the
    generator's embedding as the soft branch reads it. That align_soft breaks there is told by `terms`, and by `weight`.
    Compiled modules run eagerly here, as hooks do not fire in them; that rounds otherwise.
    """
    named = {name: p for group in groups for name, p in _parameters(group)}
    weight, spoilt = _first_broken(named), _first_broken(_contents(batch))
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(sorted({p.device.index for p in named.values() if p.is_cuda})))
        stack.enter_context(_put_back(groups))
        if any(m._compiled_call_impl is not None for group in groups for m in group.modules()):
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        watch = stack.enter_context(_Watch(groups, named))
        seed()
        terms = step(batch).terms
        broken = [name for name, value in terms.items() if not _finite(value)]
    losses_first = sorted(broken, key=lambda name: name.startswith("grad_"))
    return Diagnosis(tuple(losses_first), spoilt, weight, watch.module, None if watch.module else watch.gradient)


def sentence(found: Diagnosis, step: int, saved: Path) -> str:
    """One sentence for people. step: the first of those that were not finite. saved: what `save_batch` gave."""
    first, *others = found.terms or ("the gradient",)
    nor = f" (nor {'is' if len(others) == 1 else 'are'} {some(others, ', ')})" if others else ""
    told = {
        "batch": f"the batch itself holds NaN or infinity, in {found.batch}",
        "weights": f"the weight {found.weight} itself is not finite",
        "forward": f"the first module with a non-finite output for finite inputs was {found.module}",
        "loss": "the output of every module was finite, so the loss itself is not",
        "backward": f"every output was finite, and the first gradient that was not is {found.gradient}'s",
        "norm": "every output and gradient was finite, but not the norm over all of them",
        "nowhere": "the same step was finite when it was repeated, so it was this machine or chance",
    }[found.where]
    earlier = "go on from an earlier checkpoint (keep_every keeps some)"
    lower = f"train with a lower optimizer.{_owner(found)}_lr in another folder, or {earlier}"
    advice = {
        "batch": "mend or remove those images (x), or look at that target's weights (f), and give the same command",
        "weights": earlier,
        "nowhere": earlier,
    }.get(found.where, lower)
    return f"{first} is not finite from step {step} on{nor}; {told}; the batch is saved in {saved}; {advice}."


def save_batch(run: Path, step: int, batch: Batch | Encoded) -> Path:
    """Writes RUN/nonfinite/step-00001234.safetensors, whole or not at all: x or q, c (of captions c.states and
    c.valid), f.TARGET as they are. Of several ranks each writes its share, as step-00001234-rank-0.safetensors. Raises
    `WriteError`."""
    own = f"-rank-{ranks.rank()}" if ranks.size() > 1 else ""
    path = run / FOLDER / f"step-{step:08d}{own}.safetensors"
    tensors = {name: t.detach().cpu().contiguous() for name, t in _contents(batch).items()}
    save_safetensors(path, tensors, {"format": FORMAT, "step": str(step)})
    return path


def load_batch(path: Path) -> Batch | Encoded:
    """What `save_batch` wrote, on the CPU. Raises `UnreadableFile`."""
    tensors, metadata = read_safetensors(path)
    condition = tensors.keys() & {"c", "c.states", "c.valid"}
    whole = condition in ({"c"}, {"c.states", "c.valid"})
    if metadata.get("format") != FORMAT or not whole or not tensors.keys() & {"x", "q"}:
        raise UnreadableFile(f"{path} holds no batch: give one that a run left in its folder {FOLDER}/.")
    f = {name.removeprefix("f."): t for name, t in tensors.items() if name.startswith("f.")}
    c = tensors["c"] if "c" in tensors else Prompts(tensors["c.states"], tensors["c.valid"])
    return Batch(tensors["x"], c, f) if "x" in tensors else Encoded(tensors["q"], c, f)


# ---------------------------------------------------------------------------------------------------- watching


class _Watch:
    """Between entering and leaving it, notes the first module and the first gradient that break."""

    def __init__(self, groups: Sequence[Trained], parameters: Mapping[str, nn.Parameter]):
        self.groups, self.parameters = groups, parameters
        self.module: str | None = None
        self.gradient: str | None = None
        self.names: dict[nn.Module, str] = {}
        self.sound: dict[nn.Module, bool] = {}  # whether the inputs were finite, of modules that have not finished
        for group in groups:
            self._name(group.module, group.name)
            self.names[group] = group.name

    def __enter__(self) -> "_Watch":
        self.handles = [
            every_module.register_module_forward_pre_hook(self._begins),
            every_module.register_module_forward_hook(self._ends),
        ]
        for name, p in self.parameters.items():
            if p.requires_grad:
                self.handles.append(p.register_post_accumulate_grad_hook(partial(self._accumulated, name)))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self.handles:
            handle.remove()

    def _name(self, root: nn.Module, name: str) -> None:
        for part, module in root.named_modules():
            self.names.setdefault(module, ".".join(filter(None, (name, clean(part)))))

    def _begins(self, module: nn.Module, args: Any) -> None:
        if module not in self.names:
            live = [group.name for group in self.groups if _same_parts(group.module, module)]
            self._name(module, live[0] if live else type(module).__name__)
        if self.module is None:
            # Now, and not when it finishes: what runs in place would have overwritten them by then.
            self.sound[module] = _finite(args)

    def _ends(self, module: nn.Module, args: Any, output: Any) -> None:
        if self.module is None and self.sound.pop(module, False) and not _finite(output):
            self.module = self.names[module]

    def _accumulated(self, name: str, p: Tensor) -> None:
        if self.gradient is None and not _finite(p.grad):
            self.gradient = name


@contextmanager
def _put_back(groups: Sequence[Trained]) -> Iterator[None]:
    """Whatever the block does to the groups is undone after it. The copies are on the host, where there is room."""

    def kept(t: Any) -> tuple[Any, Any]:
        return (t, _local(t).to("cpu", copy=True)) if isinstance(t, Tensor) else (t, None)

    tensors = [kept(t) for group in groups for t in (*group.parameters(), *group.buffers())]
    moments = [{p: {k: kept(v) for k, v in state.items()} for p, state in g.optimizer.state.items()} for g in groups]
    try:
        yield
    finally:
        for live, copy in tensors:
            _local(live).copy_(copy)
        for group, before in zip(groups, moments, strict=True):
            group.optimizer.zero_grad(set_to_none=True)
            group.optimizer.state.clear()
            for p, state in before.items():
                group.optimizer.state[p] = {name: live for name, (live, _) in state.items()}
                for live, copy in state.values():
                    if copy is not None:
                        _local(live).copy_(copy)


# ---------------------------------------------------------------------------------------------------- small parts


def _parameters(group: Trained) -> Iterator[tuple[str, nn.Parameter]]:
    return ((f"{group.name}.{clean(name)}", p) for name, p in group.module.named_parameters())


def _same_parts(live: nn.Module, other: nn.Module) -> bool:
    """Whether `other` is a copy of `live`, whose class is one below the copy's if it is sharded (FSDP2)."""
    first, second = ([name for name, _ in module.named_modules()] for module in (live, other))
    return isinstance(live, type(other)) and first == second


def _contents(batch: Batch | Encoded) -> dict[str, Tensor]:
    """Its tensors by name; those of captions are c.states and c.valid."""
    found: dict[str, Tensor] = {}
    for field in dataclasses.fields(batch):
        value = getattr(batch, field.name)
        if isinstance(value, Tensor):
            found[field.name] = value
        else:
            inside = value if field.name == "f" else vars(value)
            found |= {f"{field.name}.{name}": t for name, t in inside.items()}
    return found


def _first_broken(tensors: Mapping[str, Tensor]) -> str | None:
    return next((name for name, t in tensors.items() if not _finite(t)), None)


def _finite(value: Any) -> bool:
    """Whether every tensor in it is: in dicts, lists, tuples and dataclasses too."""
    if isinstance(value, Tensor):
        return strict.finite(_local(value))
    if dataclasses.is_dataclass(value):
        return all(_finite(getattr(value, field.name)) for field in dataclasses.fields(value))
    if isinstance(value, Mapping):
        return all(map(_finite, value.values()))
    return all(map(_finite, value)) if isinstance(value, list | tuple) else True


def _local(t: Tensor) -> Tensor:
    """Without its graph; of one that is sharded over the ranks (FSDP2), what this rank has."""
    t = t.detach()
    return t.to_local() if isinstance(t, DTensor) else t


def _owner(found: Diagnosis) -> str:
    """The group whose learning rate to lower."""
    named = (found.module or found.gradient or "").split(".")[0]
    if named in ("tokenizer", "critic", "generator"):
        return named
    term = found.term or ""
    return term.removeprefix("grad_") if term.startswith("grad_") else OWNER.get(term, "tokenizer")
