"""How costs grow: the exponent of a law is found exactly, and what is measured is told beside its law."""

import json
import sys
from collections.abc import Callable

import pytest

from bench import costs, grown, growth
from gear.config import SIZES


@pytest.mark.parametrize("power", [-1.0, 0.0, 0.5, 1.0, 2.0])
def test_the_exponent_of_a_power_is_exact(power):
    assert grown.exponent([(size, 3.0 * size**power) for size in (3.0, 5.0, 40.0, 1e6)]) == pytest.approx(power)


def test_what_does_not_grow_lowers_the_exponent_as_it_does_that_of_its_law():
    """1 + N over a range where both count: between 0 and 1; a factor changes nothing."""
    found = [grown.exponent([(size, factor * (1 + size)) for size in (0.5, 1.0, 2.0)]) for factor in (1.0, 7.0)]
    assert found[0] == pytest.approx(found[1])
    assert 0.4 < found[0] < 0.6


@pytest.mark.parametrize("points", [[(1.0, 2.0)], [(1.0, 2.0), (1.0, 3.0)], [(1.0, 0.0), (2.0, 1.0)]])
def test_an_exponent_needs_two_sizes_and_positive_costs(points):
    with pytest.raises(ValueError, match="two sizes or more, and positive costs"):
        grown.exponent(points)


def test_the_laws_of_the_usual_table():
    """Memory of ours hardly grows with K, that of the dense way as K; the generator's weights are those of Table 15."""
    table = costs.usual()
    laws = {(c.path, c.size): grown.exponent([(s, c.memory.of(s)) for s in c.sizes]) for c in table if c.memory}
    assert laws["read-outs", "K"] < 0.1
    assert laws["read-outs", "N"] == pytest.approx(1, abs=0.02)
    assert laws["read-outs, dense", "K"] == pytest.approx(1)
    assert len(
        {(c.path, c.size, c.rest, u) for c in table for u in ("s", "MiB") if (c.time if u == "s" else c.memory)}
    ) == sum(
        (c.time is not None) + (c.memory is not None) for c in table
    )  # what a point is kept under is its cost's alone
    assert costs.multiplied(SIZES["B"], 16384) == pytest.approx(110.888448 - (16384 + 1001) * 768 / 1e6, rel=1e-3)


def test_the_memory_of_a_process_is_its_state_and_its_share_of_the_batch():
    """100 MiB that each holds, and 60 for the whole batch: not 1 / W."""
    cost = costs.Cost("step", "W", "", (1, 2, 4), lambda index: list)
    time, memory = costs.of_world(100.0)
    found = grown.grown(cost, "MiB", memory, {1.0: 160.0, 2.0: 131.0, 4.0: 116.0})
    assert found.lawful == ((1.0, 160.0), (2.0, 130.0), (4.0, 115.0))
    assert found.expected == pytest.approx(-0.24, abs=0.01)
    assert grown.grown(cost, "s", time, {1.0: 8.0, 2.0: 4.0}).expected == pytest.approx(-1)


def test_the_state_of_a_process_is_what_a_step_leaves():
    """Weights, averages and moments, counted before the first step and found after it; and the gradients, of which a
    step leaves none, as large as what moved."""
    step = costs.joint_step("demo", 64, 2)
    step()
    training = step.training
    kept = [*training.fixed, *(g.module for g in training.groups), *(g.ema.module for g in training.groups if g.ema)]
    tensors = [t for module in kept for t in (*module.parameters(), *module.buffers())]
    tensors += [p for g in training.groups for p in g.module.parameters() if p in g.optimizer.state]
    moments = [one for g in training.groups for state in g.optimizer.state.values() for one in state.values()]
    tensors += [one for one in moments if one.ndim > 0]  # the counts of steps are numbers
    assert costs.state("demo", 64) == pytest.approx(sum(t.nbytes for t in tensors) / 2**20, rel=1e-3)


@pytest.fixture
def quick(monkeypatch, capsys, tmp_path) -> Callable[..., list[dict]]:
    """JSON lines of `bench.growth --quick`, with its points and figure in a folder of this test."""

    def run(*more: str) -> list[dict]:
        monkeypatch.setattr(sys, "argv", ["growth", "--quick", "--json", "--out", str(tmp_path / "growth.png"), *more])
        growth.main()
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    return run


def test_the_quick_table(quick, monkeypatch, capsys, tmp_path):
    """Every point as it comes, and every cost with its law and exponent, memory in processes of their own; a figure;
    and a second run measures nothing again."""
    monkeypatch.setattr(growth, "RUNS", 1)
    said = quick()
    points, found = [one for one in said if "cost" in one], [one for one in said if "law" in one]
    assert [one["unit"] for one in found] == ["s", "MiB", "s", "s", "s"]
    assert len(points) == 2 * len(found)
    for one in found:
        assert [point["cost"] for point in points if point["path"] == one["path"] and point["unit"] == one["unit"]] == [
            cost for _, cost in one["points"]
        ]
        assert one["exponent"] == pytest.approx(grown.exponent(one["points"]))
        assert one["expected"] == pytest.approx(1, abs=0.05 if one["unit"] == "s" else 0.4)
    assert (tmp_path / "growth.png").read_bytes().startswith(b"\x89PNG")
    monkeypatch.setattr(growth, "seconds", pytest.fail)  # nothing is left to measure
    monkeypatch.setattr(growth, "memory", pytest.fail)
    assert quick() == found
    grown.show([grown.Grown(**one) for one in found], "here")
    shown = capsys.readouterr().out
    assert "its exponent" in shown
    assert "N K (d + D)" in shown


def test_stopped_it_shows_and_keeps_what_it_has_and_goes_on(quick, monkeypatch, capsys, tmp_path):
    times = [1.0, 2.0]

    def seconds(cost: costs.Cost, index: int) -> float:
        if not times:
            raise KeyboardInterrupt
        return times.pop()

    monkeypatch.setattr(growth, "seconds", seconds)
    with pytest.raises(KeyboardInterrupt):
        quick("--only", "generator")
    (found,) = [one for one in map(json.loads, capsys.readouterr().out.splitlines()) if "law" in one]
    assert [cost for _, cost in found["points"]] == [2.0, 1.0]
    assert [one["cost"] for one in json.loads((tmp_path / "growth.json").read_text())["points"]] == [2.0, 1.0]
    times += [3.0]
    with pytest.raises(KeyboardInterrupt):
        quick("--only", "generator")
    assert [one["cost"] for one in json.loads((tmp_path / "growth.json").read_text())["points"]] == [2.0, 1.0, 3.0]
    alone = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert alone["exponent"] is None  # of one point
    assert (tmp_path / "growth.png").exists()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "has something else"),
        ('{"on": "here"}', "has something else"),
        ('{"on": "a mainframe", "points": []}', "has points of a mainframe, and this is"),
    ],
)
def test_points_of_another_machine_or_of_something_else_are_left_alone(text, why, quick, capsys, tmp_path):
    (tmp_path / "growth.json").write_text(text)
    with pytest.raises(SystemExit):
        quick()
    assert why in " ".join(capsys.readouterr().err.split())
    assert (tmp_path / "growth.json").read_text() == text


@pytest.mark.parametrize("name", ["none/growth.png", "growth.pdf"])
def test_a_figure_needs_a_folder_and_a_name(name, quick, capsys):
    with pytest.raises(SystemExit):
        quick("--out", name)
    assert "in a folder that is there" in " ".join(capsys.readouterr().err.split())
