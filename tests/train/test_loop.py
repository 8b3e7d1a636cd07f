"""The loop with a step made of one matrix: what it logs and saves, how it stops, and how it goes on."""

import io
import math
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import nn

from gear.config import Config, Engine, Guards
from gear.noise import uniform as noise_of
from gear.step import Batch, Step
from gear.train import diagnosis, lines, log, loop, state
from gear.train.keep import Keeper
from gear.train.loop import Collapsed, Diverged
from gear.train.stopping import SIGNALS, Interrupted
from gear.update import Trained, update

CPU = torch.device("cpu")
TIMES = ("seconds", "images_per_s", "memory_gib")  # what differs between two runs of the same


@dataclass
class Rig:
    """Everything `fit` needs. `at` is called before each step with its number; `seen` holds the numbers."""

    config: Config
    run: Path
    at: Callable[[int], object] = lambda step: None
    seen: list[int] = field(default_factory=list)
    output: io.StringIO = field(default_factory=io.StringIO)
    classes: tuple[str, ...] = ("a", "b")

    def __post_init__(self) -> None:
        torch.manual_seed(0)
        module = nn.Linear(4, 4)
        self.group = Trained("tokenizer", module, torch.optim.AdamW(module.parameters(), 1e-2, fused=True), 1.0, 0.9)

    def batches(self, step: int) -> Batch:
        self.seen.append(step)
        self.at(step)
        return Batch(torch.full((2, 3, 2, 2), step / 10), torch.zeros(2, dtype=torch.int64), {})

    def step(self, batch: Batch) -> Step:
        noise = torch.randn(2, 4)  # as dropout is
        loss = (self.group(noise + batch.x[:, 0, 0, :1]) - 1).square().mean()
        terms = {"ntp": loss.detach()} | update(loss, self.group)
        return Step(terms, torch.ones(4))

    def fit(self, title: str = "run", watch: Any = None) -> None:
        console = Console(file=self.output, width=100)
        group = (self.group,)
        loop.fit(self.config, self.run, group, self.step, self.batches, self.classes, CPU, title, console, watch)

    def tensors(self) -> dict[str, torch.Tensor]:
        return dict(state.load(self.run).tensors)

    def lines(self) -> list[dict[str, float]]:
        timed = log.read(self.run / log.NAME)
        return [{k: v for k, v in line.items() if k not in TIMES} for line in timed]


@pytest.fixture
def rig(tiny: Config, tmp_path: Path) -> Callable[..., Rig]:
    def make(name: str = "run", at: Callable[[int], object] = lambda step: None, **changes: object) -> Rig:
        run = tmp_path / name
        run.mkdir(exist_ok=True)
        return Rig(replace(tiny, **{"steps": 10, "log_every": 4, "save_every": 100, **changes}), run, at)

    return make


def send(number: signal.Signals, at: int, times: int = 1) -> Callable[[int], None]:
    def maybe(step: int) -> None:
        for _ in range(times if step == at else 0):
            os.kill(os.getpid(), number)

    return maybe


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_steps_lines_and_checkpoints(rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[int] = []
    save = Keeper.save

    def noted(self: Keeper, groups: object, step: int, *rest: object) -> None:
        saved.append(step)
        save(self, groups, step, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Keeper, "save", noted)
    r = rig(save_every=3)
    r.fit()
    assert r.seen == list(range(10))
    assert [line["step"] for line in r.lines()] == [4, 8, 10]
    assert saved == [3, 6, 9, 10]
    assert "NTP" in r.output.getvalue()
    r.fit()  # finished: nothing more to do
    assert len(r.seen) == 10
    assert saved == [3, 6, 9, 10]
    assert [line["step"] for line in r.lines()] == [4, 8, 10]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0), (signal.SIGUSR1, 0)])
@pytest.mark.parametrize("at", [0, 3, 6])
def test_a_signal_saves_and_stops_and_the_same_call_goes_on(
    rig: Callable[..., Rig], number: signal.Signals, code: int, at: int
) -> None:
    whole, stopped = rig("whole"), rig("stopped", send(number, at))
    whole.fit()
    before = [signal.getsignal(number) for number in SIGNALS]
    with pytest.raises(Interrupted, match=f"step {at + 1} of 10, saved in .*{state.NAME}; the same command") as told:
        stopped.fit()
    assert told.value.code == code
    assert [signal.getsignal(number) for number in SIGNALS] == before
    assert state.load(stopped.run).step == at + 1
    again = rig("stopped")
    again.fit()
    assert again.seen == list(range(at + 1, 10))
    assert same(again.tensors(), whole.tensors())
    assert again.lines() == whole.lines()


class Measuring:
    """As `Watching`, every 4 steps, with a signal while it measures at those of `signals`."""

    def __init__(self, *signals: int):
        self.signals, self.steps = list(signals), list[int]()

    def begin(self, step: int) -> None:
        self.steps = [each for each in self.steps if each <= step]

    def measured(self, step: int) -> bool:
        return step % 4 != 0 or step in self.steps

    def draw(self, tokenizer: Any, generator: Any, step: int) -> dict[str, Any]:
        return {}

    def measure(self, tokenizer: Any, generator: Any, step: int, shown: Any = None) -> dict[str, float]:
        if step in self.signals:
            self.signals.remove(step)
            os.kill(os.getpid(), signal.SIGTERM)
        self.steps.append(step)
        return {}


