"""Reading a network's tensors from a file, and refusing a file of another network."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, or of a torch file that holds nothing but tensors; on the CPU.

    Raises ValueError for anything else; code in a pickle is never run.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # readers meet damage with nearly any exception
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"{path} is not a whole file of tensors (.safetensors, or .pth without code in it): {said}"
        ) from None


def fill(net: nn.Module, tensors: dict[str, Tensor], path: Path, kind: str) -> None:
    """Gives `net`, which may lie on the meta device, exactly these tensors, the floating ones as float32.

    Raises ValueError, naming the first difference, if a tensor is missing, left over or of another shape; `path` and
    `kind` only word the message.
    """
    wanted = net.state_dict()
    for name in sorted(wanted.keys() | tensors.keys()):
        if name not in tensors:
            fault = f"it lacks {name}"
        elif name not in wanted:
            fault = f"{name} has no place in one"
        elif tensors[name].shape != wanted[name].shape:
            fault = f"its {name} is {tuple(tensors[name].shape)} and should be {tuple(wanted[name].shape)}"
        else:
            continue
        raise ValueError(f"{path} does not hold the weights of {kind}: {fault}.")
    float32 = {name: t.float() if t.is_floating_point() else t for name, t in tensors.items()}
    net.load_state_dict(float32, assign=True)
