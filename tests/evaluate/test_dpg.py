"""DPG-Bench's rules by hand, and against the official script's way through the questions in the order of the file."""

import random

import pytest

from gear.evaluate.dpg import Answers, counted, score, summary
from gear.evaluate.prompts import Question


def question(id: int, *parents: int, category: str = "entity") -> Question:
    return Question(id, f"question {id}?", parents, (category, "whole"))


# 1 is there a dog, 2 is there a mat, 3 is the dog red (1), 4 is the dog on the mat (1, 2), 5 is it a dark red (3)
DOG = [
    question(1),
    question(2),
    question(3, 1, category="attribute"),
    question(4, 1, 2, category="relation"),
    question(5, 3, category="attribute"),
]


def answers(*yes: int) -> Answers:
    return Answers({q.id: q.id in yes for q in DOG})


@pytest.mark.parametrize(
    ("yes", "counts"),
    [
        ((1, 2, 3, 4, 5), (1, 2, 3, 4, 5)),
        ((2, 3, 4, 5), (2,)),  # no dog: neither red nor on the mat, nor a dark red
        ((1, 3, 4, 5), (1, 3, 5)),  # no mat
        ((1, 2, 4, 5), (1, 2, 4)),  # a blue dog is of no dark red
        ((), ()),
    ],
)
def test_a_child_counts_only_where_its_parents_do(yes: tuple[int, ...], counts: tuple[int, ...]) -> None:
    assert [id for id, hit in counted(DOG, answers(*yes)).items() if hit] == list(counts)
    assert score(DOG, answers(*yes)) == pytest.approx(len(counts) / 5)


def test_the_order_of_the_questions_does_not_matter() -> None:
    hits = counted(DOG[::-1], answers(2, 3, 4, 5))
    assert [id for id, hit in hits.items() if hit] == [2]


def test_equals_the_official_pass_over_questions_in_order() -> None:
    for trial in range(200):
        rng = random.Random(trial)
        asked = [question(i, *(rng.sample(range(1, i), min(i - 1, rng.randint(0, 2))))) for i in range(1, 12)]
        yes = {q.id: rng.random() < 0.7 for q in asked}
        scores = {id: float(hit) for id, hit in yes.items()}
        for q in asked:
            for parent in q.parents:
                if scores[parent] == 0:
                    scores[q.id] = 0.0
        assert score(asked, Answers(yes)) == pytest.approx(sum(scores.values()) / 11)


def test_the_summary_by_hand() -> None:
    """Two images of the first prompt score 5/5 and 1/5; the one of the second 1/1. Categories take answers as they are:
    attribute 2 + 2 of 4, entity 2 + 1 of 4, relation 1 + 1 of 2."""
    other = [question(1, category="other")]
    found = summary([(DOG, [answers(1, 2, 3, 4, 5), answers(2, 3, 4, 5)]), (other, [Answers({1: True})])])
    assert list(found) == ["overall", "entity", "attribute", "relation", "other"]
    assert found["overall"] == (pytest.approx(100 * (0.6 + 1) / 2), 2)
    assert found["entity"] == (75.0, 4)
    assert found["attribute"] == (100.0, 4)
    assert found["relation"] == (100.0, 2)
    assert found["other"] == (100.0, 1)
