"""GenEval's rules on detections written out by hand, a case or more of each task."""

from collections.abc import Sequence
from typing import Any

import pytest

from gear.evaluate.geneval import Found, judge, kept, relations, summary
from gear.evaluate.prompts import checked

NOWHERE = (0.0, 0.0, 10.0, 10.0)


def found(label: str, score: float = 0.95, box: tuple[float, float, float, float] = NOWHERE) -> Found:
    return Found(label, score, box)


def no_colours(name: str, group: Sequence[Found]) -> Sequence[str]:
    raise AssertionError("this prompt asks for no colour")


def painted(**colours: Sequence[str]) -> Any:
    """A colour for each object that is asked for, by class; the group is the surest objects."""
    return lambda name, group: list(colours[name])[: len(group)]


def wanted(tag: str, include: list[dict[str, Any]], exclude: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    return checked({"tag": tag, "include": include, "exclude": exclude or [], "prompt": "a photo"}, "a test")


DOG, CAT = {"class": "dog", "count": 1}, {"class": "cat", "count": 1}


@pytest.mark.parametrize(("score", "correct"), [(0.31, True), (0.3, False), (0.1, False)])
def test_single_object_above_the_threshold(score: float, correct: bool) -> None:
    assert judge([found("dog", score)], wanted("single_object", [DOG]), no_colours).correct is correct


def test_another_object_is_not_it() -> None:
    verdict = judge([found("cat")], wanted("single_object", [DOG]), no_colours)
    assert verdict.reasons == ("0 of dog, 1 wanted",)


def test_two_objects_and_more_of_them() -> None:
    metadata = wanted("two_object", [DOG, CAT])
    assert judge([found("cat"), found("dog"), found("dog"), found("cup")], metadata, no_colours).correct
    assert judge([found("cat"), found("cat")], metadata, no_colours).reasons == ("0 of dog, 1 wanted",)


THREE = wanted("counting", [{"class": "cup", "count": 3}], [{"class": "cup", "count": 4}])


@pytest.mark.parametrize(
    ("scores", "correct"),
    [
        ([0.95] * 3, True),
        ([0.95] * 2, False),
        ([0.95] * 4, False),
        ([0.95] * 3 + [0.9, 0.5], True),  # where objects are counted, only those above 0.9 are
        ([0.95, 0.95, 0.9], False),
    ],
)
def test_counting_is_exact_and_has_a_threshold_of_its_own(scores: list[float], correct: bool) -> None:
    assert judge([found("cup", score) for score in scores], THREE, no_colours).correct is correct


def test_at_most_16_of_a_class_count() -> None:
    objects = kept([found("cup", 0.5 + i / 100) for i in range(30)] + [found("dog", 0.2)], counting=False)
    assert list(objects) == ["cup"]
    assert [one.score for one in objects["cup"]] == [0.5 + i / 100 for i in range(29, 13, -1)]


def test_the_colour_of_the_surest_counts() -> None:
    red = wanted("colors", [{"class": "dog", "count": 1, "color": "red"}])
    asked: list[float] = []

    def colours(name: str, group: Sequence[Found]) -> Sequence[str]:
        asked.extend(one.score for one in group)
        return ["red" if one.score == 0.9 else "blue" for one in group]

    assert judge([found("dog", 0.5), found("dog", 0.9)], red, colours).correct
    assert asked == [0.9]
    verdict = judge([found("dog", 0.9), found("dog", 0.95)], red, colours)
    assert verdict.reasons == ("dog is blue, red wanted",)
    assert judge([found("cat")], red, no_colours).reasons == ("0 of dog, 1 wanted",)


def test_several_of_a_colour() -> None:
    two = wanted("colors", [{"class": "cup", "count": 2, "color": "red"}])
    objects = [found("cup"), found("cup")]
    assert judge(objects, two, painted(cup=["red", "red"])).correct
    assert not judge(objects, two, painted(cup=["red", "blue"])).correct


def test_colour_attribution_does_not_swap() -> None:
    metadata = wanted("color_attr", [DOG | {"color": "red"}, CAT | {"color": "blue"}])
    objects = [found("dog"), found("cat")]
    assert judge(objects, metadata, painted(dog=["red"], cat=["blue"])).correct
    swapped = judge(objects, metadata, painted(dog=["blue"], cat=["red"]))
    assert swapped.reasons == ("dog is blue, red wanted", "cat is red, blue wanted")


def square(x: float, y: float, side: float = 20.0) -> Found:
    """By its centre."""
    return found("dog", box=(x - side / 2, y - side / 2, x + side / 2, y + side / 2))


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        (50, 0, {"right of"}),
        (-50, 0, {"left of"}),
        (0, -50, {"above"}),  # rows grow downwards
        (0, 50, {"below"}),
        (3.9, 0, set()),  # within a tenth of 20 + 20
        (4, 0, set()),  # 0 beyond it
        (4.1, 0, set()),  # 0.1 beyond: 0.024 of the distance
        (8, 0, set()),  # 4 of 8, half of the distance, not more
        (8.1, 0, {"right of"}),
        (40, 40, {"right of", "below"}),  # 36 / 56.6 = 0.64 of the distance in both
        (40, 20, {"right of"}),  # 36 / 44.7 = 0.80, but 16 / 44.7 = 0.36
        (-40, -30, {"left of", "above"}),  # 36 / 50, 26 / 50 = 0.52
        (-40, -28.5, {"left of"}),  # 24.5 / 49.1 = 0.499
        (0, 0, set()),
    ],
)
def test_the_margin_of_a_position(x: float, y: float, expected: set[str]) -> None:
    assert relations(square(x, y), square(0, 0)) == expected


def test_the_margin_grows_with_both_sizes() -> None:
    assert relations(square(12, 0), square(0, 0)) == {"right of"}  # 8 / 12 of the distance beyond 4
    assert relations(square(12, 0, side=100), square(0, 0)) == set()  # 12 beyond 12: nothing
    assert relations(square(12, 0), square(0, 0, side=100)) == set()


LEFT = wanted("position", [CAT, DOG | {"position": ["left of", 0]}])


def test_position() -> None:
    cat = found("cat", box=(90.0, 0.0, 110.0, 20.0))
    left, right = (found("dog", box=(x, 0.0, x + 20, 20.0)) for x in (0.0, 180.0))
    assert judge([cat, left], LEFT, no_colours).correct
    assert judge([cat, right], LEFT, no_colours).reasons == ("dog is not left of the other",)
    assert judge([left], LEFT, no_colours).reasons == ("0 of cat, 1 wanted", "nothing for dog to be left of")
    surest_is_right = [cat, left, found("dog", 0.99, (180.0, 0.0, 200.0, 20.0))]
    assert not judge(surest_is_right, LEFT, no_colours).correct


def test_the_score_is_the_mean_over_tasks() -> None:
    judged = [("counting", True), ("counting", False), ("counting", False), ("color_attr", True)]
    assert summary(judged) == {
        "overall": (pytest.approx((1 / 3 + 1) / 2), 4),
        "counting": (pytest.approx(1 / 3), 3),
        "color_attribution": (1.0, 1),
    }


def test_a_position_must_be_right_to_each_of_the_group() -> None:
    two = wanted("position", [{"class": "cat", "count": 2}, DOG | {"position": ["left of", 0]}])
    dog = found("dog", box=(100.0, 0.0, 120.0, 20.0))
    cats = [found("cat", box=(x, 0.0, x + 20, 20.0)) for x in (0.0, 200.0, 300.0)]
    assert judge([dog, cats[1], cats[2]], two, no_colours).correct
    assert not judge([dog, cats[0], cats[2]], two, no_colours).correct
