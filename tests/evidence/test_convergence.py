"""Claim 1's tables of steps and seconds, by hand: repa ends at 100 after 600 steps, which take it 60 s."""

from dataclasses import replace

import pytest

from gear.evidence import convergence
from gear.evidence.convergence import height
from gear.evidence.results import Result
from gear.evidence.scales import CPU

from .conftest import Made
from .test_tables import Results, row

PACE = {"repa, tokens stored": 0.1, "gear": 0.2, "control": 0.4}


def results(result: Made, *seeds: int) -> Results:
    curves = {
        "repa": [(100, 200.0), (300, 150.0), (600, 100.0)],
        "gear": [(100, 140.0), (200, 120.0), (300, 100.0), (600, 90.0)],
        "control": [(100, 240.0), (200, 180.0), (600, 110.0)],
        "repa-on-gear": [(100, 95.0), (600, 80.0)],
    }
    return {(arm, seed): result(arm, seed, curve=curve) for arm, curve in curves.items() for seed in seeds}


def reaching(text: str, arm: str, level: str) -> list[str]:
    return row("\n".join(line for line in text.splitlines() if f"| `{arm}` | `{level}` |" in line), f"`{arm}`")[2:]


def test_where_another_arm_ends(result: Made) -> None:
    text = convergence.tables(CPU, results(result, 0), PACE)
    # half the steps, each of which takes twice as long
    assert reaching(text, "gear", "repa") == ["300", "2.00", "1.00", "1.00", "0 of 1"]
    assert reaching(text, "control", "repa") == ["never", "-", "-", "-", "1 of 1"]
    # at its first point, after 10 s; the joint run before took 120
    assert reaching(text, "repa-on-gear", "repa") == ["≤ 100", "6.00", "6.00", "0.46", "0 of 1"]
    assert reaching(text, "repa", "repa")[0] == "600"
    assert reaching(text, "gear", "llamagen")[0] == "not run yet"


def test_seeds_are_told_apart_and_never_is_counted(result: Made) -> None:
    found = results(result, 0, 1)
    found["gear", 1] = result("gear", 1, curve=[(100, 300.0), (600, 101.0)])
    text = convergence.tables(CPU, found, PACE)
    assert reaching(text, "gear", "repa") == ["300, never", "2.00", "1.00", "1.00", "1 of 2"]


def test_equal_time(result: Made) -> None:
    text = convergence.tables(CPU, results(result, 0, 1), PACE)
    assert row(text, "`repa`") == ["`repa`", "600 ± 0", "100.0 ± 0.0", ""]
    assert row(text, "`gear`")[1:] == ["300 ± 0", "100.0 ± 0.0", "0.0 [0.0, 0.0], 0/2"]  # 60 s at 0.2 s a step
    assert row(text, "`control`")[1:3] == ["150 ± 0", "210.0 ± 0.0"]  # halfway between two points


def test_without_a_pace_there_are_steps_alone(result: Made) -> None:
    text = convergence.tables(CPU, results(result, 0), {})
    assert reaching(text, "gear", "repa") == ["300", "2.00", "-", "-", "0 of 1"]
    assert row(text, "`gear`")[1:] == ["-", "-", "-"]


@pytest.mark.parametrize(("x", "y"), [(50, None), (100, 8.0), (150, 6.0), (200, 4.0), (201, None)])
def test_height(x: float, y: float | None) -> None:
    assert height([(100.0, 8.0), (200.0, 4.0)], float(x)) == y


def test_a_loss_in_training_reaches_the_end_of_another(result: Made) -> None:
    def arm(name: str, seed: int, losses: list[float]) -> Result:
        log = [{"step": 20 * (i + 1), "align_hard": y, "ntp": 4.0} for i, y in enumerate(losses)]
        return replace(result(name, seed), log=log)

    found = {
        ("text-on-gear", 0): arm("text-on-gear", 0, [-0.1, -0.3, -0.5]),
        ("text-on-warmup", 0): arm("text-on-warmup", 0, [-0.1, -0.2, -0.4]),
        ("text-on-gear", 1): arm("text-on-gear", 1, [-0.1, -0.2, -0.3]),
        ("text-on-warmup", 1): arm("text-on-warmup", 1, [-0.1, -0.2, -0.4]),
    }
    text = convergence.training(CPU, found)
    line = next(
        line for line in text.splitlines() if line.startswith("| alignment loss | `text-on-gear` | `text-on-warm")
    )
    assert [cell.strip() for cell in line.split("|")[4:7]] == ["50, never", "1.20", "1 of 2"]
