"""Trains and measures each arm with each seed that has no result yet. Several processes may share the queue: each takes
what no other is at, and what needs a tokenizer waits for it."""

import dataclasses
import datetime
import json
import platform
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from gear import build, run, sources
from gear.config import Config, ConfigError, grid
from gear.config_json import plain, read
from gear.demo import hardware
from gear.evaluate import inception
from gear.evidence import results
from gear.evidence.arms import ARMS, Arm, announced, arms, asked, configured, generated
from gear.evidence.measuring import Judge, measure
from gear.evidence.quantities import stopped
from gear.evidence.results import Result
from gear.evidence.scales import Scale
from gear.store.whole import replacing
from gear.train import lines, state
from gear.train.lock import LockedError, locked
from gear.train.loop import Collapsed, Diverged
from gear.watching import NAME as CURVE

FEATURES = "features"  # in the folder of a run while it is measured
BEGUN = "begun.json"  # there, too: the code that trains it
WAIT = 5.0  # seconds between looks at what other processes are at
LOGGED = (  # of a log line
    *("step", "ntp", "align_hard", "align_soft", "reconstruction", "perceptual", "grad_tokenizer", "grad_generator"),
    *("codebook_entropy", "effective_size", "dead_codes", "codebook_top1", "codebook_top10", "codebook_top100"),
)


@dataclasses.dataclass(frozen=True)
class Job:
    arm: Arm
    seed: int

    @property
    def name(self) -> str:
        return f"{self.arm.name}-{self.seed}"


