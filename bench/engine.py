"""The training engine: what a run costs above its steps, for data and for checkpoints; and more than one process.

    python -m bench.engine                  # every row; `make bench` leaves out those of process groups
    python -m bench.engine --device cuda    # the same on a GPU, but for two processes

All with the recipe `demo` (GEAR, 32 images of 64 px), its weights and its first batches, in blocks of `BLOCK` steps.

step: `gear.train.loop.fit` against a bare loop, each with weights of its own, which go the same way. Both seed each
step, and both have what `update` itself does, finding out whether a norm is finite included. Only `fit` keeps averages
(EMA), sums for the log, counts skipped updates, looks for a collapse, draws its progress bar as on a terminal, listens
to signals, asks the other ranks and the checkpoint's thread, and ends each block with a line of the log and of
TensorBoard, four times as often as the recipe. No checkpoint is due. What bounds it: the averages, two passes over all
weights.

data wait: of a step with its data, how long it waits for data, both as means, since a queue that runs dry shows in few
steps. Built-in: all that is done to get a batch whose features are remembered. Folder: JPEG files of `PHOTO` pixels,
decoded and cropped at each visit by `WORKERS` processes; the wait is that for `gear.data.streaming.Stream`. Features
are then computed in the step's own time and are no wait.

checkpoint, stall: how long `Keeper.save` holds up training, against `state.save`, which returns when all is on the
disk; that of the temporary folder (TMPDIR). checkpoint and steps: either, followed by as many steps as the write behind
them takes and one more, whose slow-down is thereby in it.

one rank, DDP: the step as several ranks run it, in a process group of one, against the step without.

2 processes: `fit` in two processes of one thread that share each batch, against one of two threads; medians of
`RUNS` fresh starts in turn, and of each the median of its blocks.
"""

import argparse
import io
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from pathlib import Path
from statistics import fmean, median

import torch
import torch.distributed as dist
from PIL import Image
from rich.console import Console

from bench.asked import add_device
from bench.table import Row, alternating, show
from gear import build, codes, ranks
from gear.config import Config, Data, grid
from gear.config_json import from_json, to_json
from gear.data import Images
from gear.data.streaming import Stream, Visit
from gear.recipes import demo
from gear.run import Supply, prepare, supply
from gear.step import Batch, Encoded
from gear.train import distributed, lines, loop, state
from gear.train.batches import Streamed
from gear.train.keep import Keeper

CONFIG = demo()
BLOCK, ROUNDS = 5, 3
PHOTO, PHOTOS, WORKERS = (160, 128), 320, 1
PROCESSES, RUNS, BLOCKS = 2, 3, 2
NEVER = 10**9  # steps


@dataclass(frozen=True)
class Case:
    """What every measurement starts from. batches: this rank's share of the first `BLOCK` ones."""

    config: Config
    on: torch.device
    fed: Supply
    batches: list[Batch | Encoded]

    def training(self) -> build.Training:
        return build.training(self.config, len(self.fed.classes), self.fed.dims, self.on)

    def now(self) -> float:
        """Seconds, when what the device was given to do is done."""
        if self.on.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def step(self, training: build.Training, batch: Batch | Encoded, number: int) -> torch.Tensor:
        """One step outside `fit`; gives L_NTP."""
        loop.seed(self.config.seed, number)
        with torch.autocast(self.on.type, torch.bfloat16, enabled=self.config.precision == "bfloat16"):
            return training.step(batch).terms["ntp"]

    def block(self, training: build.Training, first: int = 0) -> float:
        """The mean L_NTP of a block of steps."""
        ntp = [self.step(training, batch, first + i) for i, batch in enumerate(self.batches)]
        return torch.stack(ntp).mean().item()

    def seconds(self, work: Callable[[], object]) -> float:
        start = self.now()
        work()
        return self.now() - start


def case(config: Config, device: str, rounds: int | None = None) -> Case:
    rounds, on = rounds or ROUNDS, torch.device(device)
    config = replace(config, device=device, log_every=BLOCK, save_every=NEVER, steps=(rounds + 1) * BLOCK + 1)
    build.set_tf32(config.engine.tf32, on)
    fed = supply(config, None, on)
    return Case(config, on, fed, [fed.batches(i) for i in range(BLOCK)])


