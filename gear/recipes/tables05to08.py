"""Tables 5 to 8: what GEAR-L is made of, one field at a time, in 400,000 steps each.

Table 6 changes lambda in both alignment terms, as the paper says; the released script would change the tokenizer's
alone (PAPER.md, M5): `gear train gear-l --stage.lam-soft 0.25`.

Table 7's "w/ STE" is taken to be Figure 2b, the naive way, in which next-token prediction too reaches the tokenizer:
Figure 1 gives that variant the same gFID, 105, and section 2 explains the collapse by the next-token loss. The other
reading (PAPER.md, M9) is an option of the released code, GEAR with its alignment alone carried straight through:
table07-ste-alignment, for which the paper then has no number.
"""

from dataclasses import replace

from gear.config import Config, Gear, Naive
from gear.recipes.base import GEAR_L, REBUILT_L, REBUILT_WARM, REPA_L, beside, gear_l, joint, llamagen_repa_l
from gear.recipes.registry import recipe, row


@row(5, "0.500", {1.0: (9.153, 5.225, 101.017, 0.719, 0.620)}, (20.571, 0.552, 1.698))
def table05_tau_0_5() -> Config:
    """GEAR-L, tau 0.5."""
    return replace(gear_l(), stage=Gear(tau=0.5))


@row(5, "0.100", GEAR_L, REBUILT_L)
def table05_tau_0_1() -> Config:
    """GEAR-L, tau 0.1."""
    return gear_l()


@row(5, "0.050", {1.0: (10.745, 4.930, 93.024, 0.696, 0.626)}, (20.804, 0.558, 1.638))
def table05_tau_0_05() -> Config:
    """GEAR-L, tau 0.05."""
    return replace(gear_l(), stage=Gear(tau=0.05))


@row(5, "0.010", {1.0: (11.424, 4.991, 90.201, 0.698, 0.628)}, (20.825, 0.559, 1.628))
def table05_tau_0_01() -> Config:
    """GEAR-L, tau 0.01."""
    return replace(gear_l(), stage=Gear(tau=0.01))


@row(5, "0.005", {1.0: (11.413, 5.072, 89.801, 0.697, 0.635)}, (20.825, 0.559, 1.628))
def table05_tau_0_005() -> Config:
    """GEAR-L, tau 0.005."""
    return replace(gear_l(), stage=Gear(tau=0.005))


@row(6, "0.25", {1.0: (12.005, 5.165, 87.183, 0.691, 0.637)}, (20.912, 0.564, 1.653))
def table06_lambda_0_25() -> Config:
    """GEAR-L, lambda 0.25."""
    return replace(gear_l(), stage=Gear(lam=0.25))


@row(6, "0.50", GEAR_L, REBUILT_L)
def table06_lambda_0_5() -> Config:
    """GEAR-L, lambda 0.5."""
    return gear_l()


@row(6, "0.75", {1.0: (10.819, 5.426, 92.451, 0.696, 0.620)}, (20.618, 0.551, 1.647))
def table06_lambda_0_75() -> Config:
    """GEAR-L, lambda 0.75."""
    return replace(gear_l(), stage=Gear(lam=0.75))


@row(6, "1.00", {1.0: (10.889, 5.507, 91.086, 0.696, 0.633)}, (20.465, 0.546, 1.715))
def table06_lambda_1_0() -> Config:
    """GEAR-L, lambda 1."""
    return replace(gear_l(), stage=Gear(lam=1.0))


@row(7, "w/ STE", {1.0: (104.932, 31.933, 12.418, 0.292, 0.233)}, (12.596, 0.239, 59.723))
def table07_ste() -> Config:
    """Straight through, the naive way."""
    return replace(gear_l(), stage=Naive())


@row(7, "w/o L_GAN", {1.0: (16.353, 8.084, 76.346, 0.649, 0.590)}, (22.343, 0.606, 5.857))
def table07_without_gan() -> Config:
    """GEAR-L without the adversarial loss."""
    tokenizer = gear_l().tokenizer
    return replace(gear_l(), tokenizer=replace(tokenizer, loss=replace(tokenizer.loss, adversarial=0.0)))


@row(7, "GEAR", GEAR_L, REBUILT_L)
def table07_gear() -> Config:
    """GEAR-L."""
    return gear_l()


@recipe("beside")
def table07_ste_alignment() -> Config:
    """Straight through, the alignment alone."""
    return replace(gear_l(), stage=Gear(readout="straight_through"))


@row(8, "VQVAE", REPA_L, REBUILT_WARM)
def table08_vq() -> Config:
    """LlamaGen-REPA-L on VQ-16."""
    return llamagen_repa_l()


@row(8, "VQVAE +GEAR", GEAR_L, REBUILT_L)
def table08_vq_gear() -> Config:
    """GEAR-L with VQ-16."""
    return gear_l()


@row(8, "LFQ", {1.0: (18.681, 6.525, 65.265, 0.666, 0.625)}, (20.969, 0.562, 2.421))
def table08_lfq() -> Config:
    """LlamaGen-REPA-L on LFQ-16."""
    return beside(table08_lfq_gear())


@row(8, "LFQ +GEAR", {1.0: (14.776, 5.553, 74.512, 0.690, 0.621)}, (20.477, 0.550, 2.129))
def table08_lfq_gear() -> Config:
    """GEAR-L with LFQ-16."""
    return joint("L", "LFQ-16")


@row(8, "IBQ", {1.0: (20.246, 6.897, 61.628, 0.638, 0.634)}, (21.182, 0.577, 1.973))
def table08_ibq() -> Config:
    """LlamaGen-REPA-L on IBQ-16."""
    return beside(table08_ibq_gear())


@row(8, "IBQ +GEAR", {1.0: (12.972, 5.165, 80.307, 0.679, 0.629)}, (20.917, 0.567, 1.716))
def table08_ibq_gear() -> Config:
    """GEAR-L with IBQ-16."""
    return joint("L", "IBQ-16")
