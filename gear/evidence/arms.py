"""What is trained: every arm of RESULTS.md by its name. An arm is the base of a scale with something changed, and often
the tokenizer of an earlier arm. A new one is a line in `ARMS`."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

from gear.config import Config, Frozen, Gear, Naive, Stage, Warmup
from gear.evidence.scales import Scale
from gear.evidence.variants import rounded_assignment

INCEPTION = {0, 1, 2}  # claims that are about distances of Inception, whatever the scale
WARMUPS = 1000  # the seed of the first one's
Make = Callable[[Scale], Config]


@dataclass(frozen=True)
class Arm:
    """
    what: the table's words for it, after its name.
    make: its configuration at a scale, without tokenizer and seed.
    start: the arm whose tokenizer, of the same seed, it begins with; None: from scratch.
    claims: of RESULTS.md, by their numbers there; 0: none, what others begin with; 9, 10: questions of our own.
    within: what is in force while it trains.
    """

    name: str
    what: str
    make: Make
    start: str | None
    claims: tuple[int, ...]
    within: Callable[[], AbstractContextManager[object]] = nullcontext


def warmup(quantizer: str = "") -> Make:
    return lambda scale: _quantized(scale.base, scale, quantizer)


def joint(stage: Stage | None = None, quantizer: str = "", size: str = "", tap: int | None = None) -> Make:
    """Tokenizer and generator together."""

    def make(scale: Scale) -> Config:
        config = replace(_quantized(scale.base, scale, quantizer), stage=stage or Gear(), steps=scale.steps)
        generator = scale.sizes[size] if size else scale.base.generator
        return replace(config, generator=generator if tap is None else replace(generator, tap=tap))

    return make


def frozen(stage: Frozen | None = None, quantizer: str = "", size: str = "") -> Make:
    """A generator on a frozen tokenizer."""
    return joint(stage or Frozen(), quantizer, size)


def without_critic(scale: Scale) -> Config:
    config = joint()(scale)
    loss = replace(config.tokenizer.loss, adversarial=0.0)
    return replace(config, tokenizer=replace(config.tokenizer, loss=loss))


def captioned(rotary: str = "identity") -> Make:
    def make(scale: Scale) -> Config:
        generator = scale.transfer.generator
        assert generator.text is not None
        text = replace(generator.text, rotary=rotary)
        return replace(scale.transfer, generator=replace(generator, text=text))

    return make


def _quantized(config: Config, scale: Scale, quantizer: str) -> Config:
    chosen = scale.quantizers[quantizer] if quantizer else config.tokenizer.quantizer
    return replace(config, tokenizer=replace(config.tokenizer, quantizer=chosen))


def _of_quantizer(q: str) -> tuple[Arm, ...]:
    """Table 8's comparison for another quantizer."""
    name = q.upper()
    return (
        Arm(f"warmup-{q}", f"the tokenizer alone, {name}", warmup(q), None, (3,)),
        Arm(f"repa-{q}", f"LlamaGen-REPA, {name}", frozen(None, q), f"warmup-{q}", (3,)),
        Arm(f"gear-{q}", f"GEAR, {name}", joint(None, q), f"warmup-{q}", (3, 6)),
        Arm(f"control-{q}", f"both together, no guidance, {name}", joint(Gear(lam_soft=0.0), q), f"warmup-{q}", (3, 6)),
    )


def _of_size(size: str) -> tuple[Arm, ...]:
    """Table 9's comparison with another generator; and its tokenizer under the usual one."""
    return (
        Arm(f"repa-{size}", f"LlamaGen-REPA, {size} generator", frozen(None, "", size), "warmup-vq", (8,)),
        Arm(f"gear-{size}", f"GEAR, {size} generator", joint(None, "", size), "warmup-vq", (8,)),
        Arm(f"repa-on-gear-{size}", "LlamaGen-REPA on its tokenizer", frozen(), f"gear-{size}", (8,)),
    )


