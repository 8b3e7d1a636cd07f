"""Numbers as text, and the sentences that say what they mean."""

import math

from gear.figures.results import Arm, Report

# Drawing the 1,000 images of one gFID anew moves it by 1 % (standard deviation; emoji, EfficientNet-Lite1), so the
# difference of two by 1.4 %. What a second training run would move is not in that.
TIE = 0.03
MINUS, NONE = "\N{MINUS SIGN}", "\N{EN DASH}"
COLLAPSED = 0.5  # of the effective size of the arm that uses most codewords


def number(value: float | None, digits: int = 4) -> str:
    """`digits` significant digits, whole from there on: 31,584 or 22.10 or 0.03120; a dash for None."""
    if value is None:
        return NONE
    if not math.isfinite(value):
        return "not finite"
    rounded = float(f"{value:.{digits}g}")
    text = f"{value:,.0f}" if abs(rounded) >= 10 ** (digits - 1) else f"{value:#.{digits}g}"
    return text.replace("-", MINUS)


def duration(seconds: float) -> str:
    """4.2 s, 41 s, 9 min 42 s, 1 h 03 min."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def percent(part: float) -> str:
    return f"{100 * part:.0f} %" if part >= 0.0995 else f"{100 * part:.1f} %"


def headline(report: Report) -> str:
    """The result in one sentence: GEAR's gFID against LlamaGen-REPA's, a tie where they differ by less than `TIE`."""
    gear, repa = report.arm("gear"), report.arm("llamagen-repa")
    if gear is None or repa is None:
        return "This page has no comparison of GEAR with LlamaGen-REPA: one of the two arms is missing."
    ours, theirs = gear.metric("gfid"), repa.metric("gfid")
    if ours is None or theirs is None:
        lacking = " and ".join(arm.name for arm in (gear, repa) if arm.metric("gfid") is None)
        return f"GEAR and LlamaGen-REPA cannot be compared: there is no gFID of {lacking}."
    after = f"After {gear.steps:,} steps"
    after += " each" if gear.steps == repa.steps else f" against LlamaGen-REPA's {repa.steps:,}"
    numbers = f"gFID {number(ours)} against {number(theirs)}"
    apart = abs(ours - theirs) / max(theirs, 1e-12)
    if apart < TIE:
        return (
            f"{after}, GEAR and LlamaGen-REPA come out level: {numbers}, {percent(apart)} apart, "
            f"which {report.n_generated:,} images and one seed cannot tell from chance."
        )
    if ours < theirs:
        return (
            f"{after}, GEAR's images are closer to real ones than LlamaGen-REPA's: {numbers}, {percent(apart)} lower."
        )
    return (
        f"{after}, GEAR does not win: its images are farther from real ones than LlamaGen-REPA's, "
        f"{numbers}, {percent(apart)} higher."
    )


def remarks(report: Report) -> list[str]:
    """What else the numbers say: reconstruction, collapse or its absence, and how much one seed is worth."""
    said = []
    gear, repa, naive = report.arm("gear"), report.arm("llamagen-repa"), report.arm("naive")
    if gear and repa:
        ours, theirs = gear.metric("psnr"), repa.metric("psnr")
        if ours is not None and theirs is not None:
            said.append(
                f"GEAR's tokenizer reconstructs unseen images at {number(ours, 3)} dB, the warm-up tokenizer that "
                f"LlamaGen-REPA keeps at {number(theirs, 3)} dB."
            )
    if naive and (size := effective_size(naive)) is not None:
        used = f"of {report.codebook_size:,} codewords it uses the equivalent of {number(size, 3)}"
        if collapsed(naive, report):
            said.append(
                f"The naive way collapses within {naive.steps:,} steps: {used}, where {number(_most(report), 3)} "
                "are in use in another arm."
            )
        else:
            said.append(f"The naive way has not collapsed after {naive.steps:,} steps: {used}.")
    said.append("It is one run with one seed: read the direction of a difference, not its digits.")
    if gear and repa:
        said[-1] += (
            " GEAR's tokenizer also trained longer than the frozen one, and part of any difference can come from that "
            "alone."
        )
    return said


def effective_size(arm: Arm) -> float | None:
    """Of the codebook at the end: as measured, else from the last log line."""
    points = arm.curve("effective_size")
    return arm.metric("effective_size") or (points[-1][1] if points else None)


def collapsed(arm: Arm, report: Report) -> bool:
    size = effective_size(arm)
    return size is not None and size < COLLAPSED * _most(report)


def _most(report: Report) -> float:
    return max(effective_size(arm) or 0.0 for arm in report.arms)
