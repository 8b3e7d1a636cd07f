"""The losses as pure functions: eq. 2 and its parts, eq. 4, eqs. 5 and 10. All return scalars, means over the batch.

Weights are applied in `gear.step`, not here. Everything is computed in float32 (or float64 if given).
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from gear import ranks
from gear.assignment import Posterior, full


def reconstruction(x_hat: Float[Tensor, "B 3 H W"], x: Float[Tensor, "B 3 H W"]) -> Float[Tensor, ""]:
    """L_rec of eq. 2: mean absolute error, images in [-1, 1]."""
    return F.l1_loss(x_hat, x)


def entropy(posterior: Posterior) -> Float[Tensor, ""]:
    """L_ent of eq. 2: mean_i H(p_i) - H(mean_i p_i), in nats, in [-log K, 0].

    Low when each position is sure of its code and all codes are used (LFQ, MAGVIT-v2). The batch mean is over every
    rank, but of the part in hand where gradients are accumulated. As in the released code the batch entropy is
    -sum p log(p + 1e-5): at temperature 0.01 most codewords underflow to p = 0, where p log p has an infinite slope.
    """
    mean = ranks.mean(posterior.mean)
    return posterior.entropy.mean() + (mean * (mean + 1e-5).log()).sum()


def adversarial(fake: Float[Tensor, "B 1 h w"]) -> Float[Tensor, ""]:
    """L_GAN of eq. 2, for the tokenizer: -mean D(x_hat)."""
    return -full(fake).mean()


def critic(real: Float[Tensor, "B 1 h w"], fake: Float[Tensor, "B 1 h w"]) -> Float[Tensor, ""]:
    """The hinge loss of the critic: (mean max(0, 1 - D(x)) + mean max(0, 1 + D(x_hat))) / 2."""
    return 0.5 * (F.relu(1 - full(real)).mean() + F.relu(1 + full(fake)).mean())


def next_token(logits: Float[Tensor, "B N K"], q: Int[Tensor, "B N"]) -> Float[Tensor, ""]:
    """L_NTP, eq. 4, in nats per token: row i of the logits predicts q_i. The equation sums over the N tokens; like the
    released code this is their mean, so that lambda means the same at every resolution."""
    return F.cross_entropy(full(logits.flatten(0, 1)), q.flatten())


def alignment(
    projected: Mapping[str, Float[Tensor, "B n C"]], features: Mapping[str, Float[Tensor, "B N C"]]
) -> Float[Tensor, ""]:
    """L_align, eqs. 5 and 10: minus the mean cosine of g_phi(h_i) and f(x)_i, averaged over the target encoders.

    Row i is aligned with patch i; which state it is, is the generator's to say (PAPER.md, M6). There may be fewer rows
    than patches, which are then the first ones. In [-1, 1]; without a target it is 0.
    """
    if not features:
        return torch.zeros(())

    def cosine(g: Tensor, f: Tensor) -> Tensor:
        return F.cosine_similarity(full(g), full(f[:, : g.shape[1]]), dim=-1).mean()

    return -torch.stack([cosine(projected[name], f) for name, f in features.items()]).mean()
