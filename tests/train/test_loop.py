"""The loop with a step made of one matrix: what it logs and saves, how it stops, and how it goes on."""

import io
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import nn

from gear.config import Config
from gear.step import Batch, Step
from gear.train import log, loop, state
from gear.train.loop import Diverged, Interrupted
from gear.update import Trained, update

CPU = torch.device("cpu")


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

    def fit(self, title: str = "run") -> None:
        console = Console(file=self.output, width=100)
        loop.fit(self.config, self.run, (self.group,), self.step, self.batches, self.classes, CPU, title, console)

    def tensors(self) -> dict[str, torch.Tensor]:
        return dict(state.load(self.run).tensors)

    def lines(self) -> list[dict[str, float]]:
        timed = log.read(self.run / log.NAME)
        return [{k: v for k, v in line.items() if k not in ("seconds", "images_per_s")} for line in timed]


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
    save = state.save

    def noted(path: Path, groups: object, step: int, *rest: object) -> None:
        saved.append(step)
        save(path, groups, step, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(state, "save", noted)
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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("at", [0, 3, 6])
def test_a_signal_saves_and_stops_and_the_same_call_goes_on(
    rig: Callable[..., Rig], number: signal.Signals, at: int
) -> None:
    whole, stopped = rig("whole"), rig("stopped", send(number, at))
    whole.fit()
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted, match=f"step {at + 1} of 10, saved in .*{state.NAME}; the same command goes on"):
        stopped.fit()
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    assert state.load(stopped.run).step == at + 1
    again = rig("stopped")
    again.fit()
    assert again.seen == list(range(at + 1, 10))
    assert same(again.tensors(), whole.tensors())
    assert again.lines() == whole.lines()


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


@pytest.mark.parametrize("save_every", [1, 100])
def test_a_diverged_run_stops_and_keeps_its_last_checkpoint(rig: Callable[..., Rig], save_every: int) -> None:
    rig(steps=4).fit()

    def spoil(step: int) -> None:
        if step == 6:
            r.group.module.weight.data.fill_(torch.nan)

    r = rig(at=spoil, save_every=save_every)
    with pytest.raises((Diverged, state.CheckpointError), match=r"diverged.*learning rate"):
        r.fit()
    assert state.load(r.run).step == (6 if save_every == 1 else 4)
    assert max(r.seen) < 8  # the line that says so is of step 8


def test_other_classes_than_the_checkpoints(rig: Callable[..., Rig]) -> None:
    rig(steps=4).fit()
    r = rig()
    r.classes = ("a", "c")
    with pytest.raises(state.CheckpointError, match=r"classes of the images have changed .*'b'"):
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
