"""Reading a network's tensors from a file, and refusing a file of another network."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from torch import Tensor, nn

from gear.store import torch_file
from gear.store.foreign import first_line
from gear.store.strict import faults, some

without = ContextVar("without", default=False)  # whether networks are made without their weights


@contextmanager
def without_weights() -> Iterator[None]:
    """Encoders made within stay on the meta device and no file is read: for `gear plan`, which only counts."""
    token = without.set(True)
    try:
        yield
    finally:
        without.reset(token)


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, or of a torch file that holds nothing but tensors; on the CPU.

    Raises ValueError for anything else; code in a pickle is never run.
    """
    if without.get():
        return {}
    contents = torch_file.read(path)
    for name, value in contents.items():
        if not isinstance(value, Tensor):
            kind = type(value).__name__
            raise ValueError(
                f"{path} has a {kind} under {name!r} where a tensor belongs: take the state dict out of it."
            )
    return contents


def renamed(
    rename: Callable[[dict[str, Tensor]], dict[str, Tensor]], tensors: dict[str, Tensor], path: Path, kind: str
) -> dict[str, Tensor]:
    """`rename(tensors)`; what it stumbles over in a file of another network is a ValueError as in `fill`."""
    try:
        return rename(tensors)
    except (LookupError, RuntimeError) as error:  # a name that should be there, shapes that do not go together
        raise ValueError(f"{path} does not hold the weights of {kind}: {first_line(error)}.") from error


def fill(net: nn.Module, tensors: dict[str, Tensor], path: Path, kind: str) -> None:
    """Gives `net`, which may lie on the meta device, exactly these tensors, the floating ones as float32.

    Raises ValueError, naming the first differences, if a tensor is missing, left over, of another shape, of
    whole numbers instead of real ones, or not finite; `path` and `kind` only word the message.
    """
    if without.get():
        return
    if wrong := faults(tensors, net.state_dict()):
        raise ValueError(f"{path} does not hold the weights of {kind}: {some(wrong)}.")
    float32 = {name: t.float() if t.is_floating_point() else t for name, t in tensors.items()}
    net.load_state_dict(float32, assign=True)
