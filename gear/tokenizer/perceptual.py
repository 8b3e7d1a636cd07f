"""L_LPIPS of eq. 2: LPIPS v0.1 (Zhang et al. 2018) by the `lpips` package, over a trunk read from a local file."""

import warnings
from contextlib import nullcontext
from pathlib import Path
from typing import Literal

import lpips
import torch
from jaxtyping import Float
from torch import Tensor, nn

from gear.store import torch_file
from gear.store.strict import faults, some

SMALLEST = {"alex": 31, "vgg": 16}  # px of a side; below it a pooling layer of the trunk has nothing left to pool


class Perceptual(nn.Module):
    """LPIPS, frozen: no parameter takes a gradient; always in eval mode, always float32.

    trunk: "vgg" (the release's) or "alex" (a twentieth of the time on a CPU). weights_path: a safetensors file with
    exactly that trunk's convolutions under torchvision's names (features.0.weight, ...), float16 or float32; ValueError
    otherwise. None leaves it as lpips initialises it, for `gear plan`. The linear layers are in the `lpips` package.
    """

    def __init__(self, trunk: Literal["alex", "vgg"], weights_path: Path | None):
        super().__init__()
        self.trunk = trunk
        # On the meta device the random trunk that lpips insists on costs nothing and draws no random numbers.
        with torch.device("meta") if weights_path else nullcontext(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it names torchvision's deprecated argument `pretrained`
            self.lpips = lpips.LPIPS(net=trunk, pretrained=False, pnet_rand=True, verbose=False)
        self.lpips.scaling_layer = lpips.ScalingLayer()
        if weights_path is not None:
            self.lpips.net.load_state_dict(_trunk(self.lpips.net, trunk, weights_path), assign=True)
            linear_path = Path(lpips.__file__).parent / "weights" / "v0.1" / f"{trunk}.pth"
            linear = torch_file.read(linear_path)
            for i, layer in enumerate(self.lpips.lins):
                layer.load_state_dict({"model.1.weight": linear[f"lin{i}.model.1.weight"]}, assign=True)
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "Perceptual":
        return super().train(False)  # dropout in the linear layers stays off

    def forward(self, x: Float[Tensor, "B 3 H W"], y: Float[Tensor, "B 3 H W"]) -> Float[Tensor, ""]:
        """The mean distance of a batch of pairs, 0 where x = y; images in [-1, 1], at least 31 (alex) or 16 (vgg) px.

        Symmetric. Gradients reach x and y; a side without `requires_grad` costs only its forward pass, no graph.
        """
        smallest = SMALLEST[self.trunk]
        if min(x.shape[-2:]) < smallest:
            raise ValueError(
                f"LPIPS over {self.trunk!r} needs images of at least {smallest} px; they are {x.shape[-2]} x "
                f"{x.shape[-1]}. Choose a larger data.resolution, or set tokenizer.loss.perceptual to 0."
            )
        with torch.autocast(x.device.type, enabled=False):
            return self.lpips(x.float(), y.float()).mean()


def _trunk(net: nn.Module, trunk: str, path: Path) -> dict[str, Tensor]:
    """The file's tensors in float32 under lpips's names: slice2.3.weight is features.3.weight."""
    names = {key: "features." + key.partition(".")[2] for key in net.state_dict()}
    state = torch_file.read(path)
    if wrong := faults(state, {names[key]: tensor for key, tensor in net.state_dict().items()}):
        raise ValueError(f"{path} is not the {trunk!r} trunk of LPIPS: {some(wrong)}.")
    return {key: state[name].float() for key, name in names.items()}
