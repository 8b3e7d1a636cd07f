"""DPG-Bench's score (Hu et al. 2024): questions about an image, and which of them count, by the rule of the Davidsonian
scene graph (Cho et al. 2024). Who answers is not its business; results of another judge carry a name of their own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gear.evaluate.prompts import Question

CATEGORIES = ("global", "entity", "attribute", "relation", "other")


@dataclass(frozen=True)
class Answers:
    """
    yes: of the questions of one prompt about one image, by their id, whether the answer was yes.
    """

    yes: Mapping[int, bool]


def counted(questions: Sequence[Question], answers: Answers) -> dict[int, bool]:
    """Whether each question counts as yes: it and all that it depends on, and those on, must be answered yes.

    Is the dog red? does not count where there is no dog. The official script goes through the questions in the order of
    the file, where parents come before children, and then gives the same.
    """
    settled: dict[int, bool] = {}
    above = {question.id: question.parents for question in questions}

    def settle(id: int) -> bool:
        if id not in settled:
            settled[id] = answers.yes[id] and all(settle(parent) for parent in above[id])
        return settled[id]

    return {question.id: settle(question.id) for question in questions}


def score(questions: Sequence[Question], answers: Answers) -> float:
    """The share of the questions about one image that count as yes."""
    hits = counted(questions, answers)
    return sum(hits.values()) / len(hits)


def summary(judged: Sequence[tuple[Sequence[Question], Sequence[Answers]]]) -> dict[str, tuple[float, int]]:
    """Percent: "overall", and the categories that occur, each with how many prompts or answers it is the mean of.

    judged: of each prompt its questions and the answers about each of its images. overall: the mean over prompts of the
    mean over their images of `score`. Categories: the mean over questions and images of the answers as they are, not
    `counted`, in the official script too; which takes them of each prompt's last image only, where this takes all.
    """
    per_prompt = [sum(score(asked, one) for one in images) / len(images) for asked, images in judged]
    found: dict[str, list[bool]] = {}
    for asked, images in judged:
        for question in asked:
            found.setdefault(question.category[0], []).extend(one.yes[question.id] for one in images)
    order = [*(name for name in CATEGORIES if name in found), *sorted(found.keys() - set(CATEGORIES))]
    overall = 100 * sum(per_prompt) / len(per_prompt) if per_prompt else float("nan")
    means = {name: (100 * sum(found[name]) / len(found[name]), len(found[name])) for name in order}
    return {"overall": (overall, len(per_prompt))} | means
