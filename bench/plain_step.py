"""The joint training step as a good engineer writes it first: Algorithm 1 in ordinary PyTorch, whole matrices and all.

What `gear.step.gear_step` is measured against (`bench.step`), and the same step: equal losses, weights and averages
from equal weights (`tests/test_plain_step.py`). Nothing is slow on purpose: attention is torch's fused one, there is no
loop over the batch, the soft branch stops at the tap, AdamW is the fused one, gradients go right after their step, and
the tokenizer moves before the hard branch runs, so that their graphs are never there together. What is missing is what
one adds after looking at a profile.

B images, N tokens each, K codewords.
"""

import copy
import warnings
from collections.abc import Mapping

import lpips
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from bench.plain_networks import Critic, Generator, Tokenizer, wide
from gear import config as cfg
from gear.build import Training
from gear.config import Config, grid


class PlainStep:
    """The networks of a joint run with their optimisers and averages; a call is a step.

    config: as `known` wants it.
    start: the weights, which are copied, as `start` names them.
    """

    def __init__(self, config: Config, classes: int, target_dims: Mapping[str, int], start: Mapping[str, Tensor]):
        t = config.tokenizer
        self.stage, vq, backbone = known(config)
        self.weights, self.settings = t.loss, config.optimizer
        self.low = config.precision == "bfloat16"

        self.tokenizer = Tokenizer(vq, backbone)
        self.critic = Critic(t.critic.channels, t.critic.layers)
        self.generator = Generator(config.generator, vq.codebook_size, classes, grid(config), target_dims)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it names torchvision's deprecated argument `pretrained`
            self.lpips = lpips.LPIPS(net=t.loss.perceptual_trunk, pretrained=False, pnet_rand=True, verbose=False)
        self.lpips.requires_grad_(False).eval()
        for name in {key.partition(".")[0] for key in start}:
            own = {key.removeprefix(f"{name}."): t for key, t in start.items() if key.startswith(f"{name}.")}
            getattr(self, name).load_state_dict(own)

        self.tokenizer_optimizer = self._adamw(self.tokenizer, self.settings.tokenizer_lr)
        self.critic_optimizer = self._adamw(self.critic, self.settings.critic_lr)
        self.generator_optimizer = self._adamw(self.generator, self.settings.generator_lr)
        self.tokenizer_average = copy.deepcopy(self.tokenizer).requires_grad_(False)
        self.generator_average = copy.deepcopy(self.generator).requires_grad_(False)

    def _adamw(self, net: nn.Module, lr: float) -> torch.optim.AdamW:
        o = self.settings
        return torch.optim.AdamW(net.parameters(), lr, (o.beta1, o.beta2), weight_decay=o.weight_decay, fused=True)

    def __call__(
        self, x: Float[Tensor, "B 3 H W"], c: Int[Tensor, "B"], f: Mapping[str, Float[Tensor, "B N _"]]
    ) -> dict[str, float]:
        """Algorithm 1; its line numbers on the right. x: images in [-1, 1]. c: labels. f: features of the targets.
        Returns the losses and the norms of the gradients, by the names that `gear.step.Step` has."""
        tokenizer, critic, generator, w = self.tokenizer, self.critic, self.generator, self.weights
        generator.requires_grad_(False).eval()  # held fixed for the soft term, and without dropout
        critic.requires_grad_(False)
        C, E = tokenizer.quantize.get_parameter("embedding.weight"), generator.tok_embeddings.weight
        # fmt: off
        with self._autocast(x):
            z = tokenizer.encode(x)                                                     # 1     Z
        z, C = F.normalize(wide(z).flatten(2).transpose(1, 2), dim=-1), F.normalize(C, dim=-1)
        A = 2 * z @ C.T - z.square().sum(-1, keepdim=True) - C.square().sum(-1)         # 1     A
        q = A.argmax(-1)                                                                # 2
        z_hat = F.embedding(q, C)                                                       # 2     z_hat
        with self._autocast(x):
            x_hat = wide(tokenizer.decode(z + (z_hat - z).detach(), x.shape))           # 2     x_hat
            verdict = critic(x_hat)
        vq = {
            "reconstruction": F.l1_loss(x_hat, x),
            "perceptual": self.lpips(x_hat, x).mean(),
            "adversarial": -verdict.mean(),
            "entropy": entropy(A / w.entropy_temperature),
            "quantizer": F.mse_loss(z_hat, z.detach()),
            "commitment": F.mse_loss(z, z_hat.detach()),
        }
        vq["L_VQ"] = torch.stack([getattr(w, name) * loss for name, loss in vq.items()]).sum()  # 2  L_VQ
        p = (A / self.stage.tau).softmax(-1)                                            # 3     softmax(A / tau)
        with self._autocast(x):
            u_s = p @ E                                                                 # 3     u^s
            h = generator.to_tap(u_s[:, :-1], c)                                        # 4     S^s to layer l
            align_s = generator.align(h, f)                                             # 5     L_align^s
        (vq["L_VQ"] + self.stage.guidance * align_s).backward()
        norm_tokenizer = self._move(tokenizer, self.tokenizer_optimizer)                # 6     guidance -> tokenizer
        self._average(self.tokenizer_average, tokenizer)

        critic.requires_grad_(True)
        with self._autocast(x):
            real, fake = critic(x), critic(x_hat.detach())
        hinge = 0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())               #       the adversary of eq. 2
        hinge.backward()
        norm_critic = self._move(critic, self.critic_optimizer)

        generator.requires_grad_(True).train()
        with self._autocast(x):
            h = generator.to_tap(F.embedding(q[:, :-1], E), c)                          # 3, 4  u^h, S^h to layer l
            align_h = generator.align(h, f)                                             # 5     L_align^h
            logits = wide(generator.to_logits(h))                                       # 4     S^h to layer L
        ntp = F.cross_entropy(logits.flatten(0, 1), q.flatten())                        # 5     L_NTP
        (ntp + self.stage.lam * align_h).backward()
        norm_generator = self._move(generator, self.generator_optimizer)                # 7     NTP -> AR
        self._average(self.generator_average, generator)
        # fmt: on
        losses = vq | {"critic": hinge, "ntp": ntp, "align_hard": align_h, "align_soft": align_s}
        norms = {"grad_tokenizer": norm_tokenizer, "grad_critic": norm_critic, "grad_generator": norm_generator}
        return {name: value.item() for name, value in (losses | norms).items()}

    def _autocast(self, x: Tensor) -> torch.autocast:
        return torch.autocast(x.device.type, torch.bfloat16, enabled=self.low)

    def _move(self, net: nn.Module, optimizer: torch.optim.Optimizer) -> Tensor:
        """Clip, step, and let go of the gradients, so that no two networks hold theirs together. Returns their norm."""
        norm = nn.utils.clip_grad_norm_(net.parameters(), self.settings.clip)
        optimizer.step()
        optimizer.zero_grad()  # to None
        return norm

    @torch.no_grad()
    def _average(self, average: nn.Module, net: nn.Module) -> None:
        for old, new in zip(average.parameters(), net.parameters(), strict=True):
            old.lerp_(new, 1 - self.settings.ema)


