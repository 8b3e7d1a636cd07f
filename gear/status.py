"""`gear status`: what a run's files say of it, while it trains or later. Nothing is written; torch is not imported.

`as_json` gives one object with these keys, or {"runs": [...]} of such objects for a folder of runs. null stands for
what is not known, and for numbers that are not finite.

    run             its folder, as given                    name            of that folder
    state           "running", "stopped", "finished" (all steps made), "not started" (no step saved or logged)
    holder          of the lock: {pid, host, started}; null as well where a fresh log alone says that it runs
    stage           kind of the configuration's stage       ranks           processes that train together
    step            updates logged or saved                 steps           of the configuration
    resumes_at      step of the newest whole checkpoint; 0 without any
    images_per_s    of the last line of the log             seconds         of training so far
    seconds_left    at the speed of the last ten lines      log_age_s       seconds since the log was written
    log_in_future   whether that lies ahead of this clock: one of the two is wrong, and the age null
    memory_gib      the most that a process has held        metrics         {name: value} of the last line: all of its
                                                                            numbers that have no key of their own here
    evaluations     {"last": {"step", name: value, ...} or null, "best": {name: {"value", "step"}}}
    codebook        {"effective_size", "largest_seen", "codebook_entropy", "dead_codes"}
    skipped         {group: {"updates", "last_step"}}: updates that were left out, and the last line that tells of any
    warnings        [{"step", "kind", "message"}] of health.jsonl
    checkpoints     [{"file", "step", "bytes", "age_s", "damaged"}], the newest step first
    disk_free       bytes
"""

import json
import math
import os
import shutil
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from gear.train import lines, lock

CONFIG, CHECKPOINT, OLDER = "config.json", "checkpoint.safetensors", "checkpoints/step-*.safetensors"
EVALUATIONS, HEALTH = "evaluations.jsonl", "health.jsonl"
CODEBOOK = ("effective_size", "codebook_entropy", "dead_codes")
OWN = (
    "step",
    "seconds",
    "images_per_s",
    "ranks",
    "memory_gib",
    *CODEBOOK,
)  # numbers of a line that are not among the metrics
LARGEST_HEADER = 100_000_000  # bytes of a safetensors file's header, by its specification
QUIET = 60.0  # seconds without a line, or three times as long as one takes: then a run without a lock has ended
COLOURS = {"running": "green", "finished": "green", "stopped": "yellow", "not started": "yellow"}


@dataclass(frozen=True)
class Checkpoint:
    """One file. age_s: seconds; None in the future. damaged: cut short, or none at all; `step` is then None."""

    file: str
    step: int | None
    bytes: int
    age_s: float | None
    damaged: bool


@dataclass(frozen=True)
class Status:
    """The keys of the JSON object; the module says what they mean."""

    run: str
    name: str
    state: Literal["running", "stopped", "finished", "not started"]
    holder: dict[str, Any] | None
    stage: str | None
    ranks: int | None
    step: int
    steps: int | None
    resumes_at: int
    images_per_s: float | None
    seconds: float
    seconds_left: float | None
    log_age_s: float | None
    log_in_future: bool
    memory_gib: float | None
    metrics: dict[str, float | None]
    evaluations: dict[str, Any]
    codebook: dict[str, float | None]
    skipped: dict[str, dict[str, int]]
    warnings: list[dict[str, Any]]
    checkpoints: list[Checkpoint]
    disk_free: int


def as_json(folder: Path) -> str:
    """One line. Raises ValueError if `folder` is neither a run nor a folder of runs, OSError if it may not be read."""
    runs = found(folder)
    plain = {"runs": [asdict(s) for s in map(status, runs)]} if runs != [folder] else asdict(status(folder))
    return json.dumps(_finite(plain))


def show(folder: Path, console: Console | None = None) -> None:
    """A table of the run, or one with a row for each run in `folder`, in 80 columns. Raises as `as_json`."""
    console, runs = console or Console(highlight=False), found(folder)
    console.print(_whole(status(folder)) if runs == [folder] else _rows([status(run) for run in runs]))


