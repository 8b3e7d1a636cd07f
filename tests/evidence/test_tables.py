"""Tables against numbers by hand: all seeds there, one, some, none; what they are of, and what does not compare."""

from dataclasses import replace
from typing import Any

import pytest

from gear.evidence import overview, tables
from gear.evidence.arms import ARMS
from gear.evidence.claims import CLAIMS
from gear.evidence.results import Result
from gear.evidence.scales import CPU, GPU

from .conftest import Made, complete

Results = dict[tuple[str, int], Result]


def row(text: str, first: str) -> list[str]:
    """The cells of the last row that begins so."""
    (*_, line) = (line for line in text.splitlines() if line.startswith(f"| {first} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def last_token(result: Made, guided: dict[int, float], control: dict[int, float]) -> Results:
    """Losses of the last token, over those of its row, which are 4 nats."""
    both = {"repa-on-gear": guided, "repa-on-control": control}
    return {
        (arm, seed): result(arm, seed, prediction={"n": 2000, "ntp_last": 4 + more, "ntp_last_row": 4.0})
        for arm, values in both.items()
        for seed, more in values.items()
    }


def test_all_seeds_are_there(result: Made) -> None:
    text = tables.claim(10, CPU, last_token(result, {0: 1.5, 1: 2.5, 2: 3.5}, {0: 0.5, 1: 0.5, 2: 0.5}))
    assert row(text, "`repa-on-gear`") == ["`repa-on-gear`", "3", "6.500 ± 1.000", "4.000 ± 0.000", "2.500 ± 1.000"]
    # differences 1, 2, 3: the mean is 2, and 2.484 is by hand in test_statistics
    (_, of_last, of_row, of_both) = row(text, "`repa-on-gear` - `repa-on-control`")
    assert of_last == of_both == "2.000 [-0.484, 4.484], 3/3"
    assert of_row == "0.000 [0.000, 0.000], 0/3"


def test_the_sign_of_the_mean_is_counted(result: Made) -> None:
    text = tables.claim(10, CPU, last_token(result, {0: 0.0, 1: 0.0, 2: 0.5}, {0: 1.0, 1: 2.0, 2: 0.0}))
    assert row(text, "`repa-on-gear` - `repa-on-control`")[-1].endswith("], 2/3")


def test_one_seed_has_no_spread(result: Made) -> None:
    text = tables.claim(10, CPU, last_token(result, {1: 1.5}, {1: 0.5}))
    assert row(text, "`repa-on-gear`") == ["`repa-on-gear`", "1", "5.500", "4.000", "1.500"]
    assert row(text, "`repa-on-gear` - `repa-on-control`")[1:] == ["1.000, 1/1", "0.000, 0/1", "1.000, 1/1"]


def test_some_seeds_are_missing(result: Made) -> None:
    text = tables.claim(10, CPU, last_token(result, {0: 1.0, 2: 3.0}, {2: 0.5, 1: 9.0}))
    assert row(text, "`repa-on-gear`")[1:3] == ["2", "6.000 ± 1.414"]
    assert row(text, "`repa-on-gear` - `repa-on-control`")[1] == "2.500, 1/1"


def test_none_has_run() -> None:
    for number in CLAIMS:
        text = tables.claim(number, CPU, {})
        for part in CLAIMS[number]:
            assert all(row(text, f"`{arm}`")[1] == "not run yet" for arm in part.arms)
            assert all({*row(text, f"`{a}` - `{b}`")[1:]} == {"-"} for a, b in part.pairs)
            made = f"--only {' '.join(part.arms)} --seeds {' '.join(map(str, CPU.seeds_of(number)))}"
            assert f"`gear evidence {made}`, then `gear evidence write`" in text


def test_gfids_of_different_n_are_not_subtracted(result: Made) -> None:
    few, many = {"n": 2000, "gfid": 90.0, "kid": 0.05}, {"n": 5000, "gfid": 80.0, "kid": 0.04}
    text = tables.claim(
        2, CPU, {("ste", 0): result("ste", 0, samples=few), ("gear", 0): result("gear", 0, samples=many)}
    )
    cells = dict(zip(row(text, "difference"), row(text, "`ste` - `gear`"), strict=True))
    assert (cells["gFID"], cells["KID"]) == ("other n", "0.0100, 1/1")
    assert f"gFID; KID: 5,000 (`gear`), 2,000 (`ste`) samples against {CPU.counts.reference:,} training images" in text
    assert '"other n": of different' in text


def test_a_frozen_tokenizer_is_measured_where_it_was_made(result: Made) -> None:
    rebuilt = {"n": 2000, "rfid": 30.0, "psnr": 21.0}
    found = {("repa", seed): result("repa", seed) for seed in (0, 1)}
    found["warmup-vq", 1] = result("warmup-vq", 1, reconstruction=rebuilt)
    found["gear", 1] = result("gear", 1, reconstruction=rebuilt | {"rfid": 20.0})
    found["repa-on-gear", 1] = result("repa-on-gear", 1)
    text = tables.claim(1, CPU, found)
    place = row(text, "arm").index("rFID")
    assert row(text, "`repa`")[place] == "30.0 (n = 1)"  # of two seeds the warm-up of one is there
    assert row(text, "`repa-on-gear`")[place] == "20.0"


def test_what_was_stopped_is_marked_and_has_no_end(result: Made) -> None:
    rebuilt = {"n": 2000, "rfid": 103.5, "psnr": 21.0}
    found = {("warmup-vq", 0): result("warmup-vq", 0, reconstruction=rebuilt)}
    found["naive", 0] = result("naive", 0, curve=[(100, 700.0)], used=[(20, 30.0)], failed="Diverged")
    cells = dict(zip(row(tables.claim(2, CPU, found), "arm"), row(tables.claim(2, CPU, found), "`naive`"), strict=True))
    assert cells["seeds"] == "1, 1 stopped"
    assert {cells[name] for name in ("rFID", "PSNR, dB", "cheap gFID", "effective size, end")} == {"-"}
    assert cells["effective size, least"] == "30"


def test_a_difference_that_several_pairs_share_counts_once(result: Made) -> None:
    """PSNR is of the tokenizer, which the frozen arms have from those that made it."""
    found = {}
    for seed in range(3):
        for arm, psnr in (("warmup-vq", 20.0), ("gear", 21.0 + seed)):
            found[arm, seed] = result(arm, seed, reconstruction={"n": 2000, "psnr": psnr})
        for arm in ("repa", "repa-on-gear", "text-on-gear", "text-zero-rotary"):
            found[arm, seed] = result(arm, seed)
    scale = replace(GPU, claims_of={})
    assert len(tables.differences(scale, found)) == 1  # of gear, or what is on its tokenizer, and repa


def test_usage_over_training(result: Made) -> None:
    used = [(20, 330.0), (40, 350.0), (60, 310.0), (80, 320.0), (100, 315.0)]
    text = tables.claim(6, CPU, {("gear", 0): result("gear", 0, used=used)})
    assert row(text, "`gear`")[1:] == ["1", "330", "310", "60", "320", "315"]


def test_what_only_some_have_is_shown_where_two_have_it(result: Made) -> None:
    samples = {"n": 10_000, "gfid": 50.0}
    one = {("gear", 7): result("gear", 7, samples=samples), ("gear-tap-1", 7): result("gear-tap-1", 7)}
    scale = replace(GPU, seeds=(7,))
    assert "gFID" not in row(tables.claim(4, scale, one), "arm")
    two = one | {("gear-tap-1", 7): result("gear-tap-1", 7, samples=samples | {"gfid": 51.0})}
    assert row(tables.claim(4, scale, two), "`gear-tap-1` - `gear`")[-1] == "1.0, 1/1"


def test_everything_that_is_asked_is_found() -> None:
    """In results with the keys of the code that measures: a wrong path would show as a dash."""
    scale = replace(GPU, claims_of={})
    everything = {(arm.name, seed): complete(arm.name, seed, scale) for arm in ARMS for seed in scale.seeds}
    for number in CLAIMS:
        lines = [line for line in tables.claim(number, scale, everything).splitlines() if line.startswith("| `")]
        bare = [line.split("`")[1] for line in lines if " - |" in line]
        assert bare == (["llamagen"] if number == 1 else [])  # which has no alignment


def test_the_command_is_of_the_scale_and_of_the_seeds() -> None:
    text = tables.claim(10, GPU, {})
    assert "`gear evidence --scale gpu --only repa-on-gear repa-on-control`" in text
    assert "`gear evidence write --scale gpu`" in text
    only = "--only repa-on-gear repa-on-control"
    for scale, seeds in ((CPU, " --seeds 0 1 2"), (replace(CPU, seeds=(7, 8)), " --seeds 7 8")):
        end = seeds if scale.seeds == (7, 8) else ""
        assert f"`gear evidence {only}{seeds}`, then `gear evidence write{end}`" in tables.claim(10, scale, {})


def test_every_arm_is_in_the_tables_of_its_claims() -> None:
    for arm in (arm for arm in ARMS if not arm.name.startswith("warmup")):
        for number in {*arm.claims} - {0}:
            assert any(arm.name in part.arms for part in CLAIMS[number]), (arm.name, number)


def test_the_announced_are_counted(result: Made) -> None:
    found = {("gear", seed): result("gear", seed) for seed in (0, 2, 7)}
    found["ste", 3] = result("ste", 3)
    text = overview.listed(CPU, found)
    assert row(text, "`gear`")[-3:] == ["0, 1, 2, 3, 4, 5", "0, 2", "7"]
    assert row(text, "`ste`")[-3:] == ["0, 1, 2", "-", "3"]
    assert row(text, "`text-on-gear`")[-3:] == ["3, 4, 5", "-", "-"]
    assert f"{len(ARMS)} arms: 2 of 132 results are there." in text
    few = overview.listed(GPU, {("gear-lfq", 7): result("gear-lfq", 7, GPU)})
    assert row(few, "`gear-lfq`")[-3:] == ["-", "-", "7"]
    assert row(few, "`gear`")[3] == "1, 2, 5"
    assert "9 arms: 0 of 27 results are there." in few


def test_pace(pace: dict[str, Any]) -> None:
    text = overview.pace(pace, CPU)
    assert row(text, "gear") == ["gear", "0.4", "0.39", "0.8", "4.00"]
    assert overview.pace(None, GPU) == "Not measured yet: `gear evidence pace --scale gpu`."


def test_cost(result: Made) -> None:
    text = overview.cost(CPU, last_token(result, {0: 1.5, 1: 2.5, 2: 3.5}, {0: 0.5, 1: 0.5, 2: 0.5}))
    assert "Results: 6. Hours of training: 3.0; of measuring: 1.5." in text
    assert "Dates: 2026-01-01 to 2026-01-03." in text
    assert "Differences with an interval in the tables of the claims: 2, of which 0 exclude zero." in text
    assert overview.cost(CPU, {}) == "Nothing has run yet: `gear evidence`."


@pytest.mark.parametrize(("value", "text"), [(-0.04, "0.0"), (-0.06, "-0.1"), (12345.67, "12,345.7")])
def test_numbers(value: float, text: str) -> None:
    assert tables.fixed(value, 1) == text
