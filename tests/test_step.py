"""Algorithm 1: who gets which gradient, one whole step against a hand-written one, every regime as a restriction."""

import copy
import math
import weakref

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gear import config as config_of
from gear import losses, step
from gear.assignment import Assignment
from gear.config import IBQ, LFQ, VQ, VQGAN, Frozen, Gear, Naive, TokenizerLoss
from gear.generator import Generator
from gear.step import Batch, Learner, eq2, frozen_step, gear_step, naive_step, warmup_step
from gear.tokenizer.critic import Critic
from gear.tokenizer.tokenizer import Tokenizer
from gear.update import Trained, frozen, update

QUANTIZERS = {"VQ": VQ(13, 4), "LFQ": LFQ(4), "IBQ": IBQ(13, 4)}
W = Gear(tau=0.1, lam=0.5)
CLIP = 0.05  # well below the norms of the tokenizer's and the generator's gradients, so that it bites


class Blurred(nn.Module):
    """A small stand-in for LPIPS: a fixed differentiable distance."""

    def forward(self, a, b):
        return (F.avg_pool2d(a, 2) - F.avg_pool2d(b, 2)).square().mean()


class World:
    """One tiny float64 tokenizer, critic, generator and batch, the same for the same seed."""

    def __init__(
        self, quantizer="VQ", seed=0, dropout=0.0, class_drop=0.0, lr=1e-3, critic=True, optimizer="sgd", clip=1e9
    ):
        torch.manual_seed(seed)
        sizes = VQGAN(8, (1, 2), encoder_blocks=1, decoder_blocks=1, latent=8, attention=False, groups=4)
        tokenizer = Tokenizer(QUANTIZERS[quantizer], sizes).double()
        self.K = QUANTIZERS[quantizer].codebook_size
        config = config_of.Generator(
            layers=3, heads=2, width=16, tap=2, class_drop=class_drop, dropout=dropout, projector=12
        )
        generator = Generator(config, codebook_size=self.K, classes=3, grid=(4, 4), target_dims={"f": 5}).double()
        nn.init.normal_(generator.output.weight, std=0.5)  # a head that is zero hides mistakes

        def trained(name, module, ema):
            make = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}[optimizer]
            return Trained(name, module, make(module.parameters(), lr, fused=True), clip=clip, ema=ema)

        self.learner = Learner(
            trained("tokenizer", tokenizer, 0.9),
            trained("critic", Critic(4, 1).double(), None) if critic else None,
            Blurred(),
            TokenizerLoss(adversarial=0.1 if critic else 0.0),
            self.K,
        )
        self.generator = trained("generator", generator, 0.9)
        self.batch = Batch(
            x=torch.rand(2, 3, 8, 8, dtype=torch.float64) * 2 - 1,
            c=torch.tensor([0, 2]),
            f={"f": torch.randn(2, 16, 5, dtype=torch.float64)},
        )

    def modules(self):
        groups = (self.learner.net, self.learner.critic, self.generator)
        return {g.name: g.module for g in groups if g is not None}

    def state(self):
        return {f"{n}.{k}": v.clone() for n, m in self.modules().items() for k, v in m.state_dict().items()}


def same(a, b, prefix=""):
    assert any(k.startswith(prefix) for k in a), f"nothing begins with {prefix}"
    return all(torch.equal(a[k], b[k]) for k in a if k.startswith(prefix))


def soft_loss(w: World, tau=0.1):
    t = w.learner.net(w.batch.x)
    u = t.A[:, :-1].soft(w.generator.module.embedding.detach(), tau)
    return losses.alignment(frozen(w.generator.module)(u, w.batch.c, stop_at_tap=True).projected, w.batch.f)


# --------------------------------------------------------------------------------------------- gradient isolation


@pytest.mark.parametrize("quantizer", QUANTIZERS)
def test_soft_alignment_reaches_the_tokenizer_only(quantizer):
    w = World(quantizer)
    soft_loss(w).backward()
    tokenizer = dict(w.learner.net.module.named_parameters())
    assert all(tokenizer[k].grad.abs().max() > 0 for k in tokenizer if k.startswith("encoder") and k.endswith("weight"))
    if quantizer == "LFQ":
        assert not [k for k in tokenizer if k.startswith("quantize.")]
    else:
        assert tokenizer["quantize.embedding.weight"].grad.abs().max() > 0
    assert all(p.grad is None for k, p in tokenizer.items() if k.startswith(("decoder", "post_quant_conv")))
    assert all(p.grad is None for p in w.generator.module.parameters())  # transformer, E, head, g_phi: exactly none


