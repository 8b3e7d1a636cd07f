"""The benchmarks run, at small sizes: both sides agree, and a table and JSON come out."""

import json
import sys

import pytest

from bench import __main__ as bench
from bench import readout


@pytest.mark.parametrize("arguments", [[], ["--json"]])
def test_bench(arguments, monkeypatch, capsys):
    monkeypatch.setattr(readout, "N", 64)
    monkeypatch.setattr(readout, "K", 128)
    monkeypatch.setattr(readout, "D", 16)
    monkeypatch.setattr(readout, "peak", lambda side, device: 1.0 if side == "ours" else 4.0)
    monkeypatch.setattr(sys, "argv", ["bench", "--device", "cpu", *arguments])
    bench.main()
    said = capsys.readouterr().out
    if arguments:
        rows = [json.loads(line) for line in said.splitlines()]
        assert [row["unit"] for row in rows] == ["s", "MiB"]
        assert rows[1]["ratio"] == 0.25
    else:
        assert "read-outs" in said


def test_peak_memory_is_measured_in_a_process_of_its_own():
    assert readout.resident_peak() > 10_000  # KiB; this interpreter with torch