def found(folder: Path) -> list[Path]:
    """`folder` if it is a run, else the runs directly in it. Raises ValueError where there are none."""
    if _is_run(folder):
        return [folder]
    inside = sorted(path for path in folder.iterdir() if path.is_dir() and _is_run(path)) if folder.is_dir() else []
    if not inside:
        there = "no folder of that name" if not folder.is_dir() else "neither a log nor a checkpoint in it"
        cure = "`gear train RECIPE --out FOLDER` makes one"
        raise ValueError(f"{folder} is neither a run nor a folder of runs, there being {there}; {cure}.")
    return inside


def _is_run(folder: Path) -> bool:
    """A model that was exported has a config.json too, of another kind."""
    named = (folder / name for name in (lines.NAME, lock.NAME, CHECKPOINT))
    return any(p.is_file() for p in named) or any(folder.glob(OLDER)) or _config(folder).get("kind") == "Config"


def status(run: Path) -> Status:
    """Of one run. Raises OSError if it may not be read; no content of a file is too damaged."""
    now = time.time()
    log = [line for line in lines.every(run / lines.NAME) if lines.whole_number(line.get("step")) is not None]
    last = log[-1] if log else {}
    read = [pair for path in (run / CHECKPOINT, *run.glob(OLDER)) if (pair := _checkpoint(path, run, now))]
    read.sort(key=lambda pair: -1 if pair[0].step is None else pair[0].step, reverse=True)
    config = _config(run) or next((_object(header.get("config")) for _, header in read if header), {})
    saved, logged = max((c.step or 0 for c, _ in read), default=0), last.get("step", 0)
    steps, step = lines.whole_number(config.get("steps")), max(saved, logged)
    pace, age, who = lines.pace(log), _age(run / lines.NAME, now), lock.holder(run)
    fresh = age is not None and age < max(QUIET, 3 * lines.interval(log)) and not (steps and step >= steps)
    if who is not None or (fresh and _without_lock(run)):
        state = "running"
    elif steps is not None and saved >= steps:
        state = "finished"
    else:
        state = "stopped" if step else "not started"
    numbers = {name: value for name in last if (value := lines.number(last[name])) is not None}
    sizes = [
        size for line in log if (size := lines.number(line.get("effective_size"))) is not None and math.isfinite(size)
    ]
    return Status(
        run=str(run),
        name=run.resolve().name,
        state=state,
        holder=who,
        stage=stage if isinstance(stage := _dict(config.get("stage")).get("kind"), str) else None,
        ranks=lines.whole_number(last.get("ranks")),
        step=step,
        steps=steps,
        resumes_at=saved,
        images_per_s=numbers.get("images_per_s"),
        seconds=numbers.get("seconds", 0.0),
        seconds_left=(steps - step) * pace if pace and steps is not None and step < steps else None,
        log_age_s=age,
        log_in_future=age is None and bool(log),
        memory_gib=numbers.get("memory_gib"),
        metrics={
            name: numbers.get(name)
            for name, value in last.items()
            if (name in numbers or value is None) and name not in OWN and not name.startswith("skipped_")
        },
        evaluations=lines.evaluations(lines.every(run / EVALUATIONS)),
        codebook={"largest_seen": max(sizes, default=None)} | {name: numbers.get(name) for name in CODEBOOK},
        skipped=lines.skipped(log),
        warnings=[w for w in map(_warning, lines.every(run / HEALTH)) if w],
        checkpoints=[checkpoint for checkpoint, _ in read],
        disk_free=shutil.disk_usage(run).free,
    )


# ---------------------------------------------------------------------------------------------------- what was read


