"""The benchmarks run, at small sizes: both sides agree, and a table and JSON come out."""

import json
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from functools import partial

import pytest
import torch

from bench import __main__ as bench
from bench import (
    ceilings,
    decoding,
    engine,
    evaluation,
    floors,
    frozen,
    generator,
    inception,
    joint,
    memory,
    probes,
    readout,
    step,
    stored,
    table,
    text,
    tokenizer,
)
from bench.table import Row, show
from gear import config as cfg


@pytest.fixture(autouse=True)
def rough_ceilings(monkeypatch) -> Iterator[None]:
    """In no time."""
    monkeypatch.setattr(ceilings, "SIDE", {"cpu": 256})
    monkeypatch.setattr(ceilings, "COPIED", {"cpu": 1 << 20})
    monkeypatch.setattr(ceilings, "REPEATED", {"cpu": 1})
    ceilings.ceilings.cache_clear()
    yield
    ceilings.ceilings.cache_clear()


@pytest.mark.parametrize("arguments", [[], ["--json"]])
def test_bench(arguments, tiny, monkeypatch, capsys):
    monkeypatch.setattr(readout, "N", 64)
    monkeypatch.setattr(readout, "K", 128)
    monkeypatch.setattr(readout, "D", 16)
    monkeypatch.setattr(readout, "peak", lambda side, device: 1.0 if side == "ours" else 4.0)
    monkeypatch.setattr(generator, "CONFIG", cfg.Generator(layers=2, heads=2, width=32, tap=1))
    monkeypatch.setattr(generator, "K", 50)
    monkeypatch.setattr(generator, "SIDE", 3)
    monkeypatch.setattr(generator, "peak", lambda side, device: 2.0)
    monkeypatch.setattr(text, "SIZES", {"S": cfg.Generator(layers=2, heads=2, width=32, tap=1)})
    for name, size in {"TOKENS": 6, "WIDTH": 8, "SIDE": 3, "SHORT": 2, "K": 50, "BATCH": 2, "IMAGES": 2}.items():
        monkeypatch.setattr(text, name, size)
    monkeypatch.setattr(text, "peak", lambda masked: 2.0)
    monkeypatch.setattr(tokenizer, "QUANTIZER", cfg.VQ(64, 8))
    monkeypatch.setattr(tokenizer, "BACKBONE", cfg.VQGAN(channels=32, multipliers=(1, 2), latent=32))
    monkeypatch.setattr(tokenizer, "SIZE", 16)
    measured = joint.Measured(2.0**20, 1.0, 0.0, 0.0, 1.0, [])
    monkeypatch.setattr(joint, "SMALL", joint.Case("demo", 64, 2, "float32", "cpu"))
    monkeypatch.setattr(joint, "in_a_process_of_its_own", lambda case, steps: measured)
    monkeypatch.setattr(decoding, "SIZE", (50, 41))
    monkeypatch.setattr(decoding, "R", 32)
    monkeypatch.setattr(decoding, "IMAGES", 2)
    for name in ("IMAGES", "TOKENS", "CHANNELS", "BATCH"):
        monkeypatch.setattr(stored, name, 3)
    monkeypatch.setattr(stored, "STEP", 0.0)
    monkeypatch.setattr(frozen, "CONFIG", replace(tiny, stage=cfg.Frozen()))
    monkeypatch.setattr(frozen, "random_targets", lambda folder: tiny.targets)
    for name, size in {"BATCH": 2, "WORKERS": 0, "ROUNDS": 1}.items():
        monkeypatch.setattr(frozen, name, size)
    monkeypatch.setattr(engine, "CONFIG", tiny)
    monkeypatch.setattr(engine, "ROUNDS", 2)
    monkeypatch.setattr(inception, "IMAGES", 2)
    monkeypatch.setattr(inception, "BATCH", 1)
    monkeypatch.setattr(inception, "SIDE", 16)
    for name, size in {"D": 8, "N": 60, "SUBSET": 20, "IMAGES": 2, "SIDE": 16}.items():
        monkeypatch.setattr(evaluation, name, size)
    monkeypatch.setattr(evaluation, "peak", lambda side: 3.0)
    for name, size in {"IMAGES": 50, "SIDE": 8, "CHANNELS": 24, "TARGET": 12, "PATCHES": 300, "BATCH": 16}.items():
        monkeypatch.setattr(probes, name, size)
    monkeypatch.setattr(step, "K", 64)
    monkeypatch.setattr(
        step, "SIZES", {"tiny": step.Size(joint.Case("demo", 64, 2, "float32", "cpu"), 1.0, "arithmetic", rounds=1)}
    )
    monkeypatch.setattr(step, "served", lambda *of: nullcontext(partial(next, step.steps(*of))))  # test_plain_step
    monkeypatch.delitem(bench.MODULES, "sampling", raising=False)  # test_bench_sampling
    monkeypatch.setattr(sys, "argv", ["bench", "--device", "cpu", "--only", ",".join(bench.MODULES), *arguments])
    bench.main()
    said, progress = capsys.readouterr()
    assert all(f"{i} of {len(bench.MODULES)}: {name}" in progress for i, name in enumerate(bench.MODULES, 1))
    units = ["s", "MiB", "s", "s", "MiB"]  # the readout, the generator
    units += ["s", "s", "s", "MiB"]  # text
    units += ["s", "s", "MiB", "ms", "ms", "ms", "ms/image", "ms", "ms", "ms", "ms", "s"]  # up to engine
    units += ["s", "s", "s", "MiB", "s", "s", "s", "s"]  # the Inception, statistics of evaluations, probes
    units += ["s", "MiB"]  # the joint step
    if arguments:
        rows = [json.loads(line) for line in said.splitlines()]
        assert [row["unit"] for row in rows] == units
        assert all(row["ours"] > 0 for row in rows)
        assert rows[1]["ratio"] == 0.25
        assert all(row["met"] == (row["ratio"] <= row["target"]) for row in rows)
        assert {row["module"] for row in rows} == set(bench.MODULES)
        assert all(row["floor"] is None or row["floor"] > 0 for row in rows)
    else:
        assert "read-outs" in said
        assert f"of {len(units)} targets met" in said