@pytest.mark.parametrize("quantizer", QUANTIZERS)
def test_hard_branch_reaches_the_generator_only(quantizer):
    w = World(quantizer)
    t = w.learner.net(w.batch.x)
    H = w.generator(t.q[:, :-1], w.batch.c, targets=t.q)
    (H.ntp + losses.alignment(H.projected, w.batch.f)).backward()
    assert all(p.grad is None for p in w.learner.net.module.parameters())
    assert all(p.grad is not None for p in w.generator.module.parameters())


def test_the_tokenizers_own_losses_leave_critic_and_generator_alone():
    w = World()
    eq2(w.learner, w.batch.x, w.learner.net(w.batch.x))["L_VQ"].backward()
    assert all(p.grad is None for m in ("critic", "generator") for p in w.modules()[m].parameters())


def test_what_the_soft_branch_gathers_is_gone_before_the_hard_branch(monkeypatch):
    """Of a sharded generator these are copies of its first blocks and of E, on every device."""
    w, gathered, alive = World(), [], {}

    def copied(t):
        if t.ndim:  # no norm of a gradient
            gathered.append(weakref.ref(t := t.clone()))
        return t

    def look(module, _):
        alive["hard" if module.training else "soft"] = sum(ref() is not None for ref in gathered)

    monkeypatch.setattr(step, "whole", copied)
    monkeypatch.setattr("gear.update.whole", copied)
    w.generator.module.register_forward_pre_hook(look)
    gear_step(w.learner, w.generator, w.batch, W)
    assert alive["soft"] > 10
    assert alive["hard"] == 0


@pytest.mark.parametrize("quantizer", QUANTIZERS)
def test_inside_gear_step_each_backward_reaches_its_own_group_only(quantizer, monkeypatch):
    """Every gradient that exists right after each backward pass of the real step, none hidden by a zero_grad."""
    w, reached = World(quantizer), []

    def spy(loss, *groups):
        for module in w.modules().values():
            module.zero_grad(set_to_none=True)
        loss.backward()
        got = {n for n, m in w.modules().items() if any(p.grad is not None for p in m.parameters())}
        reached.append(({g.name for g in groups}, got))
        return {}

    monkeypatch.setattr("gear.step.update", spy)
    gear_step(w.learner, w.generator, w.batch, W)
    assert reached == [({n}, {n}) for n in ("tokenizer", "critic", "generator")]


@pytest.mark.parametrize("quantizer", QUANTIZERS)
def test_tau_never_touches_the_generator(quantizer):
    states = []
    for tau in (0.5, 0.1, 0.01):
        w = World(quantizer, optimizer="adamw", lr=1e-2)
        gear_step(w.learner, w.generator, w.batch, Gear(tau=tau))
        states.append(w.state())
    for other in states[1:]:
        assert same(states[0], other, "generator.")
        assert not same(states[0], other, "tokenizer.encoder.")


def test_lam_soft_sets_the_tokenizers_coefficient_apart():
    """PAPER.md, M5: lambda in both terms, or another one in eq. 11."""
    both, apart = Gear(lam=0.5), Gear(lam=0.5, lam_soft=0.25)
    states = []
    for stage in (both, apart, Gear(lam=0.25)):
        w = World(optimizer="adamw", lr=1e-2)
        gear_step(w.learner, w.generator, w.batch, stage)
        states.append(w.state())
    of_both, of_apart, of_less = states
    assert same(of_both, of_apart, "generator.")
    assert same(of_less, of_apart, "tokenizer.")
    assert not same(of_both, of_apart, "tokenizer.encoder.")


def test_the_soft_branch_runs_without_dropout_or_class_drop():
    w = World(dropout=0.5, class_drop=0.5)
    assert w.generator.module.training
    assert soft_loss(w).item() == soft_loss(w).item()
    assert w.generator.module.training  # and nothing had to be restored
    calm = World(dropout=0.0, class_drop=0.0)
    assert soft_loss(w).item() == soft_loss(calm).item()


def test_the_last_token_guides_nothing():
    """Token N-1 predicts nothing, so its row is never read out."""
    w = World()
    t = w.learner.net(w.batch.x)
    z = t.A.z.detach().requires_grad_()
    A = type(t.A)(z, t.A.codewords.detach(), t.A.scale, t.A.bias.detach())
    u = A[:, :-1].soft(w.generator.module.embedding.detach(), 0.1)
    H = frozen(w.generator.module)(u, w.batch.c, stop_at_tap=True)
    (grad,) = torch.autograd.grad(losses.alignment(H.projected, w.batch.f), z)
    assert grad[:, -1].abs().max() == 0
    assert (grad[:, :-1].abs().amax(-1) > 0).all()


