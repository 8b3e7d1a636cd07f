"""What the tables of each claim are made of: arms, quantities, and the pairs of arms whose difference is asked for."""

from collections.abc import Mapping
from dataclasses import dataclass

from gear.evidence.arms import ARMS
from gear.evidence.quantities import (
    ALIGNMENT,
    AT_END,
    AT_INPUT,
    AT_TAP,
    BITS,
    CHEAP_GFID,
    CHEAP_RFID,
    DEAD,
    EFFECTIVE,
    ENTROPY,
    GFID,
    KID,
    LAST_TOKEN,
    LPIPS,
    NTP,
    NTP_LAST,
    NTP_LAST_ROW,
    POST,
    PRE,
    PRECISION,
    PSNR,
    RATE,
    RECALL,
    RFID,
    SFID,
    TARGET,
    TEXTS,
    USED_AFTER,
    USED_END,
    USED_LEAST,
    USED_LEAST_STEP,
    USED_START,
    Quantity,
)

Pair = tuple[str, str]


@dataclass(frozen=True)
class Part:
    """
    title: above a claim's several parts. pairs: (arm, other), shown as arm - other. compared: of the pairs; None: what
    is shown. where_there: shown and compared too, where at least two of the arms have it.
    """

    title: str
    arms: tuple[str, ...]
    shown: tuple[Quantity, ...]
    pairs: tuple[Pair, ...] = ()
    compared: tuple[Quantity, ...] | None = None
    where_there: tuple[Quantity, ...] = ()


def of_claim(number: int) -> tuple[str, ...]:
    """The arms that are announced for it."""
    return tuple(arm.name for arm in ARMS if number in arm.claims)


def _beside(arm: str, others: tuple[str, ...]) -> tuple[Pair, ...]:
    return tuple((other, arm) for other in others if other != arm)


def _of_size(size: str) -> tuple[Pair, ...]:
    """Whatever guided a frozen tokenizer, the generator on it is the usual one, and so is what it is compared with."""
    return (f"gear{size}", f"repa{size}"), (f"repa-on-gear{size}", "repa"), (f"repa-on-gear{size}", "repa-on-control")


SIX = ("llamagen", "repa", "gear", "control", "repa-on-gear", "repa-on-control")
QUANTIZERS = ("", "-lfq", "-ibq")
SIZES = ("-small", "", "-large")
SCORED = (GFID, SFID, KID, PRECISION, RECALL, CHEAP_GFID, NTP, BITS, RATE)
SCORED += (RFID, PSNR, ENTROPY, EFFECTIVE, DEAD, ALIGNMENT)
COMPARED = (GFID, SFID, KID, PRECISION, RECALL, CHEAP_GFID, NTP, RFID, PSNR, EFFECTIVE, ALIGNMENT)
JOINT = ("gear", "control", "repa")  # with the frozen tokenizer that both joint arms began with

CLAIMS: Mapping[int, tuple[Part, ...]] = {
    1: (
        Part(
            "",
            SIX,
            SCORED,
            (
                ("gear", "repa"),
                ("gear", "control"),
                ("control", "repa"),
                ("repa-on-gear", "repa"),
                ("repa-on-control", "repa"),
                ("repa-on-gear", "repa-on-control"),
                ("repa-on-gear", "gear"),
                ("repa-on-control", "control"),
            ),
            COMPARED,
        ),
    ),
    2: (
        Part(
            "",
            ("gear", "ste", "naive", "control", "repa"),
            (USED_END, USED_LEAST, DEAD, RFID, PSNR, GFID, KID, CHEAP_GFID, NTP),
            (("ste", "gear"), ("ste", "control"), ("naive", "gear"), ("naive", "repa")),
        ),
    ),
    3: (
        Part(
            "",
            tuple(arm + quantizer for quantizer in QUANTIZERS for arm in ("repa", "gear", "control")),
            (CHEAP_GFID, CHEAP_RFID, PSNR),
            tuple((f"gear{q}", f"{other}{q}") for q in QUANTIZERS for other in ("repa", "control")),
            where_there=(GFID, KID, RFID),
        ),
    ),
    4: (
        Part(
            "",
            (*of_claim(4), "repa"),
            (CHEAP_GFID, CHEAP_RFID, PSNR, LPIPS, NTP, BITS, EFFECTIVE),
            (*_beside("gear", of_claim(4)), ("gear-scratch", "repa")),  # Table 12 has the frozen baseline, too
            where_there=(GFID, RFID),
        ),
    ),
    5: tuple(
        Part(title, JOINT, shown, (("gear", "control"), ("gear", "repa")), shown[:6])
        for title, shown in (
            ("The tokenizer, before quantization", PRE + TARGET),
            ("The tokenizer, after quantization", POST),
            ("The generator, what enters its first block", AT_INPUT),
            ("The generator, at the tap", AT_TAP),
            ("The generator, after its last block", AT_END),
        )
    ),
    6: (
        Part(
            "",
            of_claim(6),
            (USED_START, USED_LEAST, USED_LEAST_STEP, USED_AFTER, USED_END),
            tuple((f"gear{q}", f"control{q}") for q in QUANTIZERS),
            (USED_LEAST, USED_END),
        ),
    ),
    7: (
        Part(
            "",
            ("text-on-warmup", "text-on-gear", "text-on-control"),
            TEXTS,
            (
                ("text-on-gear", "text-on-warmup"),
                ("text-on-control", "text-on-warmup"),
                ("text-on-gear", "text-on-control"),
            ),
        ),
    ),
    8: (
        Part(
            "",
            (*(arm + size for size in SIZES for arm in ("repa", "gear", "repa-on-gear")), "repa-on-control"),
            (CHEAP_GFID, CHEAP_RFID, PSNR, NTP),
            (
                ("repa-on-gear-large", "repa-on-gear-small"),
                *(pair for size in SIZES for pair in _of_size(size)),
                ("repa-on-control", "repa"),
            ),
            where_there=(GFID, RFID),
        ),
    ),
    9: (
        Part(
            "Rotation of the text rows",
            ("text-on-gear", "text-zero-rotary"),
            TEXTS,
            (("text-zero-rotary", "text-on-gear"),),
        ),
        Part(
            "Assignment in bfloat16",
            ("gear", "gear-bfloat16"),
            (CHEAP_GFID, PSNR, NTP, EFFECTIVE),
            (("gear-bfloat16", "gear"),),
            where_there=(GFID, RFID),
        ),
    ),
    10: (
        Part(
            "",
            ("repa-on-gear", "repa-on-control"),
            (NTP_LAST, NTP_LAST_ROW, LAST_TOKEN),
            (("repa-on-gear", "repa-on-control"),),
        ),
    ),
}
