"""One training step: Algorithm 1 and its restrictions.

Every regime of the paper is `gear_step` with something removed, and stands beside it as a function of its own:

    gear_step     both, guided by the soft branch   Algorithm 1, eqs. 11 and 12
    warmup_step   no generator                      section 4.1
    frozen_step   no tokenizer update               LlamaGen-REPA; without a target, LlamaGen
    encoded_step  no tokenizer: its stored tokens   the same, at the cost of the generator alone
    naive_step    no hard/soft separation           Figure 2b, which collapses

A new idea is a new function here, never an `if` inside `gear_step`. The modules arrive as arguments; what they must
return is `Tokenized` for the tokenizer and, for the generator, an object with `projected` and `ntp`
(`gear.generator.States`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from gear import losses
from gear.assignment import Assignment
from gear.config import Frozen, Gear, Naive, TokenizerLoss
from gear.prompts import Prompts
from gear.update import Trained, frozen, update, whole
from gear.usage import count

ReadOut = Callable[[Assignment, Tensor, float], Tensor]  # (A, E, tau) -> u


@dataclass(frozen=True)
class Batch:
    """
    x: images in [-1, 1].
    c: class labels, int64, or captions.
    f: target features f(x) of eq. 5 on the token grid, one entry per encoder.
    """

    x: Float[Tensor, "B 3 H W"]
    c: Int[Tensor, "B"] | Prompts
    f: Mapping[str, Float[Tensor, "B N _"]]


@dataclass(frozen=True)
class Encoded:
    """What `encoded_step` needs of a batch whose images were encoded before.

    q: hard indices, int64 in [0, K). c, f: as in `Batch`.
    """

    q: Int[Tensor, "B N"]
    c: Int[Tensor, "B"] | Prompts
    f: Mapping[str, Float[Tensor, "B N _"]]


@dataclass(frozen=True)
class Tokenized:
    """
    A: the assignment of each position, over "B N", N = h w in raster order.
    q: hard indices, int64 in [0, K).
    x_hat: the reconstruction, in the range of [-1, 1] images but not clamped to it.
    codebook, commitment: the quantizer's own terms of eq. 2, unweighted.
    """

    A: Assignment
    q: Int[Tensor, "B N"]
    x_hat: Float[Tensor, "B 3 H W"]
    codebook: Float[Tensor, ""]
    commitment: Float[Tensor, ""]


@dataclass(frozen=True)
class Learner:
    """The tokenizer with what trains it by eq. 2. `critic` and `perceptual` are None where their weight is 0."""

    net: Trained
    critic: Trained | None
    perceptual: nn.Module | None
    weights: TokenizerLoss
    codebook_size: int


@dataclass(frozen=True)
class Step:
    """
    terms: every loss of eq. 2 by the name of its weight in `TokenizerLoss`, L_VQ, ntp, align_hard, align_soft, critic,
        and what `update` tells of each group that moved (grad_tokenizer, skipped_tokenizer, ...); detached scalars on
        the device.
    counts: how often each codeword was chosen, K.
    """

    terms: Mapping[str, Float[Tensor, ""]]
    counts: Float[Tensor, "K"]


def gear_step(
    tokenizer: Learner, generator: Trained, batch: Batch, stage: Gear, read_out: ReadOut = Assignment.soft
) -> Step:
    """Algorithm 1; its line numbers on the right. `read_out` is eq. 8, or `Assignment.straight_through` (Table 7).

    The tokenizer moves before the hard branch runs, which cannot tell: q and theta_AR are the same before and after,
    and the soft branch's memory is free by then.
    """
    x, c, f, tau, lam = batch.x, batch.c, batch.f, stage.tau, stage.lam
    # fmt: off
    E = whole(generator.module.embedding.detach())                         # theta_AR is held fixed for the
    fixed = frozen(generator.module, generator.module.below_tap)           # soft term, and without dropout

    t = tokenizer.net(x)                                                   # 1, 2  Z, A;  z_hat, x_hat
    vq = eq2(tokenizer, x, t)                                              # 2     L_VQ
    u_s = read_out(t.A[:, :-1], E, tau)                                    # 3     u^s = softmax(A / tau) E
    H_s = fixed(u_s, c, stop_at_tap=True)                                  # 4     S^s = [e_c, u^s] to layer l
    align_s = losses.alignment(H_s.projected, f)                           # 5     L_align^s
    norm_tok = update(vq["L_VQ"] + stage.guidance * align_s, tokenizer.net)  # 6   guidance -> tokenizer
    del E, fixed, u_s, H_s                                                 #       and copies of sharded parameters
    adversary = critic_step(tokenizer, x, t.x_hat)                         #       the adversary of eq. 2

    H_h = generator(t.q[:, :-1], c, targets=t.q)                           # 3, 4  u^h = E[q], S^h to layer L
    ntp = H_h.ntp                                                          # 5     L_NTP, `losses.next_token`
    align_h = losses.alignment(H_h.projected, f)                           # 5     L_align^h
    norm_ar = update(ntp + lam * align_h + sound(t), generator)            # 7     NTP -> AR
    # fmt: on
    ar = {"ntp": ntp, "align_hard": align_h, "align_soft": align_s}
    return report(t.q, tokenizer.codebook_size, vq | adversary | norm_tok | ar | norm_ar)


def warmup_step(tokenizer: Learner, batch: Batch) -> Step:
    """The tokenizer alone: lines 1, 2 and 6 without guidance."""
    t = tokenizer.net(batch.x)
    vq = eq2(tokenizer, batch.x, t)
    norm_tok = update(vq["L_VQ"], tokenizer.net)
    return report(t.q, tokenizer.codebook_size, vq | norm_tok | critic_step(tokenizer, batch.x, t.x_hat))


def frozen_step(tokenizer: Learner, generator: Trained, batch: Batch, stage: Frozen) -> Step:
    """The generator alone: lines 4, 5 and 7 on the hard branch of a tokenizer that never moves."""
    return encoded_step(generator, Encoded(tokenizer.net.module.encode(batch.x), batch.c, batch.f), stage)


def encoded_step(generator: Trained, batch: Encoded, stage: Frozen) -> Step:
    """`frozen_step` on tokens that `gear encode` stored: equal losses, without running the tokenizer again."""
    H = generator(batch.q[:, :-1], batch.c, targets=batch.q)
    ntp, align = H.ntp, losses.alignment(H.projected, batch.f)
    norm_ar = update(ntp + stage.lam * align, generator)
    return report(batch.q, generator.module.codebook_size, {"ntp": ntp, "align_hard": align} | norm_ar)


def naive_step(tokenizer: Learner, generator: Trained, batch: Batch, stage: Naive) -> Step:
    """Figure 2b: one branch, straight through, and every generator loss reaches the tokenizer. Kept to show why not."""
    t = tokenizer.net(batch.x)
    vq = eq2(tokenizer, batch.x, t)
    u = t.A[:, :-1].straight_through(generator.module.embedding, stage.tau)
    H = generator(u, batch.c, targets=t.q)
    ntp, align = H.ntp, losses.alignment(H.projected, batch.f)
    norms = update(vq["L_VQ"] + ntp + stage.lam * align, tokenizer.net, generator)
    adversary = critic_step(tokenizer, batch.x, t.x_hat)
    return report(t.q, tokenizer.codebook_size, vq | adversary | {"ntp": ntp, "align_hard": align} | norms)


# ------------------------------------------------------------------------------------------- what the steps share


def eq2(tokenizer: Learner, x: Tensor, t: Tokenized) -> dict[str, Tensor]:
    """The terms of eq. 2, unweighted, by the name of their weight, and their weighted sum L_VQ."""
    weights = tokenizer.weights
    terms = {
        "reconstruction": losses.reconstruction(t.x_hat, x),
        "quantizer": t.codebook,
        "commitment": t.commitment,
        "entropy": losses.entropy(t.A.posterior(weights.entropy_temperature)),
    }
    if tokenizer.perceptual is not None:
        terms["perceptual"] = tokenizer.perceptual(t.x_hat, x)
    if tokenizer.critic is not None:  # batch statistics, as in the release, hence training mode
        terms["adversarial"] = losses.adversarial(frozen(tokenizer.critic.module, train=True)(t.x_hat))
    return terms | {"L_VQ": torch.stack([getattr(weights, name) * value for name, value in terms.items()]).sum()}


def sound(t: Tokenized) -> Tensor:
    """0, or NaN where latents are not finite: their arg max reads as token 0, and a generator that learned it would be
    damaged with every weight and loss finite. `update` leaves the step out instead."""
    return 0 * t.A.z.detach().sum()


def critic_step(tokenizer: Learner, x: Tensor, x_hat: Tensor) -> dict[str, Tensor]:
    """The critic's own update, on the reconstruction that the tokenizer was just updated with."""
    if tokenizer.critic is None:
        return {}
    loss = losses.critic(tokenizer.critic(x), tokenizer.critic(x_hat.detach()))
    return {"critic": loss} | update(loss, tokenizer.critic)


def report(q: Tensor, codebook_size: int, terms: Mapping[str, Tensor]) -> Step:
    return Step({name: value.detach() for name, value in terms.items()}, count(q, codebook_size))