# ------------------------------------------------------------------------------------------------- the whole step


def quantized_by_hand(name, quantize, z, tau):
    """A, the decoder's input, and the quantizer's own terms of eq. 2 with their weights 1 and 0.25, densely."""
    if name == "VQ":  # on the unit sphere
        z = z / z.norm(dim=-1, keepdim=True)
        C = quantize.embedding.weight / quantize.embedding.weight.norm(dim=-1, keepdim=True)
        A = -(z[:, :, None] - C).square().sum(-1)
        c_q = C[A.argmax(-1)]
        return A, z + (c_q - z).detach(), (c_q - z.detach()).square().mean(), (z - c_q.detach()).square().mean()
    if name == "LFQ":
        patterns = [[1.0 if k >> j & 1 else -1.0 for j in range(4)] for k in range(16)]
        A = 2 * z @ torch.tensor(patterns, dtype=torch.float64).T
        sign = torch.where(z > 0, 1.0, -1.0).double()
        return A, z + (sign - z).detach(), torch.zeros(()), (z - sign).square().mean()
    C = quantize.embedding.weight
    A = z @ C.T
    pi, hard = A.softmax(-1), F.one_hot(A.argmax(-1), C.shape[0]).double()
    z_q = (hard - pi.detach() + pi) @ C
    main = (z_q - z).square().mean() + ((hard @ C).detach() - z).square().mean()
    return A, z_q, main, (hard @ C - z.detach()).square().mean()


def clipped(grads, limit):
    norm = torch.stack([g.square().sum() for g in grads]).sum().sqrt()
    return [g * min(1.0, limit / (norm.item() + 1e-6)) for g in grads]


def by_hand(name, w: World, tau, lam, lr):
    """Algorithm 1 written out on copies, with plain tensors, toggled `requires_grad`, dense A, and SGD by hand."""
    tok, ar, critic = (copy.deepcopy(w.modules()[m]) for m in ("tokenizer", "generator", "critic"))
    x, c, f, weights = w.batch.x, w.batch.c, w.batch.f["f"], w.learner.weights
    z = tok.quant_conv(tok.encoder(x)).flatten(2).transpose(1, 2)  # 1
    A, z_hat, main, beta = quantized_by_hand(name, tok.quantize, z, tau)  # 2
    q = A.argmax(-1)
    x_hat = tok.decoder(tok.post_quant_conv(z_hat.transpose(1, 2).reshape(2, 4, 4, 4)))
    p = (A / weights.entropy_temperature).softmax(-1)
    mean = p.mean((0, 1))
    H = lambda p: -(p * (p + 1e-300).log()).sum(-1)  # noqa: E731
    L_VQ = (x - x_hat).abs().mean() + 0.1 * Blurred()(x_hat, x) - 0.1 * critic(x_hat).mean()
    L_VQ = L_VQ + 0.05 * (H(p).mean() + (mean * (mean + 1e-5).log()).sum())
    L_VQ = L_VQ + main + 0.25 * beta
    u_s = (A / tau).softmax(-1)[:, :-1] @ ar.tok_embeddings.weight  # 3

    def align(h):  # 5
        g = ar.projectors["f"](h)
        return -((g * f).sum(-1) / g.norm(dim=-1) / f.norm(dim=-1)).mean()

    def branch(u, depth):  # 4
        h = torch.cat([ar.cls_embedding.embedding_table(c)[:, None], u], 1)
        for block in ar.layers[:depth]:
            h = block(h, ar.rotary(0, 16))
        return h

    ar.requires_grad_(False)
    critic.requires_grad_(False)
    L_soft = align(branch(u_s, ar.tap))
    grads_tok = torch.autograd.grad(L_VQ + lam * L_soft, list(tok.parameters()), retain_graph=True)  # 6
    critic.requires_grad_(True)
    D = 0.5 * (F.relu(1 - critic(x)).mean() + F.relu(1 + critic(x_hat.detach())).mean())
    grads_critic = torch.autograd.grad(D, list(critic.parameters()))
    ar.requires_grad_(True)
    u_h = ar.tok_embeddings.weight[q[:, :-1]]
    tap = branch(u_h, ar.tap)
    top = tap
    for block in ar.layers[ar.tap :]:
        top = block(top, ar.rotary(0, 16))
    logp = ar.output(ar.norm(top)).log_softmax(-1)
    L_NTP = -logp.gather(-1, q[..., None]).mean()
    L_hard = align(tap)
    grads_ar = torch.autograd.grad(L_NTP + lam * L_hard, list(ar.parameters()))  # 7
    with torch.no_grad():  # each group is clipped by itself
        for module, grads in ((tok, grads_tok), (ar, grads_ar), (critic, grads_critic)):
            for parameter, g in zip(module.parameters(), clipped(grads, CLIP), strict=True):
                parameter -= lr * g
    terms = {"L_VQ": L_VQ, "align_soft": L_soft, "align_hard": L_hard, "ntp": L_NTP, "critic": D}
    return {"tokenizer": tok, "generator": ar, "critic": critic}, terms


