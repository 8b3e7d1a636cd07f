"""Small tokenizers of the four families, and checkpoints of them laid out by hand as the public ones are."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from gear.config import IBQ, LFQ, MAGVIT2, VQ, VQGAN, Tokenizer
from gear.tokenizer import tokenizer
from gear.tokenizer.critic import Critic

TAMING = {  # the places of the small IBQ, whose networks have three levels, spelt out
    "encoder.conv_blocks.0": "encoder.down.0",
    "encoder.conv_blocks.1": "encoder.down.1",
    "encoder.conv_blocks.2": "encoder.down.2",
    "decoder.conv_blocks.0": "decoder.up.2",
    "decoder.conv_blocks.1": "decoder.up.1",
    "decoder.conv_blocks.2": "decoder.up.0",
    "encoder.mid.0": "encoder.mid.block_1",
    "encoder.mid.1": "encoder.mid.attn_1",
    "encoder.mid.2": "encoder.mid.block_2",
    "decoder.mid.0": "decoder.mid.block_1",
    "decoder.mid.1": "decoder.mid.attn_1",
    "decoder.mid.2": "decoder.mid.block_2",
}


class Small:
    """Everything is of seed 0 unless said otherwise, so that two of a kind are equal."""

    families: Mapping[str, Tokenizer]

    def __init__(self) -> None:
        size: dict[str, Any] = {"channels": 4, "latent": 6, "groups": 2, "encoder_blocks": 1, "decoder_blocks": 1}
        self.shapes: dict[str, dict[str, torch.Size]] = {}
        self.families = {
            "VQ-16": Tokenizer(VQ(8, 3), VQGAN(multipliers=(1, 2), attention=False, **size)),
            "VQ-8": Tokenizer(VQ(8, 3), VQGAN(multipliers=(2,), attention=False, **size)),
            "LFQ-16": Tokenizer(LFQ(3), MAGVIT2(channels=4, multipliers=(1, 2), blocks=1, groups=2)),
            "IBQ-16": Tokenizer(IBQ(8, 5), VQGAN(multipliers=(1, 1, 2), **size)),
        }

    def tokenizer(self, family: str, seed: int = 0) -> dict[str, Tensor]:
        """Random tensors under our names."""
        if family not in self.shapes:
            net = tokenizer.Tokenizer(self.families[family].quantizer, self.families[family].backbone)
            self.shapes[family] = {name: t.shape for name, t in net.state_dict().items()}
        torch.manual_seed(seed)
        return {name: torch.randn(shape) for name, shape in self.shapes[family].items()}

    def public(self, family: str, seed: int = 0) -> dict[str, Tensor]:
        """The same tensors under the names of the family's public file."""
        tensors = self.tokenizer(family, seed)
        if family != "IBQ-16":
            return tensors
        renamed = {}
        for name, t in tensors.items():
            place = ".".join(name.split(".")[:3])
            renamed[(TAMING.get(place, place) + name.removeprefix(place)).replace(".res.", ".block.")] = t
        return renamed

    def critic(self) -> dict[str, Tensor]:
        torch.manual_seed(9)
        return Critic(channels=2, layers=2).state_dict()

    def lightning(self, family: str) -> dict[str, Any]:
        """A checkpoint of SEED-Voken's trainer: live weights of seed 0, averages of seed 1, and all that is beside."""
        critic = self.critic()
        inner = self.public(family) | {f"loss.discriminator.{name}": t for name, t in critic.items()}
        inner |= {"loss.perceptual_loss.lin0.model.1.weight": torch.zeros(1, 2, 1, 1)}
        inner |= {"model_ema.decay": torch.tensor(0.999), "model_ema.num_updates": torch.tensor(-1, dtype=torch.int32)}
        inner |= {"model_ema." + name.replace(".", ""): t for name, t in self.public(family, seed=1).items()}
        inner |= {"model_ema.lossdiscriminator" + name.replace(".", ""): t * 0 for name, t in critic.items()}
        moments = {"state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 1e-4}]}
        return {
            "epoch": 3,
            "pytorch-lightning_version": "2.2.0",
            "state_dict": inner,
            "loops": {"fit_loop": {"state_dict": {}}},
            "callbacks": {"ModelCheckpoint{'monitor': None}": {"best_model_score": torch.tensor(1.0)}},
            "optimizer_states": [moments],
        }


@pytest.fixture(scope="session")
def small() -> Small:
    return Small()
