"""What a claim comes to, by hand."""

import pytest

from gear.evidence import verdicts
from gear.evidence.quantities import of_seeds
from gear.evidence.scales import CPU
from gear.evidence.verdicts import DECISIONS, UNGUIDED

from .conftest import Made
from .test_tables import Results


def told(results: Results, claim: str, number: int = 0) -> list[str]:
    lines = [line for line in verdicts.verdicts(CPU, results).splitlines() if line.startswith(f"| {claim} ")]
    return [cell.strip() for cell in lines[number].strip("|").split("|")][3:]


def pair(result: Made, gear: tuple[float, ...], control: tuple[float, ...]) -> Results:
    arms = {"gear": gear, "control": control}
    return {
        (name, seed): result(name, seed, samples={"n": 10, "gfid": y})
        for name, values in arms.items()
        for seed, y in enumerate(values)
    }


@pytest.mark.parametrize(
    ("gear", "wanted"),
    [
        ((90.0, 91.0, 92.0), ["-10.0 [-10.0, -10.0]", "3 of 3", "holds here"]),
        ((99.0, 91.0, 92.0), ["-7.0 [-19.9, 5.9]", "3 of 3", "shows"]),
        ((101.0, 91.0, 92.0), ["-6.3 [-22.1, 9.4]", "3 of 3", "does not show"]),
        ((90.0, 91.0), ["-10.0 [-10.0, -10.0]", "2 of 3", "unfinished"]),
        ((), ["not run yet", "0 of 3", ""]),
    ],
)
def test_a_difference(result: Made, gear: tuple[float, ...], wanted: list[str]):
    assert told(pair(result, gear, (100.0, 101.0, 102.0)), "1a") == wanted


def test_where_an_arm_is_at_the_end_of_another(result: Made):
    found = {("repa", seed): result("repa", seed, curve=[(100, 9.0), (600, 5.0)]) for seed in range(3)}
    soon = {0: [(100, 7.0), (300, 5.0), (600, 4.0)], 1: [(100, 9.0), (600, 6.0)], 2: [(100, 4.0), (600, 4.0)]}
    found |= {("gear", seed): result("gear", seed, curve=points) for seed, points in soon.items()}
    assert told(found, "1c") == ["-267 [-892, 358]", "3 of 3", "does not show"]  # -300, 0 since it never is, and -500
    never = [(100, 9.0), (600, 6.0)]
    found |= {("control", seed): result("control", seed, curve=never if seed < 2 else soon[0]) for seed in range(3)}
    assert told(found, "1c", 2) == ["-100 [-530, 330]", "3 of 3", "does not show"]  # 0, 0, -300
    assert told(found, "1c", 4) == ["-167 [-546, 213]", "3 of 3", "does not show"]  # -300, 0, -200


def test_collapse_is_below_half_of_the_codebook(result: Made):
    found = {("naive", seed): result("naive", seed, used=[(20, 400.0), (40, 200.0 + seed)]) for seed in range(3)}
    assert told(found, "2a", 1) == ["-55 [-57, -53]", "3 of 3", "holds here"]
    lfq = result("gear-lfq", 0)
    assert verdicts._half(lfq) == verdicts._half(found["naive", 0]) == 256


def test_every_decision_is_found_in_complete_results(everything: Results):
    for decision in (*DECISIONS, *UNGUIDED):
        wanted = CPU.seeds_of(decision.number)
        assert {*decision.values(of_seeds(everything, wanted))} == {*wanted}, decision
    assert [
        line for line in verdicts.verdicts(CPU, everything).splitlines() if "not run" in line or "unf" in line
    ] == []


def test_a_claim_is_decided_on_its_own_seeds_and_shown_on_the_others(result: Made):
    gfids = {"gear": (1.0, 1.0, 1.0, 5.0, 5.0, 5.0), "gear-tap-1": (2.0, 0.0, 2.0, 6.0, 7.0, 8.0)}
    found = {
        (name, seed): result(name, seed, curve=[(600, y)])
        for name, values in gfids.items()
        for seed, y in enumerate(values)
    }
    assert told(found, "4e") == ["2.0 [-0.5, 4.5]", "3 of 3", "shows"]
    assert told(found, "4e", 2) == ["0.3 [-2.5, 3.2]", "0, 1, 2", "2 of 3"]
    assert "not announced for" not in verdicts.verdicts(CPU, {key: r for key, r in found.items() if key[1] > 2})


def test_what_was_stopped_has_run_and_has_no_number(result: Made):
    """Nor is it a level to reach, nor measured in what its tokenizer began with."""
    found = pair(result, (90.0, 91.0), (100.0, 101.0, 102.0))
    found["gear", 2] = result("gear", 2, curve=[(100, 90.0)], failed="Diverged")
    assert told(found, "1a") == ["-10.0 [-10.0, -10.0]", "3 of 3, 1 without a number", "no verdict"]
    assert told(found, "3 VQ") == ["-", "3 of 3, 3 without a number", "no verdict"]
    ends = {("gear", seed): result("gear", seed, curve=[(100, 4.0), (600, 3.0)]) for seed in range(3)}
    ends |= {("repa", seed): result("repa", seed, curve=[(100, 9.0), (600, 4.0)]) for seed in range(2)}
    ends["repa", 2] = result("repa", 2, curve=[(100, 9.0)], failed="Diverged")
    assert told(ends, "1c") == ["-500 [-500, -500]", "3 of 3, 1 without a number", "no verdict"]


def test_a_curve_of_one_point_does_not_say_when(result: Made):
    found = {(arm, 3): result(arm, 3, curve=[(600, y)]) for arm, y in (("gear", 4.0), ("repa", 5.0))}
    assert [line for line in verdicts.verdicts(CPU, found).splitlines() if line.endswith(" | 3 | 0 of 1 |")] == []


def test_samples_that_are_all_alike_have_no_number(result: Made):
    found = {("gear", seed): result("gear", seed, samples={"n": 10, "gfid": 90.0}) for seed in range(3)}
    found |= {("ste", seed): result("ste", seed, samples={"n": 10}) for seed in range(3)}
    assert told(found, "2b") == ["-", "3 of 3, 3 without a number", "no verdict"]


def test_rules_that_hold_without_guidance_are_told(result: Made):
    used = [(20, 400.0), (40, 390.0), (60, 395.0)]
    found = {("control", seed): result("control", seed, used=used) for seed in range(3)}
    assert told(found, "6", 2) == ["-20 [-20, -20]", "3 of 3", "holds here"]  # of the second table, step 40 of 60
    assert told(found, "6", 3) == ["134 [134, 134]", "3 of 3", "holds here"]