@pytest.mark.parametrize("quantizer", QUANTIZERS)
def test_one_step_equals_algorithm_1_by_hand(quantizer):
    w, lr = World(quantizer, lr=0.05, clip=CLIP), 0.05
    modules, terms = by_hand(quantizer, w, W.tau, W.lam, lr)
    before = w.state()
    result = gear_step(w.learner, w.generator, w.batch, W)
    for name, value in terms.items():
        torch.testing.assert_close(result.terms[name], value.detach(), rtol=1e-11, atol=1e-11)
    after = w.state()
    for name, module in modules.items():
        for key, value in module.named_parameters():
            torch.testing.assert_close(
                after[f"{name}.{key}"], value.detach(), rtol=1e-10, atol=1e-11, msg=f"{name}.{key}"
            )
            if name != "critic":  # whose last bias has a gradient of exactly 0 while both hinges are active
                assert not torch.equal(before[f"{name}.{key}"], after[f"{name}.{key}"]), key
    assert result.counts.sum() == 32
    assert min(result.terms["grad_tokenizer"], result.terms["grad_generator"]) > CLIP
    # EMA: from the weights before the first step on
    gear_step(w.learner, w.generator, w.batch, W)
    last = w.state()
    for group in (w.learner.net, w.generator):
        assert group.ema is not None
        for key, averaged in group.ema.module.named_parameters():
            name = f"{group.name}.{key}"
            expected = 0.9 * (0.9 * before[name] + 0.1 * after[name]) + 0.1 * last[name]
            torch.testing.assert_close(averaged.detach(), expected)


@pytest.mark.parametrize("quantizer", QUANTIZERS)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_latents_that_are_not_finite_move_nothing(quantizer, bad):
    """Not the generator either, to which their arg max is token 0, and whose own losses are finite."""
    w = World(quantizer, optimizer="adamw")
    gear_step(w.learner, w.generator, w.batch, Gear())
    before = {name: [p.clone() for p in module.parameters()] for name, module in w.modules().items()}
    w.batch.x[0, 0, 0, 0] = bad
    terms = gear_step(w.learner, w.generator, w.batch, Gear()).terms
    assert terms["ntp"].isfinite()
    assert [terms[f"skipped_{name}"] for name in ("tokenizer", "critic", "generator")] == [1, 1, 1]
    for name, module in w.modules().items():
        assert all(torch.equal(p, q) for p, q in zip(module.parameters(), before[name], strict=True))


def test_updating_the_generator_before_the_soft_backward_is_an_error():
    """Swapped updates would send the tokenizer the gradient of a generator that no longer exists; autograd refuses."""
    w = World()
    t = w.learner.net(w.batch.x)
    u = t.A[:, :-1].soft(w.generator.module.embedding.detach(), 0.1)
    soft = losses.alignment(frozen(w.generator.module)(u, w.batch.c, stop_at_tap=True).projected, w.batch.f)
    update(w.generator(t.q[:, :-1], w.batch.c, targets=t.q).ntp, w.generator)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        update(soft, w.learner.net)


# ----------------------------------------------------------------------------- every regime is gear_step less something


def test_warmup_is_gear_without_the_generator():
    joint, alone = World(optimizer="adamw"), World(optimizer="adamw")
    a = gear_step(joint.learner, joint.generator, joint.batch, Gear(lam=0.0))
    b = warmup_step(alone.learner, alone.batch)
    assert all(torch.equal(a.terms[k], b.terms[k]) for k in b.terms)
    assert "ntp" not in b.terms
    assert same(joint.state(), alone.state(), "tokenizer.")
    assert same(joint.state(), alone.state(), "critic.")
    assert same(alone.state(), World().state(), "generator.")


