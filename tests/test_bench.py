"""The benchmarks run, at small sizes: both sides agree, and a table and JSON come out."""

import json
import sys

import pytest

from bench import __main__ as bench
from bench import decoding, generator, readout, tokenizer
from gear import config as cfg


@pytest.mark.parametrize("arguments", [[], ["--json"]])
def test_bench(arguments, monkeypatch, capsys):
    monkeypatch.setattr(readout, "N", 64)
    monkeypatch.setattr(readout, "K", 128)
    monkeypatch.setattr(readout, "D", 16)
    monkeypatch.setattr(readout, "peak", lambda side, device: 1.0 if side == "ours" else 4.0)
    monkeypatch.setattr(generator, "CONFIG", cfg.Generator(layers=2, heads=2, width=32, tap=1))
    monkeypatch.setattr(generator, "K", 50)
    monkeypatch.setattr(generator, "SIDE", 3)
    monkeypatch.setattr(generator, "peak", lambda side, device: 2.0)
    monkeypatch.setattr(tokenizer, "QUANTIZER", cfg.VQ(64, 8))
    monkeypatch.setattr(tokenizer, "BACKBONE", cfg.VQGAN(channels=32, multipliers=(1, 2), latent=32))
    monkeypatch.setattr(tokenizer, "SIZE", 16)
    monkeypatch.setattr(decoding, "SIZE", (50, 41))
    monkeypatch.setattr(decoding, "R", 32)
    monkeypatch.setattr(decoding, "IMAGES", 2)
    monkeypatch.setattr(sys, "argv", ["bench", "--device", "cpu", *arguments])
    bench.main()
    said = capsys.readouterr().out
    if arguments:
        rows = [json.loads(line) for line in said.splitlines()]
        assert [row["unit"] for row in rows] == ["s", "MiB", "s", "s", "MiB", "s", "s", "ms", "ms"]
        assert rows[1]["ratio"] == 0.25
    else:
        assert "read-outs" in said


def test_peak_memory_is_measured_in_a_process_of_its_own():
    assert readout.resident_peak() > 10_000  # KiB; this interpreter with torch
