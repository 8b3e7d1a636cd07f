"""The critic D of L_GAN in eq. 2: a PatchGAN, one logit for each overlapping patch (Isola et al. 2017, section 3.2)."""

from itertools import pairwise

from jaxtyping import Float
from torch import Tensor, nn


class Critic(nn.Module):
    """`layers` convolutions of stride 2 and two of stride 1, all 4x4; batch normalisation between them.

    The widths are `channels` times 1, 2, 4, 8, 8, ...: the defaults are VQGAN's and the release's (2,765,633
    parameters, receptive field 70 px), with the released names main.{0,2,3,5,6,8,9,11}. Across ranks, convert it with
    `nn.SyncBatchNorm.convert_sync_batchnorm`.
    """

    def __init__(self, channels: int = 64, layers: int = 3):
        super().__init__()
        self.layers = layers
        widths = [channels * min(2**i, 8) for i in range(layers + 1)]
        main: list[nn.Module] = [nn.Conv2d(3, channels, 4, stride=2, padding=1), nn.LeakyReLU(0.2, inplace=True)]
        for i, (c_in, c_out) in enumerate(pairwise(widths), start=1):
            stride = 2 if i < layers else 1
            main.append(nn.Conv2d(c_in, c_out, 4, stride, padding=1, bias=False))  # the bias is the norm's
            main += [nn.BatchNorm2d(c_out), nn.LeakyReLU(0.2, inplace=True)]
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


def _init(module: nn.Module) -> None:
    """Weights from N(0, 0.02), normalisation weights from N(1, 0.02), as in pix2pix and DCGAN."""
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)
