"""What `gear plan` prints."""

from collections.abc import Sequence
from dataclasses import astuple, replace

from rich.console import Console
from rich.table import Table

from gear.config import Config
from gear.plan import Plan, Rates, plan

SIZES = (16, 24, 48, 80, 141)  # GB (10^9 bytes), of GPUs that there are
FITS = "it fits"
UNITS = (("days", 24.0), ("hours", 1.0), ("minutes", 1 / 60), ("seconds", 1 / 3600))
SPARE = 0.1  # of it, for the allocator's gaps and the libraries
COMMON = 80  # GB; what needs more is asked for what would fit
H100 = Rates(989.0, 494.0, 67.0)  # of dense products, the defaults of `gear plan`
LAUNCHES = 0.01  # seconds of a step at the least, in which the CPU launches its kernels: a pass of 12 blocks takes 5 ms


def show(config: Config, gpus: int, rates: Rates, mfu: float, console: Console | None = None) -> None:
    """Counts with `gpus` GPUs and prints it. Raises as `plan` does, and ValueError for an impossible speed."""
    console = console or Console()
    if not (min(astuple(rates)) > 0 and 0 < mfu <= 1):
        came = f"{rates.bfloat16}, {rates.tf32}, {rates.float32} and {mfu}"
        said = "--tflops, --tflops-tf32 and --tflops32 must be above 0 and --mfu in (0, 1]"
        raise ValueError(f"{said}; they are {came}.")
    with console.status("counting one step (some ten seconds) ..."):
        counted = plan(config, gpus)
    with console.status(f"counting what would fit {COMMON} GB ..."):
        instead = smaller(config, counted)
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, value in lines(counted, rates, mfu):
        table.add_row(name, value + (instead if name == FITS else ""))
    console.print(table)


def lines(p: Plan, rates: Rates, mfu: float) -> list[tuple[str, str]]:
    """The table, row by row."""
    step, images, hours = p.step, p.rows * p.world, p.hours(rates, mfu)
    exact = step.float32 - step.tf32
    each = {"bfloat16": (rates.bfloat16, step.bfloat16), "TF32": (rates.tf32, step.tf32)}
    each |= {"float32": (rates.float32, exact)}
    used = ", ".join(f"{rate:g} in {name}" for name, (rate, flops) in each.items() if flops)
    whose = " (an H100)" if rates == H100 else ""
    exactly = f", {_short(exact)} without TF32" if step.tf32 else ""
    shared = f" ({p.rows} on each of {p.world} GPUs)" if p.world > 1 else ""
    return [
        *((f"parameters, {name}", f"{count:,}") for name, count in p.parameters.items()),
        ("a step", f"{images} images{shared}, {p.tokens:,} tokens"),
        *((f"FLOPs a step, {name}", f"{_short(f.total)} ({f.total / step.total:.0%})") for name, f in p.flops.items()),
        ("FLOPs a step", f"{_short(step.total)}, {_short(step.total / images)} an image"),
        ("of them in float32", f"{_short(step.float32)} ({step.float32 / step.total:.0%}){exactly}"),
        *_memory(p),
        ("the run", f"{p.steps:,} steps, {_short(p.steps * step.total)} FLOPs"),
        ("TFLOP/s of a GPU", f"{used}{whose}; {mfu:.0%} reached"),
        ("it takes", _taking(hours, p)),
    ]


def _memory(p: Plan) -> list[tuple[str, str]]:
    """What a GPU holds, and the most of it. Gradients and activations are the peak minus the rest."""
    h = p.held
    static = {"moving weights": h.moving, "fixed weights": h.fixed, "averages": h.averages}
    static |= {"optimiser states": h.optimizer, "batch": h.batch}
    return [
        *((f"memory, {what}", _gb(size)) for what, size in static.items() if size),
        ("memory, rest of the peak", f"{_gb(p.peak - h.total)} of gradients and activations"),
        ("memory of each GPU", f"{_gb(p.peak)} at the peak"),
        (FITS, _fitting(p.peak)),
    ]


def smaller(config: Config, p: Plan) -> str:
    """What would fit a GPU of `COMMON` GB with the same numbers, counted like `p`; empty if `p` does, or none would."""
    ways = {"--engine.recompute": replace(config.engine, recompute=True)}
    if p.world > 1:
        ways["--engine.shard"] = replace(config.engine, shard=True)
    if p.peak > _room(COMMON):
        for option, engine in ways.items():
            if engine != config.engine:
                peak = plan(replace(config, engine=engine), p.world).peak
                if peak <= _room(COMMON):
                    return f"; with {option} on one of {COMMON} GB ({_gb(peak)} at the peak)"
    return ""


def _taking(hours: float, p: Plan) -> str:
    """The time of the whole run, and that of a step where it is not its operations that take it."""
    step = 3600 * hours / p.steps
    if step >= LAUNCHES:
        return _time(hours) + (f", {_time(hours * p.world, UNITS[1:], 'GPU ')}" if p.world > 1 else "")
    least = _time(p.steps * LAUNCHES / 3600)
    launched = f"a step's launches take {1000 * LAUNCHES:g} ms or more, its operations {1000 * step:.2g} ms"
    return f"at least {least}: {launched}; on a CPU far longer"


def _room(size: float | int) -> float:
    """Bytes of a GPU of `size` GB without the share `SPARE`."""
    return (1 - SPARE) * size * 1e9


def _fitting(peak: int) -> str:
    """The smallest size of GPU with the share `SPARE` left."""
    for size in SIZES:
        if peak <= _room(size):
            return f"on a GPU of {size} GB, {SPARE:.0%} left for the allocator"
    return f"on no single GPU ({peak / (1 - SPARE) / 1e9:.0f} GB): more GPUs, smaller batch or --engine.accumulate"


def _gb(size: int) -> str:
    return f"{size / 1e9:.3g} GB" if size >= 1e6 else "below 0.001 GB"


def _time(hours: float, units: Sequence[tuple[str, float]] = UNITS, of: str = "") -> str:
    """In the largest unit that it has two of."""
    unit, size = next((u for u in units if hours >= 2 * u[1]), units[-1])
    value = hours / size
    return f"{value:,.0f} {of}{unit}" if value >= 100 else f"{value:.3g} {of}{unit}"


def _short(value: float | int) -> str:
    """Three digits and a prefix: 61.7 T."""
    power = min(max(0, (len(str(int(value))) - 1) // 3), 7)
    return f"{value / 1000**power:.3g} {('', 'k', 'M', 'G', 'T', 'P', 'E', 'Z')[power]}"