def fitted(c: Case, training: build.Training, between: Callable[[int], object]) -> tuple[list[float], float]:
    """Seconds a step, of each block of `fit` but the first; and the mean L_NTP of the first, as logged. between: called
    with the number of the next step, before each block, and not counted."""
    ends, starts = list[float](), list[float]()

    def batches(step: int) -> Batch | Encoded:
        if step % BLOCK == 0:
            ends.append(c.now())
            between(step)
            starts.append(c.now())
        return c.batches[step % BLOCK]

    terminal = Console(file=io.StringIO(), force_terminal=True, width=80)
    with tempfile.TemporaryDirectory() as folder:
        path, classes = Path(folder), c.fed.classes  # the last step only ends the last block
        loop.fit(c.config, path, training.groups, training.step, batches, classes, c.on, "bench", terminal)
        first = lines.read(path / lines.NAME)[0]["ntp"] if ranks.rank() == 0 else math.nan
    return [(end - start) / BLOCK for start, end in zip(starts[1:-1], ends[2:], strict=True)], first


def compared(times: Mapping[str, list[float]]) -> tuple[dict[str, float], float]:
    """Of what took turns already, as `alternating` has it."""
    rounds = min(map(len, times.values()))
    return alternating({name: iter(values).__next__ for name, values in times.items()}, rounds)


def same(a: float, b: float) -> None:
    assert math.isclose(a, b, rel_tol=0.01), f"{a} and {b}: the two sides do not do the same"


def of_a_step(c: Case) -> Row:
    training, bare = c.training(), c.training()
    for group in bare.groups:
        group.ema = None
    plain, losses = list[float](), list[float]()

    def between(step: int) -> None:
        plain.append(c.seconds(lambda: losses.append(c.block(bare, step))) / BLOCK)

    ours, loss = fitted(c, training, between)
    same(loss, losses[0])
    t, spread = compared({"ours": ours, "plain": plain[1 : 1 + len(ours)]})
    return Row(f"step, {c.on.type}", "ms", t["ours"] * 1e3, t["plain"] * 1e3, 1.03, spread, "averages (EMA)")


# ---------------------------------------------------------------------------------------------------- data


class Timed(Stream):
    """waits: seconds, of each visit."""

    waits: tuple[float, ...] = ()

    def __call__(self, step: int) -> Visit:
        start = time.perf_counter()
        visit = super().__call__(step)
        self.waits += (time.perf_counter() - start,)
        return visit


def of_built_in(c: Case) -> Row:
    waits = list[float]()

    def batches(step: int) -> Batch | Encoded:
        start = c.now()
        batch = c.fed.batches(step % BLOCK)  # whose features `case` had computed
        waits.append(c.now() - start)
        return batch

    return waited("data wait, built-in", c, batches, lambda: waits, "copies")


def of_folder(c: Case) -> Row:
    with tempfile.TemporaryDirectory() as folder:
        photographs(c, Path(folder))
        data = Data(folder, c.config.data.resolution, crop="random", flip=False, workers=WORKERS)
        config = replace(c.config, data=data)
        prepared = prepare(config, c.on)
        assert not isinstance(prepared.train, Images)
        size, pin, side = codes.cropping(config), c.on.type == "cuda", (grid(config), grid(config))
        stream = Timed(prepared.train, size, config.batch, config.seed, flip=False, workers=WORKERS, pin=pin)
        batches = Streamed(stream, prepared.targets, side, c.on, config.precision)
        try:
            return waited("data wait, folder", c, batches, lambda: list(stream.waits), f"Pillow, {WORKERS} process")
        finally:
            stream.close()


def photographs(c: Case, folder: Path) -> None:
    """The built-in images, enlarged."""
    assert c.fed.images is not None
    images = c.fed.images.train
    assert isinstance(images, Images)
    for i in range(min(PHOTOS, len(images))):
        file = folder / images.classes[images.labels[i]] / f"{i:04d}.jpg"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(images.pixels[i].transpose(1, 2, 0)).resize(PHOTO).save(file, quality=90)