def test_what_was_measured_is_shown_even_if_the_rest_fails(monkeypatch, capsys):
    def fails() -> list[Row]:
        raise RuntimeError("no room")

    monkeypatch.setattr(stored, "run", lambda: [Row("late", "s", 3.0, 2.0, 1.0, 0.0, "bytes", 0.5)])
    monkeypatch.setattr(decoding, "run", fails)
    monkeypatch.setattr(sys, "argv", ["bench", "--device", "cpu", "--only", "stored,decoding"])
    with pytest.raises(SystemExit, match="failed: decoding"):
        bench.main()
    said, progress = capsys.readouterr()
    assert "late" in said
    assert "1.50 !" in said
    assert "0 of 1 targets met" in said
    assert "no room" in progress
    monkeypatch.setattr(sys, "argv", ["bench", "--only", "nothing"])
    with pytest.raises(SystemExit):
        bench.main()
    assert "choose from readout, " in capsys.readouterr().err


def test_all_of_it_takes_ten_minutes():
    assert sum(bench.MODULES[name].seconds for name in bench.USUAL) <= 600


@pytest.mark.parametrize("module", [bench, ceilings, engine, floors, joint, text])
def test_a_device_that_is_not_there_is_one_sentence(module, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for device, said in (("cuda", "none here: choose cpu."), ("gpu", "choose from cpu, cuda.")):
        monkeypatch.setattr(sys, "argv", ["bench", "--device", device])
        with pytest.raises(SystemExit):
            module.main()
        assert said in capsys.readouterr().err


def test_a_size_that_no_run_can_have_is_one_sentence(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["joint", "--resolution", "100"])
    with pytest.raises(SystemExit):
        joint.main()
    assert "data.resolution must be a multiple of 16" in capsys.readouterr().err


def test_read_outs_that_differ_are_not_timed(monkeypatch):
    """Nor codewords or a loss that do where gradients are the same."""
    for name, size in {"N": 64, "K": 128, "D": 16}.items():
        monkeypatch.setattr(readout, name, size)
    i = readout.inputs("cpu")
    readout.same(i)
    for wrong in (lambda q, loss: (q.roll(1), loss), lambda q, loss: (q, loss + 1)):
        monkeypatch.setitem(readout.SIDES, "ours", lambda i, wrong=wrong: wrong(*readout.ours(i)))
        with pytest.raises(AssertionError, match="not close"):
            readout.same(i)


@pytest.mark.parametrize("columns", [80, 120])
def test_a_table_fits_its_terminal(columns, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(columns))
    long = Row("a checkpoint and 12 steps", "MiB", 12345.0, 23456.0, 0.05, 0.1, "the release of the last batch", 0.01)
    show(
        [long, replace(long, path="short", target=1.0), replace(long, path="once", target=1 / 1.5, spread=None)],
        "AMD EPYC, 2 threads, torch 2.13.0",
    )
    said = capsys.readouterr().out
    assert all(len(line.rstrip()) <= columns for line in said.splitlines())
    assert ("spread" in said) == (columns == 120)
    assert said.count("10%") == 2 * (columns == 120)  # what was measured once has none
    for number in ("12,345", "23,456", "0.53 !", "<= 0.05", "<= 0.67", "0.01"):
        assert number in said
    assert said.count("!") == 2  # beside the ratio, and what it means
    assert table.processor()


def test_peak_memory_is_measured_in_a_process_of_its_own():
    assert memory.resident_peak() > 10_000  # KiB; this interpreter with torch


def test_a_step_is_measured_beside_its_plan(monkeypatch):
    """In a process of its own, with the operators that took longest; the plan's bytes are those of the step. The rate
    of a product is one that no CPU has: in a busy moment it would be below that of the step."""
    apart = joint.in_a_process_of_its_own
    monkeypatch.setattr(joint, "in_a_process_of_its_own", lambda *given: replace(apart(*given), gemm32=1e15))
    said = joint.report(joint.Case("demo-warmup", 64, 128, "float32", "cpu"), kernels=3)
    assert 0.85 < said["planned_peak_GiB"] / said["peak_GiB"] < 1.15
    assert len(said["kernels"]) == 3
    assert 0 < said["mfu_of_gemm"] < 1
    assert said["mfu_of_gemm"] == pytest.approx(
        said["TFLOP_per_s"] / said["gemm32_TFLOP_per_s"]
    )  # all of it is float32
    assert said["images_per_s"] > 0


def test_processes_take_the_same_steps(tiny, monkeypatch):
    """Both sides of each row would fail for losses that differ; one rank with DDP is another path than without."""
    config = replace(tiny, batch=4)
    monkeypatch.setattr(engine, "ROUNDS", 1)
    monkeypatch.setattr(engine, "RUNS", 1)
    assert engine.of_one_rank(engine.case(config, "cpu")).ratio > 0
    assert engine.of_processes(config).ratio > 0
    with pytest.raises(AssertionError, match="do not do the same"):
        engine.same(1.0, 1.1)
