"""The probes' numbers as a table for the terminal."""

import math

from rich.console import Console
from rich.table import Table

from gear.probe.measure import Levels, Probed, Smoothness, Spread
from gear.usage import Usage

COLUMNS = ("", "CKNNA\nimage", "CKNNA\npatch", "CKA\nimage", "CKA\npatch", "Moran's\nI", "high\nfrequencies")
USAGE = ("top 1", "top 10", "top 100", "top 1000", "entropy", "exp(H)", "dead")


def show(probed: Probed, target: str, tau: float, console: Console) -> None:
    """Prints every map's similarity to the target and its smoothness, and how the codebook is used."""
    p, table = probed, _table(f"similarity to {target}, and smoothness", COLUMNS)
    table.add_row("the target", "", "", "", "", *_smooth(p.target_smoothness))
    table.add_row("pre-quantization", *_similar(p.pre), *_smooth(p.pre_smoothness))
    table.add_row("post-quantization", *_similar(p.post), *_smooth(p.post_smoothness))
    for i, (levels, smooth) in enumerate(zip(p.layers, p.layers_smoothness, strict=True)):
        table.add_row(f"layer {i}", *_similar(levels), *_smooth(smooth))
    console.print(table)
    codes = _table("use of the codebook", ("", *USAGE))
    codes.add_row("natural", *_used(p.natural))
    codes.add_row(f"tau = {tau:g}", *_used(p.soft))
    console.print(codes)


def _table(title: str, columns: tuple[str, ...]) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="dim")
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i else "left", no_wrap=True)
    return table


def _similar(levels: Levels) -> tuple[str, str, str, str]:
    i, p = levels.image, levels.patch
    return _number(i.cknna), _number(p.cknna), _number(i.cka), _number(p.cka)


def _smooth(smoothness: Smoothness) -> tuple[str, str]:
    return _spread(smoothness.moran), _spread(smoothness.fft_high)


def _spread(s: Spread) -> str:
    return _number(s.mean) if math.isnan(s.sd) else f"{s.mean:.2f} ±{s.sd:.2f}"


def _used(u: Usage) -> tuple[str, ...]:
    masses = (f"{mass:.1%}" for mass in (u.top1, u.top10, u.top100, u.top1000))
    return *masses, f"{u.entropy:.3f}", f"{u.effective_size:,.0f}", f"{u.dead:.1%}"


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4f}"