def _object(text: Any) -> dict[str, Any]:
    """Of a JSON text; empty if it is none."""
    try:
        value = json.loads(text)
    except (ValueError, TypeError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _config(run: Path) -> dict[str, Any]:
    """Not by `gear.config_json`, which refuses the fields of another version."""
    file = run / CONFIG
    return _object(file.read_bytes()) if file.is_file() else {}


def _without_lock(run: Path) -> bool:
    """Its filesystem has none, of which an empty file tells."""
    file = run / lock.NAME
    return file.exists() and file.stat().st_size == 0


def _age(path: Path, now: float) -> float | None:
    """Seconds since `path` was written; None without one, or if that is more than two seconds ahead of this clock."""
    try:
        age = now - path.stat().st_mtime
    except OSError:
        return None
    return None if age < -2 else max(0.0, age)


def _checkpoint(path: Path, run: Path, now: float) -> tuple[Checkpoint, dict[str, Any]] | None:
    """With the text in its header: 8 bytes little-endian say how long that is, then JSON follows, then tensors. None if
    it is not there, or no longer: a run that trains removes old ones."""
    metadata, step = {}, None
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return None
    with file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        if length <= min(LARGEST_HEADER, size - 8):
            header = _object(file.read(length))
            metadata = _dict(header.pop("__metadata__", None))
            ends = [_dict(tensor).get("data_offsets") for tensor in header.values()]
            end = max((e[-1] for e in ends if isinstance(e, list) and e and type(e[-1]) is int), default=0)
            number = str(metadata.get("step"))
            if size == 8 + length + end and number.isdecimal() and len(number) < 16:
                step = int(number)
    return Checkpoint(path.relative_to(run).as_posix(), step, size, _age(path, now), step is None), metadata


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _warning(line: dict[str, Any]) -> dict[str, Any] | None:
    kind, message = (value if isinstance(value := line.get(name), str) else None for name in ("kind", "message"))
    step = lines.whole_number(line.get("step"))
    return {"step": step, "kind": kind, "message": message} if message is not None else None


def _finite(value: Any) -> Any:
    """JSON has no numbers that are not finite."""
    if isinstance(value, dict):
        return {key: _finite(v) for key, v in value.items()}
    if isinstance(value, list):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


# ---------------------------------------------------------------------------------------------------- what is shown


def _whole(s: Status) -> Table:
    table = _grid(2)
    for name, value in _described(s):
        table.add_row(_safe(name, "dim"), value)
    return table


def _described(s: Status) -> Iterable[tuple[str, Text | Table]]:
    """The rows of a run's table; a part of which nothing is known has none."""
    yield "run", _safe(s.name + (f", {s.stage}" if s.stage else "") + _processes(s))
    yield "state", _safe(_state(s), COLOURS[s.state])
    yield "step", _safe(f"{s.step:,} of {s.steps:,} ({s.step / s.steps:.1%})" if s.steps else f"{s.step:,}")
    speed = [] if s.images_per_s is None else [f"{s.images_per_s:.1f} images/s"]
    speed += [f"{_span(s.seconds)} of training"] if s.seconds else []
    speed += [f"{_span(s.seconds_left)} left"] if s.seconds_left else []
    if speed:
        yield "speed", _safe(", ".join(speed))
        yield "last line", _safe(_ago(s.log_age_s))
    if s.memory_gib is not None:
        yield "memory", _safe(f"{s.memory_gib:.2f} GiB at most")
    if s.metrics:
        yield "metrics", _pairs(s.metrics)
    if last := s.evaluations["last"]:
        yield "evaluation", _safe(f"of step {last['step']:,}")
        yield "", _measured(last, s.evaluations["best"])
    if (size := s.codebook["effective_size"]) is not None:
        yield "codebook", _safe(_codebook(size, s.codebook))
    if s.skipped:
        left_out = {k: v for k, v in s.skipped.items() if v["updates"]}
        told = (f"{v['updates']:,} of {k} (last: step {v['last_step']:,})" for k, v in left_out.items())
        yield "left out", _safe(f"{', '.join(told) or 'no'} updates", "yellow" if left_out else "")
    for number, w in enumerate(s.warnings[-3:]):
        first = f"warnings, {len(s.warnings)}" if not number else ""
        yield first, _safe(f"step {w['step']}, {w['kind']}: {w['message']}", "yellow")
    if s.checkpoints:
        table = _grid(4)
        for c in s.checkpoints:
            colour = "red" if c.damaged else ""
            step = "damaged" if c.step is None else f"step {c.step:,}"
            table.add_row(*(_safe(text, colour) for text in (step, _size(c.bytes), _ago(c.age_s), c.file)))
        yield "checkpoints", table
    yield "disk", _safe(f"{_size(s.disk_free)} free")


def _rows(runs: list[Status]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for name in ("run", "state"):
        table.add_column(name, overflow="fold")
    for name in ("step", "images/s", "left", "last line", "codebook"):
        table.add_column(name, justify="right", no_wrap=True)
    for s in runs:
        size, speed = s.codebook["effective_size"], "" if s.images_per_s is None else f"{s.images_per_s:.1f}"
        step = f"{s.step:,} / {s.steps:,}" if s.steps else f"{s.step:,}"
        left = _span(s.seconds_left) if s.seconds_left else ""
        age = "in future" if s.log_in_future else "" if s.log_age_s is None else _span(s.log_age_s)
        cells = (step, speed, left, age, "" if size is None else f"{size:.0f}")
        table.add_row(_safe(s.name), _safe(s.state, COLOURS[s.state]), *map(_safe, cells))
    return table


def _state(s: Status) -> str:
    if s.state == "running":
        who = s.holder or {}
        by = f" as process {who['pid']} on {who['host']}" if {"pid", "host"} <= who.keys() else ""
        return f"running{by}" if s.holder is not None else "running, to judge by its log"
    if s.state == "stopped":
        again = "" if s.resumes_at == s.step else f"; the same command goes on from {s.resumes_at:,}"
        return f"stopped at step {s.step:,}{again}"
    return s.state


def _processes(s: Status) -> str:
    return f", {s.ranks} processes" if s.ranks and s.ranks > 1 else ""


def _codebook(size: float, codebook: Mapping[str, float | None]) -> str:
    largest, entropy, dead = (codebook[name] for name in ("largest_seen", "codebook_entropy", "dead_codes"))
    told = f"effective size {size:.1f}"
    told += f", {size / largest:.0%} of the largest so far ({largest:.1f})" if largest else ""
    told += "" if entropy is None else f"; entropy {entropy:.3f}"
    return told + ("" if dead is None else f"; {dead:.1%} dead")


def _pairs(values: Mapping[str, float | None]) -> Table:
    """Two in a row; null is what the log has for a mean without a finite number."""
    shown = {name: "not finite" if value is None else f"{value:.5g}" for name, value in values.items()}
    table, cells = _grid(4), [(_safe(name), _safe(value)) for name, value in shown.items()]
    for first, second in zip(cells[::2], [*cells[1::2], *[(Text(), Text())] * (len(cells) % 2)], strict=True):
        table.add_row(*first, *second)
    return table


def _measured(last: Mapping[str, Any], best: Mapping[str, Mapping[str, Any]]) -> Table:
    table = _grid(3)
    for name, value in last.items():
        if name != "step":
            of = f"best {best[name]['value']:.5g} at step {best[name]['step']:,}" if name in best else ""
            table.add_row(_safe(name), _safe(f"{value:.5g}"), _safe(of))
    return table


def _grid(columns: int) -> Table:
    table = Table.grid(*[""] * columns, padding=(0, 2, 0, 0))
    for column in table.columns:
        column.overflow = "fold"
    return table


def _safe(text: str, style: str = "") -> Text:
    """Text, not str: no markup; and none of the codes that terminals obey, whatever a file has put into its names."""
    return Text("".join(c if c.isprintable() else ascii(c)[1:-1] for c in text), style)


def _span(seconds: float) -> str:
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def _ago(age: float | None) -> str:
    return "in the future: clock" if age is None else f"{_span(age)} ago"


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"
