"""The hot paths of `bench.floors`, each as a call of gear's own functions, as a step or a command makes it.

The parts of the joint step are run apart, forward and backward from a random gradient where the step has one, on the
same networks. Target features are given. What each must do is counted while it runs (`bench.work`), but for these, with
N positions (in the read-out N - B), K codewords, d channels and D the generator's width:

    read-out      hard and soft: A = 2 N K d once, pi E = 2 N K D, N K exponentials; backward, A and pi again,
                  g E^T = 2 N K D, and the gradients of z and c, 4 N K d
    entropy       A again, N K exponentials; backward the same again, and 4 N K d: 8 N K d and 2 N K
    head          6 N K D of its product forward and backward; N K exponentials, the probabilities being kept nowhere
                  but as the gradient; states and weights read twice, gradients written
    update, token: as in `bench.work`; the past of a token is half full on average
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.func import functional_call

from bench.joint import CLASSES, TARGET, WIDTH, Case, config_of
from bench.work import ADAMW, AVERAGES, CLIPPING, Work, token, update
from gear import build, losses, step
from gear.assignment import BinaryAssignment, full
from gear.config import Config, Frozen, Gear, grid
from gear.counting import Flops
from gear.generator import generate
from gear.generator.lighter import lighter
from gear.update import Trained, frozen

SAMPLED = (1, 64)  # images at once
SCALE = 1.5  # of guidance


@dataclass(frozen=True)
class Path:
    """before: not timed, each time. work: None where it is counted as it runs. after: what comes on top, one after the
    other. of_step: a part of the joint step. per: how many of what is shown a run makes."""

    name: str
    run: Callable[[], object]
    before: Callable[[], object] = lambda: None
    work: Work | None = None
    after: tuple[Work, ...] = ()
    of_step: bool = False
    times: int = 3
    per: float = 1.0


@dataclass(frozen=True)
class Setting:
    """Networks, a batch and what the parts of a step hand each other, of random weights and images."""

    case: Case
    config: Config
    stage: Gear
    training: build.Training
    batch: step.Batch
    made: step.Tokenized  # of the batch
    z: Tensor  # "B N d", what the quantizer reads

    @property
    def groups(self) -> tuple[Trained, Trained, Trained]:
        tokenizer, critic, generator = self.training.groups
        return tokenizer, critic, generator

    def autocast(self) -> AbstractContextManager[object]:
        return torch.autocast(self.case.device, torch.bfloat16, enabled=self.case.precision == "bfloat16")

    def flops(self, low: float, float32: float = 0.0) -> Flops:
        """low: of what autocast reaches."""
        if self.case.precision == "bfloat16":
            return Flops(round(low), round(float32))
        return Flops(0, round(low + float32))

    def forward_backward(self, forward: Callable[[], Tensor]) -> None:
        """The backward pass is outside autocast, as `gear.update` has it, from the same gradient everywhere."""
        with self.autocast():
            y = forward()
        y.backward(torch.full_like(y, 1e-3) if y.dim() else None)

    def forget(self) -> None:
        for group in self.groups:
            group.module.zero_grad(set_to_none=True)


def setting(case: Case) -> Setting:
    """Raises ValueError for a recipe that is not a joint one, or whose quantizer learns no codebook."""
    config, on = config_of(case), torch.device(case.device)
    if not isinstance(config.stage, Gear) or config.generator.text is not None:
        raise ValueError(f"floors are of a joint step with classes; {case.recipe} is none: choose gear-b or another.")
    build.set_tf32(config.engine.tf32, on)
    training = build.training(config, CLASSES, {TARGET: WIDTH}, on, loaded=False)
    nn.init.normal_(training.groups[2].module.output.weight, std=0.02)  # zero at the start, and so would gradients be
    B, side, tokens = case.batch, case.resolution, grid(config) ** 2
    x = torch.rand(B, 3, side, side, device=on) * 2 - 1
    c = torch.randint(CLASSES, (B,), device=on)
    batch = step.Batch(x, c, {TARGET: torch.randn(B, tokens, WIDTH, device=on)})
    net = training.groups[0].module
    with torch.no_grad(), torch.autocast(on.type, torch.bfloat16, enabled=case.precision == "bfloat16"):
        made, z = net(x), full(net.quant_conv(net.encoder(x))).flatten(2).transpose(1, 2).contiguous()
    if isinstance(made.A, BinaryAssignment):
        raise ValueError(f"floors are of a codebook that is learned; {case.recipe} has LFQ: choose gear-b or another.")
    return Setting(case, config, config.stage, training, batch, made, z)


def leaf(t: Tensor) -> Tensor:
    return t.detach().clone().requires_grad_()


# ------------------------------------------------------------------------------------------- the parts of a joint step


def parts(s: Setting) -> list[Path]:
    tokenizer, critic, generator = s.groups
    net, x, c, f, q = tokenizer.module, s.batch.x, s.batch.c, s.batch.f, s.made.q
    (perceptual,) = s.training.fixed
    E, h = generator.module.embedding.detach(), grid(s.config)
    (K, D), d, N = E.shape, s.z.shape[-1], q.numel()
    A, x_hat = s.made.A, leaf(s.made.x_hat)
    maps = leaf(s.z.transpose(1, 2).unflatten(2, (h, h)))
    below = frozen(generator.module, generator.module.below_tap)
    u = torch.randn(len(q), q.shape[1] - 1, D, device=x.device, requires_grad=True)
    z = leaf(s.z)

    def read_out() -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            assignment = net.quantize(z).assignment
        return assignment[:, :-1].soft(E, s.stage.tau)

    def entropy() -> Tensor:
        bias = None if A.bias is None else leaf(A.bias)
        asked = replace(A, z=leaf(A.z), codewords=leaf(A.codewords), bias=bias)
        return losses.entropy(asked.posterior(s.config.tokenizer.loss.entropy_temperature))

    def soft_branch() -> Tensor:
        return losses.alignment(below(u, c, stop_at_tap=True).projected, f)

    rows = N - len(q)
    of_read_out = Work(s.flops(4 * rows * K * D, 8 * rows * K * d), 8 * rows * D + 8 * K * (D + d), 2 * rows * K)
    of_entropy = Work(s.flops(0, 8 * N * K * d), 8 * (N + K) * d, 2 * N * K)
    both = s.forward_backward
    part = partial(Path, before=s.forget, of_step=True)
    return [
        part("encode", lambda: both(lambda: net.quant_conv(net.encoder(x)))),
        part("read-out", lambda: both(read_out), work=of_read_out),
        part("entropy", lambda: both(entropy), work=of_entropy),
        part("decode", lambda: both(lambda: full(net.decoder(net.post_quant_conv(maps))))),
        part("LPIPS", lambda: both(lambda: perceptual(x_hat, x))),
        part("adversarial", lambda: both(lambda: losses.adversarial(frozen(critic.module, train=True)(x_hat)))),
        part("critic", lambda: both(lambda: losses.critic(critic(x), critic(x_hat.detach())))),
        part("soft branch", lambda: both(soft_branch)),
        *generator_parts(s),
        *passes(s.groups),
    ]


def generator_parts(s: Setting) -> list[Path]:
    generator, c, f, q = s.groups[2], s.batch.c, s.batch.f, s.made.q
    net, (K, D), N = generator.module, generator.module.embedding.shape, q.numel()
    states, size = leaf(torch.randn(*q.shape, D, device=q.device)), 2 if s.case.precision == "bfloat16" else 4

    one_logit = {"output.weight": net.output.weight[:1].detach()}  # next to nothing of the head

    def hard_branch() -> None:
        with s.autocast():
            H = functional_call(net, one_logit, (q[:, :-1], c))
            loss = losses.alignment(H.projected, f)
        torch.autograd.backward([H.logits, loss], [torch.full_like(H.logits, 1e-3), None])

    def head() -> Tensor:
        return losses.next_token(states, net.output.weight, q)

    of_head = Work(s.flops(6 * N * K * D), size * 3 * N * D + (2 * size + 4) * K * D, N * K)
    return [
        Path("hard branch", hard_branch, s.forget, of_step=True),
        Path("head", lambda: s.forward_backward(head), s.forget, of_head, of_step=True),
    ]


def passes(groups: Sequence[Trained]) -> list[Path]:
    """Those over all parameters, with a gradient for each."""
    moving = [p for group in groups for p in group.module.parameters() if p.requires_grad]
    count = sum(p.numel() for p in moving)
    averaged = sum(p.numel() for group in groups if group.ema is not None for p in group.module.parameters())

    def gradients() -> None:
        for p in moving:
            p.grad = torch.full_like(p, 1e-6)

    def clip() -> None:
        for group in groups:
            nn.utils.clip_grad_norm_(group.module.parameters(), group.clip)

    return [
        Path("AdamW", lambda: [g.optimizer.step() for g in groups], gradients, Work(moved=ADAMW * count), of_step=True),
        Path("averages", lambda: [g.average() for g in groups], work=Work(moved=AVERAGES * averaged), of_step=True),
        Path("clipping", clip, gradients, Work(moved=CLIPPING * count), of_step=True),
    ]


# ------------------------------------------------------------------------------------------------------ the other ones


def others(s: Setting) -> list[Path]:
    tokenizer, _, generator = s.groups
    net, x, q = tokenizer.module, s.batch.x, s.made.q
    encoded = step.Encoded(q, s.batch.c, s.batch.f)
    of_passes = update(sum(p.numel() for p in generator.module.parameters()))

    def from_codes() -> None:
        with s.autocast():
            step.encoded_step(generator, encoded, Frozen())

    def quiet(call: Callable[[], object]) -> None:
        with torch.no_grad(), s.autocast():
            call()

    return [
        Path("frozen step from codes", from_codes, s.forget, after=(of_passes,)),
        Path("tokenizer, encode", lambda: quiet(lambda: net.encode(x))),
        Path("tokenizer, decode", lambda: quiet(lambda: net.decode(q))),
        *[sampling(s, n, scale) for n in SAMPLED for scale in (1.0, SCALE)],
    ]


def sampling(s: Setting, images: int, scale: float) -> Path:
    """A token of each of so many images, of the generator as `gear sample` lightens it to the precision; the mean over
    all tokens of an image."""
    net, tokens = s.groups[2].module, grid(s.config) ** 2
    labels, rows = torch.arange(images) % CLASSES, images * (1 if scale == 1 else 2)
    light, size = lighter(net, s.case.precision), 2 if s.case.precision == "bfloat16" else 4

    def run() -> None:
        generate(light, labels, seed=0, cfg_scale=scale, batch=images)

    name = f"a token of {images} image{'s' * (images > 1)}" + ", CFG" * (scale != 1)
    return Path(name, run, work=token(net, rows, (1 + tokens) / 2, size, size), times=1, per=tokens)