def test_a_signal_while_it_measures_loses_no_evaluation(rig: Callable[..., Rig]) -> None:
    """Nor one while that is made up for; the steps between are made once."""
    watch = Measuring(4, 4, 8)
    changes = {"watch": replace(rig().config.watch, evaluate_every=4, sample_every=0)}
    for step in (4, 4, 8):
        stopped = rig(**changes)
        with pytest.raises(Interrupted, match=f"step {step} of 10"):
            stopped.fit(watch=watch)
        assert state.load(stopped.run).step == step
        assert step not in watch.steps
    again = rig(**changes)
    again.fit(watch=watch)
    assert watch.steps == [4, 8]
    assert again.seen == [8, 9]


def test_a_signal_in_the_last_step_is_an_ordinary_end(rig: Callable[..., Rig]) -> None:
    r = rig(at=send(signal.SIGINT, 9))
    r.fit()
    assert state.load(r.run).step == 10


def test_a_second_signal_stops_at_once(rig: Callable[..., Rig]) -> None:
    before = signal.getsignal(signal.SIGINT)  # ignored, where a shell started this in the background
    r = rig(at=send(signal.SIGINT, 3, times=2))
    with pytest.raises(KeyboardInterrupt) as stopped:
        r.fit()
    assert not isinstance(stopped.value, Interrupted)
    assert not (r.run / state.NAME).exists()
    assert signal.getsignal(signal.SIGINT) is before


def test_killed_between_checkpoints(rig: Callable[..., Rig]) -> None:
    """As SIGKILL leaves it: the log is ahead of the checkpoint."""

    class Killed(BaseException):
        pass

    def kill(step: int) -> None:
        if step == 9:
            raise Killed

    whole, killed = rig("whole", save_every=5), rig("killed", kill, save_every=5)
    whole.fit()
    with pytest.raises(Killed):
        killed.fit()
    assert [line["step"] for line in killed.lines()] == [4, 8]
    again = rig("killed", save_every=5)
    again.fit()
    assert again.seen == [5, 6, 7, 8, 9]
    assert same(again.tensors(), whole.tensors())
    assert again.lines() == whole.lines()


def test_more_steps_go_on_from_a_finished_run(rig: Callable[..., Rig]) -> None:
    whole = rig("whole")
    whole.fit()
    rig("longer", steps=8).fit()
    longer = rig("longer", steps=10)
    longer.fit()
    assert longer.seen == [8, 9]
    assert same(longer.tensors(), whole.tensors())
    assert longer.lines() == whole.lines()


def test_what_came_twice_from_a_launcher_is_one_request(rig: Callable[..., Rig]) -> None:
    """torchrun passes SIGTERM on to processes that Slurm has sent it to already."""
    r = rig(at=send(signal.SIGTERM, 3, times=2))
    with pytest.raises(Interrupted, match="step 4 of 10"):
        r.fit()


def spoiled(r: Rig, steps: range) -> Callable[[int], Batch]:
    """Batches of which those of `steps` hold NaN."""

    make = r.batches

    def batches(step: int) -> Batch:
        batch = make(step)
        return replace(batch, x=batch.x + torch.nan) if step in steps else batch

    return batches


def test_updates_without_a_finite_gradient_are_left_out_and_counted(rig: Callable[..., Rig]) -> None:
    whole, r = rig("whole"), rig("spoiled")
    whole.fit()
    weights = []

    def noted(batch: Batch) -> Step:
        weights.append(r.group.module.weight.detach().clone())
        return whole_step(batch)

    whole_step, r.step = r.step, noted  # type: ignore[method-assign]
    r.batches = spoiled(r, range(4, 7))  # type: ignore[method-assign]
    r.fit()
    assert torch.equal(weights[4], weights[7])
    assert not torch.equal(weights[3], weights[4])
    assert not torch.equal(weights[7], weights[8])
    lines = r.lines()
    assert [line["skipped_tokenizer"] for line in lines] == [0, 3, 0]
    assert lines[0] == whole.lines()[0]
    assert all(math.isfinite(value) for line in lines for value in line.values())  # the mean is over the fourth step
    assert state.load(r.run).step == 10


@pytest.mark.parametrize("save_every", [1, 100])
def test_a_diverged_run_stops_with_a_diagnosis_and_goes_on_from_its_last_checkpoint(
    rig: Callable[..., Rig], save_every: int
) -> None:
    rig(steps=4).fit()
    guards = Guards(skip_limit=3)
    r = rig(save_every=save_every, guards=guards, steps=20)
    make = r.batches
    r.batches = spoiled(r, range(6, 20))  # type: ignore[method-assign]
    with pytest.raises(Diverged, match=r"diverged: .*from step 6 on .*; the batch itself holds NaN .*, in x; ") as e:
        r.fit()
    assert "\n" not in str(e.value)
    saved = next((r.run / diagnosis.FOLDER).iterdir())
    batch = diagnosis.load_batch(saved)
    assert isinstance(batch, Batch)
    assert batch.x.isnan().all()
    assert max(r.seen) < 13  # the line that says so is of step 12
    assert state.load(r.run).step == (11 if save_every == 1 else 4)
    r.batches = make  # type: ignore[method-assign]  # the images were mended
    r.fit()
    assert state.load(r.run).step == 20