def known(config: Config) -> tuple[cfg.Gear, cfg.VQ, cfg.VQGAN]:
    """Stage, quantizer and backbone of what is written here, which is the paper's. Raises ConfigError for another."""
    stage, t, g = config.stage, config.tokenizer, config.generator
    vq, backbone, whole = t.quantizer, t.backbone, t.loss.adversarial > 0 and config.engine.accumulate == 1
    classes = g.align == "next" and g.class_rotary == "identity" and g.text is None
    if (
        isinstance(stage, cfg.Gear)
        and isinstance(vq, cfg.VQ)
        and isinstance(backbone, cfg.VQGAN)
        and stage.readout == "soft"
        and whole
        and classes
    ):
        return stage, vq, backbone
    raise cfg.ConfigError(
        "the plain step is GEAR's soft one, of the whole batch, with VQ, VQGAN's networks, a critic and classes: "
        "choose a recipe such as gear-b or demo."
    )


def start(training: Training) -> dict[str, Tensor]:
    """Copies of all weights and buffers of a joint run with LPIPS, by the part's name and their own."""
    nets = {group.name: group.module for group in training.groups}
    for perceptual in training.fixed:
        nets["lpips"] = perceptual.get_submodule("lpips")
    named = ((f"{part}.{name}", t) for part, net in nets.items() for name, t in net.state_dict().items())
    return {name: t.clone(memory_format=torch.contiguous_format) for name, t in named}


def entropy(logits: Float[Tensor, "B N K"]) -> Float[Tensor, ""]:
    """L_ent of eq. 2: mean_i H(p_i) - H(mean_i p_i)."""
    log_p = logits.log_softmax(-1)
    p = log_p.exp()
    mean = p.mean((0, 1))
    return -(p * log_p).sum(-1).mean() + (mean * (mean + 1e-5).log()).sum()
