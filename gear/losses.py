"""The losses as pure functions: eq. 2 and its parts, eq. 4, eqs. 5 and 10. All return scalars, means over the batch.

Weights are applied in `gear.step`, not here. Everything is computed in float32 (or float64 if given).
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from gear import ranks
from gear.assignment import Posterior
from gear.tiles import LOG_2, full

LOGITS = 1 << 24  # held at once: 64 MiB of float32, in which a product is as fast as in one piece


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


def next_token(h: Float[Tensor, "B N D"], head: Float[Tensor, "K D"], q: Int[Tensor, "B N"]) -> Float[Tensor, ""]:
    """L_NTP, eq. 4, in nats per token: row i of the logits <h_i, head_k> predicts q_i. The equation sums over the N
    tokens; like the released code this is their mean, so that lambda means the same at every resolution.

    The logits are made some rows at a time, in the precision of any other product, and neither they nor their softmax
    are kept: what the gradients need of them is multiplied out at once.
    """
    low = torch.get_autocast_dtype(h.device.type) if torch.is_autocast_enabled(h.device.type) else h.dtype
    return _NextToken.apply(h.flatten(0, 1), head, q.flatten(), low, torch.is_grad_enabled())


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


class _NextToken(torch.autograd.Function):
    """The mean of log sum_k exp <h_i, w_k> - <h_i, w_q>, and its gradients, made in the forward pass."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, w: Tensor, q: Tensor, low: torch.dtype, wanted: bool) -> Tensor:
        wants_h, wants_w = (wanted and needed for needed in ctx.needs_input_grad[:2])
        dh = torch.empty_like(h) if wants_h else None
        dw = torch.zeros_like(w) if wants_w else None
        loss, (n, K) = full(h.new_zeros(())), (len(h), len(w))
        rows = max(1, min(n, LOGITS // K))
        memory = loss.new_empty(rows * K)
        products = memory if low == memory.dtype else memory.new_empty(rows * K, dtype=low)
        with torch.autocast(h.device.type, enabled=False):
            w_low = w.to(low)
            for first in range(0, n, rows):
                some = slice(first, min(first + rows, n))
                at, part = q[some, None], h[some].to(low)
                shape, size = (len(part), K), len(part) * K
                product = torch.mm(part, w_low.T, out=products[:size].view(shape))
                a = product if products is memory else memory[:size].view(shape).copy_(product)
                top, chosen = a.amax(-1, keepdim=True), a.gather(1, at)
                e = a.sub_(top).mul_(1 / LOG_2).exp2_()  # as in `gear.tiles`
                mass = e.sum(-1, keepdim=True)
                loss += (mass.log() + top - chosen).sum() / n
                g = e.div_(mass * n).scatter_add_(1, at, torch.full_like(top, -1 / n))
                g = g if products is memory else product.copy_(g)
                if dh is not None:
                    dh[some] = g @ w_low
                if dw is not None:
                    dw += g.T @ part
        ctx.save_for_backward(dh, dw)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple:  # pyright: ignore[reportIncompatibleMethodOverride]
        # In place, as a copy of dw would be as large as the head: a second backward pass is therefore refused by torch.
        return *(None if d is None else d.mul_(grad) for d in ctx.saved_tensors), None, None, None