def test_frozen_is_gear_without_the_tokenizers_update():
    joint, still = World(optimizer="adamw"), World(optimizer="adamw")
    a = gear_step(joint.learner, joint.generator, joint.batch, W)
    b = frozen_step(still.learner, still.generator, still.batch, Frozen(lam=W.lam))
    assert all(torch.equal(a.terms[k], b.terms[k]) for k in b.terms)
    assert "L_VQ" not in b.terms
    assert same(joint.state(), still.state(), "generator.")
    assert same(still.state(), World().state(), "tokenizer.")
    assert torch.equal(a.counts, b.counts)


def test_llamagen_is_frozen_without_alignment():
    with_target, without = World(), World()
    without.batch = Batch(without.batch.x, without.batch.c, {})
    frozen_step(with_target.learner, with_target.generator, with_target.batch, Frozen(lam=0.0))
    frozen_step(without.learner, without.generator, without.batch, Frozen(lam=0.0))
    a, b = with_target.state(), without.state()
    assert all(torch.equal(a[k], b[k]) for k in a if "projectors" not in k)


def test_without_a_gan_no_critic_exists():
    w = World(critic=False)
    result = gear_step(w.learner, w.generator, w.batch, W)
    assert "adversarial" not in result.terms
    assert "critic" not in result.terms


def test_straight_through_readout_feeds_the_hard_tokens():
    """The alignment-only STE: the soft branch sees the hard tokens' values, so both alignments agree."""
    w = World()
    result = gear_step(w.learner, w.generator, w.batch, W, Assignment.straight_through)
    torch.testing.assert_close(result.terms["align_soft"], result.terms["align_hard"], rtol=1e-12, atol=1e-12)
    assert not same(w.state(), World().state(), "tokenizer.encoder.")


@pytest.mark.parametrize("quantizer", QUANTIZERS)
def test_naive_lets_every_generator_loss_into_the_tokenizer(quantizer):
    naive, gear = World(quantizer), World(quantizer)
    a = naive_step(naive.learner, naive.generator, naive.batch, Naive())
    b = gear_step(gear.learner, gear.generator, gear.batch, W)
    for term in ("L_VQ", "ntp", "align_hard"):  # the same losses,
        torch.testing.assert_close(a.terms[term], b.terms[term], rtol=1e-12, atol=1e-12)
    assert not same(naive.state(), gear.state(), "tokenizer.")
    # the generator's own update is the same: the straight-through embedding is E[q] in value and in E's gradient
    mine, theirs = naive.state(), gear.state()
    for key in (k for k in mine if k.startswith("generator.")):
        torch.testing.assert_close(mine[key], theirs[key], rtol=1e-10, atol=1e-12)
    # and the tokenizer's gradient is that of L_VQ + NTP + lam * align through the straight-through embedding
    w = World(quantizer)
    t = w.learner.net(w.batch.x)
    H = w.generator(t.A[:, :-1].straight_through(w.generator.module.embedding, 0.1), w.batch.c, targets=t.q)
    total = eq2(w.learner, w.batch.x, t)["L_VQ"] + H.ntp + 0.5 * losses.alignment(H.projected, w.batch.f)
    parameters = dict(w.learner.net.module.named_parameters())
    grads = torch.autograd.grad(total, list(parameters.values()))
    for (key, p), g in zip(parameters.items(), grads, strict=True):
        torch.testing.assert_close(mine[f"tokenizer.{key}"], p.detach() - 1e-3 * g, rtol=1e-10, atol=1e-12)


def test_frozen_leaves_the_live_module_as_it_was():
    w = World(dropout=0.3)
    module = w.generator.module
    before = {k: (p.requires_grad, p.data_ptr()) for k, p in module.named_parameters()}
    frozen(module)(torch.zeros(1, 3, dtype=torch.long), torch.tensor([1]))
    assert {k: (p.requires_grad, p.data_ptr()) for k, p in module.named_parameters()} == before
    assert module.training
    with torch.no_grad():  # it reads the live weights, not a copy
        module.tok_embeddings.weight.add_(1)
    out = frozen(module)(torch.zeros(1, 3, dtype=torch.long), torch.tensor([1]))
    torch.testing.assert_close(
        out.tap, copy.deepcopy(module).eval()(torch.zeros(1, 3, dtype=torch.long), torch.tensor([1])).tap
    )