class Queue:
    """
    out: folder of the runs, a folder each. into: where results go, of all scales.
    """

    def __init__(self, scale: Scale, out: Path, into: Path, device: str, console: Console):
        self.scale, self.into, self.device, self.console = scale, into, device, console
        self.out = out.absolute() / scale.name
        self.judge = Judge(scale.counts, build.device(Config(device=device)), console)
        self.prepared: dict[str, run.Prepared] = {}
        self.commit = _commit()  # now: what is imported later is no newer, unless somebody edits it meanwhile

    def work(self, jobs: Sequence[Job]) -> None:
        """Until each has a result. Raises, before anything is run, `ConfigError` for a result of another protocol and
        for a tokenizer that a GPU would have to make again, and what `gear.build.require` raises for weights that are
        not there."""
        left = [job for job in jobs if not self.done(job)]
        if not left:
            there = f"{len(jobs)} of {len(jobs)} results are in {self.into / self.scale.name}"
            told = f"{there}: nothing to run. Anew: --results NEW_FOLDER."
            self.console.print(told, highlight=False, markup=False, soft_wrap=True)
        if self.judge.on.type == "cuda":
            for job in left:
                self._require_kept(job)
        for arm in dict.fromkeys(job.arm for job in left):
            build.require(configured(self.scale, arm, 0))
        if any(generated(self.scale, job.arm, job.seed) for job in left):
            inception.opened()
        while left:
            begun = [job for job in left if self.take(job)]
            left = [job for job in left if job not in begun and not self.done(job)]
            if left and not begun:
                time.sleep(WAIT)  # all of them are, or wait for, what others are at

    def done(self, job: Job) -> bool:
        path = results.place(self.into, self.scale, job.arm.name, job.seed)
        if not path.exists():
            return False
        results.require(path, results.read(path), self.scale, job.arm)
        return True

    def take(self, job: Job) -> bool:
        """Whether there was nothing in the way: another process that is at it, or at what it starts from."""
        with _alone(self.out / job.name) as mine:
            if not mine:
                return False
            if self.done(job):
                return True
            try:
                if job.arm.start is not None and not self.trained(Job(arms()[job.arm.start], job.seed)):
                    return False
                with job.arm.within():
                    self._train(job)
                    if job.arm.name in {arm.start for arm in ARMS}:
                        self._keep(job)
                    measured = self._measured(job)
            except (Diverged, Collapsed) as stopped:  # a result like any other, and the rest goes on
                self.console.print(f"{job.name}: {stopped}", style="yellow", highlight=False, markup=False)
                measured = {"failed": type(stopped).__name__, "seconds": 0.0}
            self._write(job, measured)
            return True

    def trained(self, job: Job) -> bool:
        """Whether its tokenizer is there to begin with. It is trained if nobody is at it, for a result may be there
        without. Raises `ConfigError` for a tokenizer that is not the one of that result."""
        if results.start(self.into, self.scale, job.arm.name, job.seed).exists():
            return True
        if self._complete(job):
            self._require_same(job)
            self._keep(job)
            return True
        with _alone(self.out / job.name) as mine:
            if not mine or (job.arm.start and not self.trained(Job(arms()[job.arm.start], job.seed))):
                return False
            if results.place(self.into, self.scale, job.arm.name, job.seed).exists():
                told = f"{job.name} has a result, but neither a run nor a start: trained again for what begins with it."
                self.console.print(told, style="yellow", highlight=False, markup=False)
            with job.arm.within():
                self._train(job)
            self._require_same(job)
            self._keep(job)
            return True

    def _keep(self, job: Job) -> None:
        """Its tokenizer, beside the results: runs are large and go, and no other machine makes the same one again."""
        path = results.start(self.into, self.scale, job.arm.name, job.seed)
        if not path.exists():
            found = sources.read(str(self.out / job.name), ("tokenizer_ema", "critic"))
            tokenizer = dataclasses.replace(found.config.tokenizer, init=None)  # a path of this machine
            config = dataclasses.replace(found.config, tokenizer=tokenizer)
            state.write(path, found.tensors, found.step, config, found.classes)

    def _require_kept(self, job: Job) -> None:
        """A GPU never makes the same tokenizer twice, so that no training need show it, as in `_require_same`."""
        if job.arm.start is None:
            return
        before = Job(arms()[job.arm.start], job.seed)
        kept, result = (at(self.into, self.scale, before.arm.name, job.seed) for at in (results.start, results.place))
        if kept.exists() or self._complete(before):
            return
        if result.exists() and not stopped(results.read(result)):
            raise ConfigError(
                f"{job.name} begins with the tokenizer of {before.name}, of which {result} tells, but {kept} is not "
                "there, and a GPU does not make the same one again. Put it back, take other --seeds, or give another "
                "--results to begin all arms anew."
            )
        self._require_kept(before)

    def _require_same(self, job: Job) -> None:
        """Arms of a seed begin with one tokenizer, or their differences are not what they are named for. Another kind
        of processor rounds otherwise, and after a thousand steps that is another tokenizer."""
        path = results.place(self.into, self.scale, job.arm.name, job.seed)
        if path.exists() and results.read(path).log != _logged(lines.read(self.out / job.name / lines.NAME)):
            raise ConfigError(
                f"{self.out / job.name} was trained again, and is not the run that {path} tells of: this machine "
                "rounds otherwise. What begins with it would not compare with what is there: go on on a machine of "
                "that kind, or run all arms here, with another --results."
            )

    def _write(self, job: Job, measured: dict[str, Any]) -> None:
        folder = self.out / job.name
        log, config = lines.read(folder / lines.NAME), folder / run.CONFIG
        result = Result(
            scale=self.scale.name,
            arm=job.arm.name,
            seed=job.seed,
            start=job.arm.start,
            config=results.portable(read(config) if config.exists() else self._config(job)),
            measured=measured,
            curve=[_short(line) for line in lines.read(folder / CURVE)],
            log=_logged(log),
            seconds={"train": log[-1]["seconds"] if log else 0.0, "measure": measured.pop("seconds")},
            about=self._about(folder),
            protocol=results.protocol(self.scale, job.arm, job.seed),
        )
        results.write(results.place(self.into, self.scale, job.arm.name, job.seed), result)

    def _config(self, job: Job) -> Config:
        config = dataclasses.replace(configured(self.scale, job.arm, job.seed), device=self.device)
        if job.arm.start is None:
            return config
        init = str(results.start(self.into, self.scale, job.arm.start, job.seed).absolute())
        return dataclasses.replace(config, tokenizer=dataclasses.replace(config.tokenizer, init=init))

    def _train(self, job: Job) -> None:
        """Raises KeyboardInterrupt where it was stopped in its last evaluation, which ends quietly."""
        config = self._config(job)
        if self._complete(job):
            return
        targets, told = [target.name for target in build.chosen_targets(config)], plain(config)
        key = json.dumps([told["data"], targets, told["precision"], told["generator"]["text"], grid(config)])
        if key not in self.prepared:
            self.prepared[key] = run.prepare(config, self.judge.on)
        begun = self.out / job.name / BEGUN
        if not begun.exists():
            begun.parent.mkdir(parents=True, exist_ok=True)
            with replacing(begun) as temporary:
                temporary.write_text(json.dumps({"commit": self.commit}))
        run.train(config, self.out / job.name, prepared=self.prepared[key], console=self.console)
        if not self._complete(job):
            raise KeyboardInterrupt(
                f"stopped in the last evaluation of {job.name}; the same command goes on from there"
            )

    def _complete(self, job: Job) -> bool:
        """Whether it has made all steps, and measured what is due after the last. Raises `ConfigError` for the folder
        of another configuration."""
        folder, config = self.out / job.name, self._config(job)
        if not folder.exists() or not run.claim(config, folder):
            return False
        newest, due = state.newest(folder, ()), config.watch.evaluate_every > 0
        if newest is None or newest.step < config.steps:
            return False
        return not due or any(line["step"] == config.steps for line in lines.read(folder / CURVE))

    def _measured(self, job: Job) -> dict[str, Any]:
        """Kept in the run's folder with the protocol, for a queue that is broken off before the result is written."""
        kept, protocol = self.out / job.name / "measured.json", results.protocol(self.scale, job.arm, job.seed)
        if kept.exists() and (found := json.loads(kept.read_text()))["protocol"] == protocol:
            return found["measured"]
        self.console.print(f"measuring {job.name}", style="dim")
        start, n = time.monotonic(), generated(self.scale, job.arm, job.seed)
        build.set_tf32(False, self.judge.on)  # as `gear evaluate` measures, whether this process trained it or not
        measured = measure(run.load(self.out / job.name, self.device), self.judge, self.out / job.name / FEATURES, n)
        measured["seconds"] = round(time.monotonic() - start, 1)
        with replacing(kept) as temporary:
            temporary.write_text(json.dumps({"protocol": protocol, "measured": measured}))
        return measured

    def _about(self, folder: Path) -> dict[str, str]:
        """commit: of the code that began to train it; measured: of that which wrote the result."""
        begun = folder / BEGUN  # not there where the tokenizer's run failed, and nothing began
        return {
            "hardware": hardware(self.judge.on),
            "versions": f"gear {version('gear')}, torch {torch.__version__}, Python {platform.python_version()}",
            "commit": json.loads(begun.read_text())["commit"] if begun.exists() else self.commit,
            "measured": self.commit,
            "date": datetime.date.today().isoformat(),
        }


