"""The critic D of L_GAN in eq. 2: a PatchGAN, one logit for each overlapping patch (Isola et al. 2017, section 3.2)."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from gear import ranks
from gear.assignment import full

MOMENTUM = 0.1  # of running statistics; torch's default


class Critic(nn.Module):
    """`layers` convolutions of stride 2 and two of stride 1, all 4x4; batch normalisation between them.

    The widths are `channels` times 1, 2, 4, 8, 8, ...: the defaults are VQGAN's and the release's (2,765,633
    parameters, receptive field 70 px), with the released names main.{0,2,3,5,6,8,9,11}.
    """

    def __init__(self, channels: int = 64, layers: int = 3):
        super().__init__()
        self.layers = layers
        widths = [channels * min(2**i, 8) for i in range(layers + 1)]
        main: list[nn.Module] = [nn.Conv2d(3, channels, 4, stride=2, padding=1), nn.LeakyReLU(0.2, inplace=True)]
        for i, (c_in, c_out) in enumerate(pairwise(widths), start=1):
            stride = 2 if i < layers else 1
            main.append(nn.Conv2d(c_in, c_out, 4, stride, padding=1, bias=False))  # the bias is the norm's
            main += [BatchNorm(c_out), nn.LeakyReLU(0.2, inplace=True)]
        self.main = nn.Sequential(*main, nn.Conv2d(widths[-1], 1, 4, padding=1))
        self.apply(_init)

    def forward(self, x: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 1 h w"]:
        """Logits, high for images taken to be real; h = H // 2^layers - 2 (30 at 256 px).

        x: images in [-1, 1]. In training mode the statistics are the batch's. Raises ValueError below 3 * 2^layers px.
        """
        smallest = 3 * 2**self.layers
        if min(x.shape[-2:]) < smallest:
            raise ValueError(
                f"A critic of {self.layers} layers needs images of at least {smallest} px; they are {x.shape[-2]} x "
                f"{x.shape[-1]}. Set tokenizer.critic.layers to {self.layers - 1} or less, or data.resolution higher."
            )
        return self.main(x)


class BatchNorm(nn.BatchNorm2d):
    """Batch normalisation with the statistics of the batches of all ranks, as the release has it.

    torch's SyncBatchNorm does the same on a GPU only. Running statistics, which nothing of training depends on, do not
    take in what is not finite: a step that is left out for that (`gear.update`) must not spoil them.
    """

    def forward(self, input: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        if not self.training:
            return super().forward(input)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        moved = self.running_mean.clone(), self.running_var.clone()
        if ranks.size() == 1:
            out = F.batch_norm(input, *moved, self.weight, self.bias, True, MOMENTUM, self.eps)
        else:
            out = self._across(input, *moved)
        for running, new in zip((self.running_mean, self.running_var), moved, strict=True):
            running.copy_(torch.where(new.isfinite(), new, running))
        return out

    def _across(self, x: Tensor, running_mean: Tensor, running_var: Tensor) -> Tensor:
        wide, count = full(x), x.numel() // x.shape[1] * ranks.size()
        var, mean = torch.var_mean(wide, (0, 2, 3), correction=0)
        every = ranks.gathered(torch.stack([mean, var]))
        mean = every[:, 0].mean(0)
        var = every[:, 1].mean(0) + (every[:, 0] - mean).square().mean(0)  # within the ranks, and between them
        running_mean.lerp_(mean.detach(), MOMENTUM)
        running_var.lerp_(var.detach() * count / (count - 1), MOMENTUM)
        shape = (1, -1, 1, 1)
        out = (wide - mean.view(shape)) * ((var + self.eps).rsqrt() * self.weight).view(shape) + self.bias.view(shape)
        return out.to(x.dtype)


def _init(module: nn.Module) -> None:
    """Weights from N(0, 0.02), normalisation weights from N(1, 0.02), as in pix2pix and DCGAN."""
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)