def test_skips_in_a_row_are_counted_on_over_a_restart(rig: Callable[..., Rig]) -> None:
    guards = Guards(skip_limit=5)
    r = rig(at=send(signal.SIGTERM, 4), guards=guards, steps=20)
    r.batches = spoiled(r, range(2, 20))  # type: ignore[method-assign]
    with pytest.raises(Interrupted):
        r.fit()
    again = rig(guards=guards, steps=20)
    again.batches = spoiled(again, range(2, 20))  # type: ignore[method-assign]
    with pytest.raises(Diverged):
        again.fit()
    assert max(again.seen) == 7  # 2, ..., 6 are five in a row, seen at the line of step 8


def test_a_collapse_is_told_once_and_may_stop_the_run(rig: Callable[..., Rig]) -> None:
    K = 16

    def collapsing(r: Rig) -> None:
        step = r.step

        def fewer(batch: Batch) -> Step:
            used = torch.arange(K) < (K if len(r.seen) <= 8 else 4)
            return replace(step(batch), counts=used * 1000.0)

        r.step = fewer  # type: ignore[method-assign]

    r = rig(batch=100, steps=20)
    collapsing(r)
    r.fit()
    told = lines.every(r.run / loop.HEALTH)
    assert [line["step"] for line in told] == [12]
    assert " ".join(r.output.getvalue().split()).count("the codebook is collapsing: at step 12") == 1
    stopped = rig("stopped", batch=100, steps=20, guards=Guards(collapse_stop=0.5))
    collapsing(stopped)
    with pytest.raises(Collapsed, match=r"below guards\.collapse_stop"):
        stopped.fit()
    assert max(stopped.seen) == 11


def test_accumulated_parts_are_one_step(rig: Callable[..., Rig]) -> None:
    """Of a step without batch statistics; what is random for an image does not depend on the parts."""

    def drawn(r: Rig) -> None:
        def batches(step: int) -> Batch:
            x = torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(step))
            return Batch(x, torch.arange(4), {"f": x.flatten(2)})

        def step(batch: Batch) -> Step:
            assert torch.equal(batch.f["f"].view(batch.x.shape), batch.x)
            noise = noise_of(len(batch.c), torch.device("cpu"))
            loss = (r.group(batch.x[:, 0].flatten(1)).square().mean(1) * noise).mean()
            assert isinstance(batch.c, torch.Tensor)
            return Step({"ntp": loss.detach()} | update(loss, r.group), torch.bincount(batch.c, minlength=4).float())

        r.batches, r.step = batches, step  # type: ignore[method-assign]

    runs = {parts: rig(f"of {parts}", engine=Engine(accumulate=parts)) for parts in (1, 2, 4)}
    for r in runs.values():
        drawn(r)
        r.fit()
    for parts in (2, 4):
        for a, b in zip(runs[parts].lines(), runs[1].lines(), strict=True):
            assert a == pytest.approx(b, rel=1e-5)
        for key, t in runs[1].tensors().items():
            torch.testing.assert_close(runs[parts].tensors()[key], t, rtol=1e-4, atol=1e-6)


def test_other_classes_than_the_checkpoints(rig: Callable[..., Rig]) -> None:
    rig(steps=4).fit()
    r = rig()
    r.classes = ("a", "c")
    with pytest.raises(state.CheckpointError, match=r"classes of the images have changed .*1 gone \(b\); 1 new \(c\)"):
        r.fit()
    assert state.load(r.run).step == 4


@pytest.mark.parametrize(("precision", "dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_precision(rig: Callable[..., Rig], precision: str, dtype: torch.dtype) -> None:
    seen: list[torch.dtype] = []
    r = rig(precision=precision, steps=2)
    step = r.step

    def noted(batch: Batch) -> Step:
        seen.append(r.group(torch.ones(1, 4)).dtype)
        return step(batch)

    r.step = noted  # type: ignore[method-assign]
    r.fit()
    assert seen == [dtype, dtype]
    assert all(t.dtype != torch.bfloat16 for t in r.tensors().values())


def test_each_step_has_its_own_randomness() -> None:
    def drawn(*numbers: int) -> float:
        loop.seed(*numbers)
        return torch.rand(()).item()

    values = [drawn(seed, step) for seed in range(3) for step in range(100)]
    assert len(set(values)) == len(values)
    assert drawn(2, 99) == values[-1]


def test_a_name_that_looks_like_markup(rig: Callable[..., Rig]) -> None:
    r = rig(steps=2)
    r.fit(title="[/red] run")
    assert "[/red] run" in r.output.getvalue()
