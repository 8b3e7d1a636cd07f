"""Numbers with intervals over prompts; the numbers themselves are `geneval.summary`'s and `dpg.summary`'s."""

import numpy as np
import pytest

from gear.evaluate import prompt_scores
from gear.evaluate.dpg import Answers
from gear.evaluate.prompts import Question


def test_geneval() -> None:
    judged = {f"{i:05d}": ("counting", [i % 2 == 0] * 4) for i in range(20)}
    judged |= {f"{i:05d}": ("colors", [True] * 4) for i in range(20, 30)}
    found = prompt_scores.of_geneval(judged)
    assert {name: metric.value for name, metric in found.items()} == {"overall": 0.75, "counting": 0.5, "colors": 1.0}
    assert (found["overall"].n, found["counting"].n) == (120, 80)
    low, high = found["counting"].interval or (0, 0)
    sd = np.sqrt(0.25 / 20)  # of 20 prompts, not of 80 images
    assert (high - low) / 2 == pytest.approx(1.96 * sd, rel=0.15)
    low, high = found["overall"].interval or (0, 0)
    assert (high - low) / 2 == pytest.approx(1.96 * sd / 2, rel=0.3)  # how many prompts of a task a resample has varies
    assert found["colors"].interval == (1.0, 1.0)


def test_dpg() -> None:
    asked = (Question(1, "a?", (), ("entity", "whole")), Question(2, "b?", (1,), ("attribute", "color")))
    yes, no = Answers({1: True, 2: True}), Answers({1: False, 2: True})
    found = prompt_scores.of_dpg({"a": (asked, [yes, no]), "b": (asked, [yes, yes])})
    assert {name: metric.value for name, metric in found.items()} == {
        "overall": 75.0,
        "entity": 75.0,
        "attribute": 100.0,
    }
    assert found["overall"].interval == (50.0, 100.0)


def test_one_prompt_has_no_interval() -> None:
    assert prompt_scores.of_geneval({"00000": ("colors", [True])})["overall"].interval is None


def test_what_is_said() -> None:
    assert len(prompt_scores.warnings("geneval", 553, 4 * 553)) == 1
    said = prompt_scores.warnings("dpg", 10, 10)
    assert "are of 1,065 prompts, these of 10" in said[1]
    assert "are of 4 images a prompt, these of 1" in said[2]
