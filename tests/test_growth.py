"""How costs grow: the exponent of a law is found exactly, and what is measured is told beside its law."""

import json
import sys

import pytest

from bench import costs, growth
from gear.config import SIZES


@pytest.mark.parametrize("power", [-1.0, 0.0, 0.5, 1.0, 2.0])
def test_the_exponent_of_a_power_is_exact(power):
    assert growth.exponent([(size, 3.0 * size**power) for size in (3.0, 5.0, 40.0, 1e6)]) == pytest.approx(power)


def test_what_does_not_grow_lowers_the_exponent_as_it_does_that_of_its_law():
    """1 + N over a range where both count: between 0 and 1; a factor changes nothing."""
    found = [growth.exponent([(size, factor * (1 + size)) for size in (0.5, 1.0, 2.0)]) for factor in (1.0, 7.0)]
    assert found[0] == pytest.approx(found[1])
    assert 0.4 < found[0] < 0.6


@pytest.mark.parametrize("points", [[(1.0, 2.0)], [(1.0, 2.0), (1.0, 3.0)], [(1.0, 0.0), (2.0, 1.0)]])
def test_an_exponent_needs_two_sizes_and_positive_costs(points):
    with pytest.raises(ValueError, match="two sizes or more, and positive costs"):
        growth.exponent(points)


def test_the_laws_of_the_usual_table():
    """Memory of ours hardly grows with K, that of the dense way as K; the generator's weights are those of Table 15."""
    table = costs.usual()
    laws = {(c.path, c.size): growth.exponent([(s, c.memory.of(s)) for s in c.sizes]) for c in table if c.memory}
    assert laws["read-outs", "K"] < 0.1
    assert laws["read-outs", "N"] == pytest.approx(1, abs=0.02)
    assert laws["read-outs, dense", "K"] == pytest.approx(1)
    assert costs.multiplied(SIZES["B"], 16384) == pytest.approx(110.888448 - (16384 + 1001) * 768 / 1e6, rel=1e-3)


def test_the_quick_table(monkeypatch, capsys, tmp_path):
    """Every cost with its law and exponent, memory in processes of their own; and a figure."""
    monkeypatch.setattr(sys, "argv", ["growth", "--quick", "--json", "--out", str(tmp_path / "growth.png")])
    growth.main()
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["unit"] for one in found] == ["s", "MiB", "s", "s", "s"]
    for one in found:
        assert one["law"]
        assert one["exponent"] == pytest.approx(growth.exponent(one["points"]))
        assert one["expected"] == pytest.approx(1, abs=0.05)
    assert (tmp_path / "growth.png").read_bytes().startswith(b"\x89PNG")
    growth.show([growth.Grown(**one) for one in found], "here")
    said = capsys.readouterr().out
    assert "its exponent" in said
    assert "N K (d + D)" in said


def test_a_figure_needs_a_folder(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys, "argv", ["growth", "--out", str(tmp_path / "none" / "growth.png")])
    with pytest.raises(SystemExit):
        growth.main()
    assert "needs a folder that is there" in capsys.readouterr().err