def jobs(scale: Scale, only: Sequence[str] = (), seeds: Sequence[int] = ()) -> list[Job]:
    """Of the arms called so, all if none is named, with those of the scale's or the given seeds that are for them;
    where both are given, with just these. What others begin with, then claim by claim, the first two together, and of
    a claim seed by seed, so that what is there first is whole. Raises ValueError for a name that no arm has."""
    known = arms()
    if unknown := [name for name in only if name not in known]:
        raise ValueError(f"there is no arm {unknown[0]}; there are {', '.join(known)}.")
    named = [arm for arm in ARMS if not only or arm.name in only]
    exactly = bool(seeds and only)  # for whatever they were announced
    wanted = [Job(arm, s) for s in seeds or scale.seeds for arm in named if exactly or announced(scale, arm, s)]
    return sorted(wanted, key=lambda job: (max(2, min(asked(scale, job.arm, job.seed), default=0)), job.seed))


def show(wanted: Sequence[Job], scale: Scale, into: Path, console: Console) -> None:
    """A row for each arm: what it is, what it starts from, which of its seeds have a result."""
    table = Table("arm", "what it is", "begins with", "claims", "seeds done", box=None, pad_edge=False)
    there = results.every(into, scale)
    for arm in dict.fromkeys(job.arm for job in wanted):
        seeds = sorted(job.seed for job in wanted if job.arm == arm)
        done = [str(seed) for seed in seeds if (arm.name, seed) in there]
        claims = ", ".join(map(str, arm.claims))
        table.add_row(arm.name, arm.what, arm.start or "", claims, f"{' '.join(done) or '-'} of {len(seeds)}")
    console.print(table)
    finished = sum((job.arm.name, job.seed) in there for job in wanted)
    console.print(f"{finished} of {len(wanted)} results are in {into / scale.name}.")


def _commit() -> str:
    """Of the code that runs, with "-dirty" where it has been edited; "unknown" outside a repository."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _logged(log: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What a result keeps of the lines of a log."""
    return [_short({name: line[name] for name in LOGGED if line.get(name) is not None}) for line in log]


def _short(line: dict[str, Any]) -> dict[str, Any]:
    """With as many digits as mean anything, since files of results are kept."""
    return {name: float(f"{v:.5g}") if isinstance(v, float) else v for name, v in line.items()}


@contextmanager
def _alone(folder: Path) -> Iterator[bool]:
    """Whether no other process is at the arm of that folder; then none will be until the block ends."""
    queued = folder.with_name(f"{folder.name}.queue")
    queued.mkdir(parents=True, exist_ok=True)  # and stays: `locked` removes what it made, under another's feet
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(queued))
        except LockedError:
            yield False
            return
        yield True
