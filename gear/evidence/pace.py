"""Seconds a step of each way to train, taken in turns in one process: by these, and not by what else a machine did
while the runs trained, arms are compared at equal wall time."""

import json
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from gear import build, run
from gear.config import Config, Frozen
from gear.demo import hardware
from gear.evidence.arms import arms
from gear.evidence.scales import Scale
from gear.step import Encoded, encoded_step
from gear.store.whole import replacing

NAME = "pace.json"
TIMED = ("warmup-vq", "llamagen", "repa", "gear", "control", "ste", "naive")
STORING = ("llamagen", "repa")  # timed on stored tokens and features, too, as LlamaGen trains
FIRST, ROUNDS = 2, 15  # rounds that do not count, and that do


@dataclass(frozen=True)
class Paced:
    """make: what is there before a step, from its number. step: what takes the time."""

    name: str
    make: Callable[[int], Any]
    step: Callable[[Any], Any]


def stored(name: str) -> str:
    """What pace.json calls an arm's step without tokenizer and target."""
    return f"{name}, tokens stored"


def pace(scale: Scale, into: Path, device: str) -> Path:
    """Writes SCALE/pace.json in `into`: the median, least and largest seconds of a step with its batch, of whose images
    none was there before. Nothing else should run."""
    on, taken = build.device(Config(device=device)), {}
    paced = list(_paced(scale, on, device))
    for i in range(FIRST + ROUNDS):
        for j, each in enumerate(paced):
            made = each.make(i * len(paced) + j)
            _wait(on)
            start = time.perf_counter()
            each.step(made)
            _wait(on)
            if i >= FIRST:
                taken.setdefault(each.name, []).append(time.perf_counter() - start)
    rows = {n: {"median": statistics.median(t), "least": min(t), "largest": max(t)} for n, t in taken.items()}
    about = {"hardware": hardware(on), "rounds": ROUNDS, "batch": scale.base.batch}
    path = into / scale.name / NAME
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(about | {"seconds": rows}, indent=1) + "\n")
    return path


def _paced(scale: Scale, on: torch.device, device: str) -> Iterator[Paced]:
    prepared: dict[int, run.Prepared] = {}  # by the number of targets: one without must not pay for them
    # As the loop has it, around the step alone: features come in float16, which does not go with bfloat16's autocast.
    cast = torch.autocast(on.type, torch.bfloat16, enabled=scale.base.precision == "bfloat16")
    for name in TIMED:
        config = replace(arms()[name].make(scale), device=device)
        targets = len(build.chosen_targets(config))
        if targets not in prepared:
            prepared[targets] = run.prepare(config, on)
        fed = run.supply(config, prepared[targets], on)
        build.set_tf32(config.engine.tf32, on)
        training = build.training(config, len(fed.classes), fed.dims, on)
        yield Paced(name, int, partial(_live, fed.batches, cast(training.step)))
        if name in STORING:
            groups = {group.name: group for group in training.groups}
            assert isinstance(config.stage, Frozen)
            step = cast(partial(encoded_step, groups["generator"], stage=config.stage))
            yield Paced(stored(name), partial(_encoded, fed.batches, groups["tokenizer"].module), step)


def _live(batches: Callable[[int], Any], step: Callable[[Any], Any], number: int) -> None:
    step(batches(number))


def _encoded(batches: Callable[[int], Any], tokenizer: Any, number: int) -> Encoded:
    batch = batches(number)
    return Encoded(tokenizer.encode(batch.x), batch.c, batch.f)


def _wait(on: torch.device) -> None:
    if on.type == "cuda":
        torch.cuda.synchronize(on)