def waited(
    path: str, c: Case, batches: Callable[[int], Batch | Encoded], waits: Callable[[], list[float]], bound: str
) -> Row:
    """The first block, in which what is decoded ahead runs up, does not count."""
    training, numbers = c.training(), count()

    def block() -> None:
        for number in (next(numbers) for _ in range(BLOCK)):
            c.step(training, batches(number), number)

    blocks = [c.seconds(block) / BLOCK for _ in range(1 + ROUNDS // 2)][1:]
    spread = (max(blocks) - min(blocks)) / median(blocks)
    return Row(path, "ms", fmean(waits()[BLOCK:]) * 1e3, fmean(blocks) * 1e3, 0.02, spread, f"{bound}; of a step")


# ---------------------------------------------------------------------------------------------------- checkpoints


def of_checkpoints(c: Case) -> list[Row]:
    training, numbers = c.training(), count(1)
    c.block(training)  # the optimisers have their moments
    with tempfile.TemporaryDirectory() as folder, Keeper(Path(folder) / "kept", keep_last=2) as keeper:

        def save() -> None:
            keeper.save(training.groups, next(numbers), c.config, c.fed.classes)

        def write() -> None:
            state.save(Path(folder) / state.NAME, training.groups, next(numbers), c.config, c.fed.classes)

        save()  # the memory of the copy is had from now on
        keeper.wait()
        step = c.seconds(lambda: c.block(training)) / BLOCK
        meanwhile = math.ceil(keeper.seconds / step) + 1
        stalls: dict[str, list[float]] = {"ours": [], "plain": []}

        def steps(name: str = "", checkpoint: Callable[[], None] | None = None) -> float:
            start = c.now()
            if checkpoint is not None:
                stalls[name].append(c.seconds(checkpoint))
            for i in range(meanwhile):
                c.step(training, c.batches[i % BLOCK], i)
            passed = c.now() - start
            keeper.wait()
            return passed

        sides = {"ours": partial(steps, "ours", save), "plain": partial(steps, "plain", write), "none": steps}
        t, spread = alternating(sides, ROUNDS)
        s, of_stall = compared(stalls)
        size = (Path(folder) / state.NAME).stat().st_size / 2**20
    bound, without = f"a copy of {size:.0f} MiB", f"without: {t['none']:.3g} s"
    return [
        Row("checkpoint, stall", "ms", s["ours"] * 1e3, s["plain"] * 1e3, 0.1, of_stall, bound),
        Row(f"checkpoint and {meanwhile} steps", "s", t["ours"], t["plain"], 1.0, spread, without),
    ]


# ---------------------------------------------------------------------------------------------------- processes


def of_one_rank(c: Case) -> Row:
    backend = "nccl" if c.on.type == "cuda" else "gloo"
    store = dist.HashStore()  # pyright: ignore[reportPrivateImportUsage]
    dist.init_process_group(backend, store=store, rank=0, world_size=1)
    try:
        replicated, alone = c.training(), c.training()
        for group in replicated.groups:
            group.replicate()
        same(c.block(replicated), c.block(alone))
        sides = {"ours": partial(c.block, replicated), "plain": partial(c.block, alone)}
        timed = {name: partial(c.seconds, work) for name, work in sides.items()}
        t, spread = alternating(timed, ROUNDS)
        for group in replicated.groups:
            group.alone()
    finally:
        dist.destroy_process_group()
    milliseconds = {name: seconds * 1e3 / BLOCK for name, seconds in t.items()}
    bound = "copies of gradients"
    return Row(f"one rank, DDP, {c.on.type}", "ms", milliseconds["ours"], milliseconds["plain"], 1.03, spread, bound)


def of_processes(config: Config) -> Row:
    losses: dict[str, float] = {}

    def seconds(name: str, size: int, threads: int) -> float:
        many = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(size)] if size > 1 else []
        command = [sys.executable, *many, "-m", "bench.engine", "--worker", to_json(config)]
        env = os.environ | {"OMP_NUM_THREADS": str(threads)}
        done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr)
        said = json.loads(done.stdout.splitlines()[-1])
        losses[name] = said["ntp"]
        return said["seconds"]

    sides = {"ours": partial(seconds, "ours", PROCESSES, 1), "plain": partial(seconds, "plain", 1, PROCESSES)}
    t, spread = alternating(sides, RUNS)
    same(losses["ours"], losses["plain"])
    return Row(f"{PROCESSES} processes, cpu", "ms", t["ours"] * 1e3, t["plain"] * 1e3, 1.0, spread, "arithmetic")


def worker(config: Config) -> None:
    """One of the processes; the first one prints what it measured."""
    with distributed.joined(torch.device("cpu")):
        c = case(config, "cpu", BLOCKS)
        training = c.training()
        times, loss = fitted(c, training, lambda step: None)
        for group in training.groups:
            group.alone()
        if ranks.rank() == 0:
            print(json.dumps({"seconds": median(times), "ntp": loss}))


def run(device: str) -> list[Row]:
    """Those of one process, for `make bench`."""
    return of_one_process(case(CONFIG, device))


def of_one_process(c: Case) -> list[Row]:
    return [of_a_step(c), of_built_in(c), of_folder(c), *of_checkpoints(c)]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.engine", description=(__doc__ or "").partition("\n")[0])
    add_device(parser)
    parser.add_argument("--worker", help=argparse.SUPPRESS)  # a configuration as JSON
    a = parser.parse_args()
    if a.worker:
        worker(from_json(a.worker))
        return
    c = case(CONFIG, a.device)
    rows = [*of_one_process(c), of_one_rank(c)]
    if a.device == "cpu":
        rows.append(of_processes(CONFIG))
    show(rows, f"{a.device}, {torch.get_num_threads()} threads, torch {torch.__version__}")


if __name__ == "__main__":
    main()