def _of_gear(name: str, what: str, make: Make, start: str | None = "warmup-vq") -> Arm:
    """GEAR with one thing changed."""
    return Arm(f"gear-{name}", f"GEAR, {what}", make, start, (4,))


ARMS = (
    Arm("warmup-vq", "the tokenizer alone, VQ", warmup(), None, (0,)),
    Arm("llamagen", "LlamaGen, no alignment", frozen(Frozen(lam=0.0)), "warmup-vq", (1,)),
    Arm("repa", "LlamaGen-REPA", frozen(), "warmup-vq", (1, 3, 5, 8)),
    Arm("gear", "GEAR", joint(), "warmup-vq", (1, 2, 3, 4, 5, 6, 8, 9)),
    Arm("control", "both together, no guidance", joint(Gear(lam_soft=0.0)), "warmup-vq", (1, 3, 5, 6)),
    Arm("repa-on-gear", "LlamaGen-REPA on GEAR's tokenizer", frozen(), "gear", (1, 8, 10)),
    Arm("repa-on-control", "LlamaGen-REPA on the control's tokenizer", frozen(), "control", (1, 8, 10)),
    Arm("ste", "guidance straight through", joint(Gear(readout="straight_through")), "warmup-vq", (2, 6)),
    Arm("naive", "every generator loss straight through", joint(Naive()), "warmup-vq", (2, 6)),
    *_of_quantizer("lfq"),
    *_of_quantizer("ibq"),
    *(_of_gear(f"tau-{tau:g}", f"tau {tau:g}", joint(Gear(tau=tau))) for tau in (0.5, 0.05, 0.01)),
    *(_of_gear(f"lambda-{lam:g}", f"lambda {lam:g}", joint(Gear(lam=lam))) for lam in (0.25, 0.75, 1.0)),
    *(_of_gear(f"tap-{tap}", f"aligned after block {tap}", joint(tap=tap)) for tap in (1, 3)),
    _of_gear("no-critic", "no adversarial loss after a warm-up with it", without_critic),
    _of_gear("scratch", "no warm-up, so fewer steps in all", joint(), None),
    *_of_size("small"),
    *_of_size("large"),
    Arm("text-on-warmup", "captions, on the warm-up's tokenizer", captioned(), "warmup-vq", (7,)),
    Arm("text-on-gear", "captions, on GEAR's tokenizer", captioned(), "gear", (7, 9)),
    Arm("text-on-control", "captions, on the control's tokenizer", captioned(), "control", (7,)),
    Arm("text-zero-rotary", "captions that rotate to zero", captioned("zero"), "gear", (9,)),
    Arm("gear-bfloat16", "GEAR, assigned in bfloat16", joint(), "warmup-vq", (9,), rounded_assignment),
)


def asked(scale: Scale, arm: Arm, seed: int) -> set[int]:
    """Those of its claims that this seed is for."""
    return {claim for claim in arm.claims if scale.asks(seed, claim)}


def announced(scale: Scale, arm: Arm, seed: int) -> bool:
    """Whether it is run with this seed: a claim asks for it, or for what begins with it."""
    after = (other for other in ARMS if other.start == arm.name)
    return bool(asked(scale, arm, seed)) or any(announced(scale, other, seed) for other in after)


def configured(scale: Scale, arm: Arm, seed: int) -> Config:
    """With the seed, and with points of its curve where claim 1 asks for them, else one at the end. A warm-up has a
    seed of its own, so that what follows it does not see the same batches again."""
    config = arm.make(scale)
    every = scale.curve if 1 in asked(scale, arm, seed) else 0 if config.generator.text else config.steps
    watch = replace(config.watch, evaluate_every=every)
    return replace(config, watch=watch, seed=seed + WARMUPS if isinstance(config.stage, Warmup) else seed)


def generated(scale: Scale, arm: Arm, seed: int) -> int:
    """Images for its distances in Inception."""
    return scale.counts.generated if INCEPTION & asked(scale, arm, seed) else scale.counts.rest


def arms() -> dict[str, Arm]:
    """By name."""
    return {arm.name: arm for arm in ARMS}
