"""Updates left out are counted exactly and without a host sync; the collapse alarm on the usage of real runs."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gear import recipes
from gear.config import Config, Gear, Guards, Naive, Warmup, grid
from gear.train.health import DIED, FEW, Alarm, Collapse, SkipReport, Skips
from gear.usage import count, usage

CPU = torch.device("cpu")

# ---------------------------------------------------------------------------------------------- updates left out


def terms(tokenizer: float, generator: float = 0.0) -> dict[str, Tensor]:
    flags = {"skipped_tokenizer": torch.tensor(tokenizer), "skipped_generator": torch.tensor(generator)}
    return {"ntp": torch.tensor(torch.nan)} | flags  # a loss that is not finite counts nothing by itself


def counted_by_hand(skipped: list[bool], since: int) -> SkipReport:
    """Of all steps; `longest` of those after the first `since`, which were reported."""
    runs = [0]
    for flag in skipped:
        runs.append(runs[-1] + 1 if flag else 0)
    last = max((i for i, flag in enumerate(skipped) if flag), default=None)
    return SkipReport(sum(skipped), runs[-1], max(runs[since + 1 :], default=0), last)


@settings(deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(["", "t", "g", "tg"]), max_size=40), st.integers(1, 7), st.integers(0, 40))
def test_counts(steps: list[str], every: int, stopped: int) -> None:
    """Reports every few steps, and a run that was saved and went on after `stopped` steps."""
    skips, read = Skips(CPU), 0
    for i, groups in enumerate(steps):
        skips.add(i, terms("t" in groups, "g" in groups))
        if i == stopped:
            skips = Skips(CPU, skips.pending())
        if (i + 1) % every == 0:
            assert skips.read() == counted_by_hand([bool(g) for g in steps[: i + 1]], read)
            read = i + 1
    assert skips.read() == counted_by_hand([bool(g) for g in steps], read)


def test_a_row_that_lasts_beyond_a_report_is_counted_whole() -> None:
    skips = Skips(CPU)
    for step in range(3):
        skips.add(step, terms(1))
    assert skips.read() == SkipReport(total=3, streak=3, longest=3, last_step=2)
    assert skips.read().longest == 0
    skips.add(3, terms(1))
    skips.add(4, terms(0))
    assert skips.read() == SkipReport(total=4, streak=0, longest=4, last_step=3)


def test_steps_that_say_nothing_of_updates() -> None:
    skips = Skips(CPU)
    skips.add(0, terms(1))
    skips.add(1, {"ntp": torch.zeros(())})
    assert skips.read() == SkipReport(total=1, streak=0, longest=1, last_step=0)


def test_what_is_pending_is_a_copy_that_a_checkpoint_can_hold() -> None:
    skips = Skips(CPU)
    skips.add(7, terms(1))
    pending = skips.pending()
    skips.add(8, terms(1))
    assert {name: t.item() for name, t in pending.items()} == {"total": 1, "streak": 1, "longest": 1, "last_step": 7}
    assert all(t.dtype == torch.int64 for t in pending.values())


def test_adding_does_not_wait_for_the_device() -> None:
    """Meta tensors have no values: whatever asks for one fails."""
    skips = Skips(torch.device("meta"))
    for step in range(2):
        skips.add(step, {name: t.to("meta") for name, t in terms(1).items()})
    assert all(t.device.type == "meta" for t in skips.pending().values())
    with pytest.raises((NotImplementedError, RuntimeError)):
        skips.read()


# ---------------------------------------------------------------------------------------------- collapse, real runs

USAGE = Path(__file__).parent / "usage"
# Of one run each, seed 0, on one core: 250 steps of naive and gear, 300 of warmup, 200 of lfq and ibq, from scratch.
RUNS: dict[str, Callable[[], Config]] = {
    "naive": recipes.demo_naive,
    "gear": recipes.demo,
    "warmup": recipes.demo_warmup,
    "lfq": recipes.demo_lfq,
    "ibq": recipes.demo_ibq,
}


def logged(run: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (USAGE / f"{run}.jsonl").read_text().splitlines()]


def guarded(config: Config, **guards: float) -> Config:
    return replace(config, guards=replace(config.guards, **guards))


def alarms(config: Config, lines: list[dict[str, Any]]) -> list[Alarm]:
    collapse = Collapse(config)
    return [alarm for line in lines if (alarm := collapse.see(line))]


@pytest.mark.parametrize("run", ["gear", "warmup", "lfq", "ibq"])
def test_no_alarm_where_the_codebook_stays_in_use(run: str) -> None:
    lines = logged(run)
    assert len(lines) >= 10
    assert alarms(RUNS[run](), lines) == []
    assert alarms(guarded(RUNS[run](), collapse_warn=0.8), lines) == []  # with a margin


def test_the_naive_run_is_noticed_early_and_each_fall_told_once() -> None:
    size, dead = alarms(recipes.demo_naive(), logged("naive"))
    assert (size.kind, size.step, size.stop) == ("effective_size", 100, False)
    assert "is collapsing: at step 100" in size.message
    assert "as if 320 were used alike" in size.message
    assert "of K = 512, down from 500 at step 20" in size.message
    assert "0.64 of it and below guards.collapse_warn = 0.7" in size.message
    assert "This is the naive way" in size.message
    assert (dead.kind, dead.step) == ("dead_codes", 240)
    assert "23.8% of the K = 512 were not used once" in dead.message
    assert "up from 0.0% at step 20" in dead.message
    assert alarms(guarded(recipes.demo_naive(), collapse_warn=0.5), logged("naive"))[0].step == 220  # with a margin


def test_a_run_that_goes_on_says_the_rest() -> None:
    lines, config = logged("naive"), recipes.demo_naive()
    for at in range(len(lines) + 1):
        before, collapse = alarms(config, lines[:at]), Collapse(config, lines[:at])
        after = [alarm for line in lines[at:] if (alarm := collapse.see(line))]
        assert before + after == alarms(config, lines)


def test_a_stop_is_said_at_every_line() -> None:
    """The run is started again, and must not go on in silence."""
    config = guarded(recipes.demo_naive(), collapse_stop=0.4)
    collapse = Collapse(config, logged("naive")[:-1])
    alarm = collapse.see(logged("naive")[-1])
    assert alarm is not None
    assert alarm.stop
    assert "below guards.collapse_stop = 0.4" in alarm.message
    assert [a.step for a in alarms(config, logged("naive")) if a.stop] == [220, 240, 250]


def test_zero_is_never() -> None:
    assert alarms(guarded(recipes.demo_naive(), collapse_warn=0.0), logged("naive")) == []


# ---------------------------------------------------------------------------------------------- made-up lines

K, EVERY = 512, 20


def made(*sizes: float, dead: float = 0.0) -> list[dict[str, Any]]:
    named = [{"effective_size": size, "codebook_entropy": math.log(size), "dead_codes": dead} for size in sizes]
    return [{"step": EVERY * (i + 1)} | line for i, line in enumerate(named)]


def test_one_warning_for_each_fall() -> None:
    """Around the limit of 0.7 it is quiet; the next warning needs a way back to 0.85 first."""
    lines = made(100, 71, 69, 71, 69, 84, 69, 86, 71, 69, 30)
    assert [alarm.step for alarm in alarms(recipes.demo(), lines)] == [60, 200]


def test_it_is_compared_with_the_largest() -> None:
    config = recipes.demo()
    assert alarms(config, made(100, 71)) == []
    (alarm,) = alarms(config, made(100, 400, 300, 279))
    assert (alarm.step, alarm.kind) == (80, "effective_size")
    assert "down from 400 at step 40" in alarm.message
    assert alarms(config, made(10, 20, 40, 80, 160)) == []  # a codebook that comes into use


def test_dead_codewords_alone() -> None:
    """Rarely used ones die, which the effective size hardly shows. Compared with the fewest, as a codebook from scratch
    may begin with many."""
    rises = [0.2, 0.0, DIED - 0.01, DIED + 0.01, DIED - 0.01, DIED + 0.02, DIED / 2 - 0.01, DIED + 0.01]
    lines = [made(400)[0] | {"step": 20 * (i + 1), "dead_codes": 0.3 + rise} for i, rise in enumerate(rises)]
    found = alarms(recipes.demo(), lines)
    assert [(alarm.kind, alarm.step, alarm.stop) for alarm in found] == [
        ("dead_codes", 80, False),
        ("dead_codes", 160, False),
    ]
    assert "up from 30.0% at step 40" in found[0].message


def test_a_shorter_line_is_not_asked_for_dead_codewords() -> None:
    """Rare ones are missing in it by chance. After a line without any dead, the shortest such line is compared with."""
    config, line = recipes.demo(), {"effective_size": 400.0, "codebook_entropy": 6.0}
    long, short = {"dead_codes": 0.0}, {"dead_codes": DIED + 0.1}
    assert alarms(config, [{"step": 20} | line | long, {"step": 39} | line | short]) == []
    assert len(alarms(config, [{"step": 20} | line | long, {"step": 40} | line | short])) == 1
    assert (
        len(alarms(config, [{"step": 40} | line | long, {"step": 50} | line | long, {"step": 60} | line | short])) == 1
    )


@pytest.mark.parametrize(
    ("stage", "advice"),
    [
        (Gear(), "lower stage.lam"),
        (Gear(readout="straight_through"), "stage.readout soft"),
        (Naive(), "a recipe of GEAR"),
        (Warmup(), "tokenizer.loss.entropy"),
    ],
)
def test_the_advice(stage: Any, advice: str) -> None:
    (alarm,) = alarms(replace(recipes.demo(), stage=stage), made(400, 100))
    assert advice in alarm.message
    assert "look at the samples" in alarm.message
    assert "keep_every" in alarm.message
    assert "\n" not in alarm.message


# ---------------------------------------------------------------------------------------------- few tokens


@pytest.mark.parametrize("size", [16, 512, 4096])
def test_what_few_tokens_do_to_the_effective_size(size: int) -> None:
    """The derivation in `Collapse`, by simulation: codewords used alike, FEW tokens for each, and one for each."""

    def drawn(tokens: int) -> tuple[float, float]:
        u = [usage(count(torch.randint(size, (tokens,)), size)) for _ in range(20)]
        return sum(x.effective_size.item() for x in u) / 20 / size, sum(x.dead.item() for x in u) / 20

    share, dead = drawn(FEW * size)
    assert share == pytest.approx(math.exp(-1 / (2 * FEW)), abs=0.02)
    assert dead == pytest.approx(math.exp(-FEW), abs=0.01)
    assert share > 0.88
    assert drawn(size)[0] < Guards().collapse_warn  # would be an alarm


def test_lines_of_few_tokens_are_not_judged(tiny: Config) -> None:
    """96 tokens a line for 16 codewords, 48 a step: the last line of a run, of one step, is judged by nobody."""
    config = replace(tiny, batch=3, log_every=2)
    assert (config.batch * grid(config) ** 2, config.tokenizer.quantizer.codebook_size) == (48, 16)
    assert Collapse(config).fewest_steps == math.ceil(FEW * 16 / 48) == 2
    line = {"codebook_entropy": 0.0, "dead_codes": 0.0}
    whole, fallen = {"step": 2, "effective_size": 16.0} | line, {"effective_size": 5.0} | line
    assert alarms(config, [whole, {"step": 3} | fallen]) == []
    assert len(alarms(config, [whole, {"step": 4} | fallen])) == 1
    # nor is a line of few remembered, whose chance may be the other way
    assert alarms(config, [{"step": 1} | whole | {"step": 1}, {"step": 3} | fallen]) == []
    # and after a run was continued, the steps of its first line count from the last one in the log
    assert Collapse(config, [whole]).see({"step": 3} | fallen) is None
    assert Collapse(config, [whole]).see({"step": 4} | fallen) is not None


def test_a_chance_fall_alarms_nobody() -> None:
    """Real counts: lines of FEW tokens a codeword after one of very many."""
    config = replace(recipes.demo(), batch=5, log_every=8)  # 8 x 5 x 64 tokens, 5 for each of 512 codewords
    assert Collapse(config).fewest_steps == 8
    collapse = Collapse(config)
    for i, tokens in enumerate([200 * K] + [FEW * K] * 50):
        u = usage(count(torch.randint(K, (tokens,)), K))
        line = {"step": 8 * (i + 1), "effective_size": u.effective_size.item(), "dead_codes": u.dead.item()}
        assert collapse.see(line) is None
