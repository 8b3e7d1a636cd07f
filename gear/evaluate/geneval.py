"""GenEval's rules (Ghosh et al. 2023): what was found in an image against what the prompt asked for.

They are the official scorer's, rule by rule, on detections from anywhere. The detector of `gear.evaluate.geneval_judge`
is another one than the official scorer's, so results carry a name of their own.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool

from gear.evaluate.prompts import TASKS

THRESHOLD = 0.3  # of the score, above which an object counts
COUNTING = 0.9  # the same where objects are counted
MOST = 16  # objects of a class
MARGIN = 0.1  # of the sizes of both objects together, by which they must be apart
SLANT = 0.5  # share of the distance that must go in a direction: within 60 degrees of it


@dataclass(frozen=True)
class Found:
    """
    label: its class in GenEval's words. score: 0 to 1. box: left, top, right, bottom in px. mask: its pixels.
    """

    label: str
    score: float
    box: tuple[float, float, float, float]
    mask: Bool[np.ndarray, "H W"] | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Verdict:
    """
    reasons: what is wrong, a phrase each; empty where the image is correct.
    """

    reasons: tuple[str, ...]

    @property
    def correct(self) -> bool:
        return not self.reasons


Colours = Callable[[str, Sequence[Found]], Sequence[str]]  # a class and objects of it -> a colour for each


def kept(found: Sequence[Found], counting: bool) -> dict[str, list[Found]]:
    """By class, the surest first: those above the threshold, 16 at most."""
    least = COUNTING if counting else THRESHOLD
    objects: dict[str, list[Found]] = {}
    for one in sorted(found, key=lambda one: -one.score):
        if one.score > least and len(objects.setdefault(one.label, [])) < MOST:
            objects[one.label].append(one)
    return objects


def relations(a: Found, b: Found) -> set[str]:
    """Where a is, seen from b: of the offset of the centres, in each axis what goes beyond a tenth of both sizes
    together; a direction holds where more than half the distance of the centres goes there. At times two, or none."""
    offset, beyond = [], []
    for axis in (0, 1):
        (a0, a1), (b0, b1) = ((one.box[axis], one.box[axis + 2]) for one in (a, b))
        apart = (a0 + a1) / 2 - (b0 + b1) / 2
        offset.append(apart)
        beyond.append(max(abs(apart) - MARGIN * (abs(a1 - a0) + abs(b1 - b0)), 0.0) * np.sign(apart))
    if max(map(abs, beyond)) < 1e-3:
        return set()
    x, y = np.array(beyond) / np.hypot(*offset)
    held = {"left of": x < -SLANT, "right of": x > SLANT, "above": y < -SLANT, "below": y > SLANT}
    return {name for name, holds in held.items() if holds}


def judge(found: Sequence[Found], metadata: dict[str, Any], colours: Colours) -> Verdict:
    """Whether an image shows what a line of GenEval's metadata says.

    Each object of "include" must be there as often as its count; of as many, the surest, the colour must be the one
    asked for and the position right to every object of the group it refers to. None of "exclude" may be there as often
    as its count: for three cups, no four. `colours` is asked only where a colour is.
    """
    objects = kept(found, counting=metadata["tag"] == "counting")
    reasons: list[str] = []
    groups: list[list[Found] | None] = []
    for wanted in metadata["include"]:
        name, count = wanted["class"], wanted["count"]
        group = objects.get(name, [])[:count]
        wrong = _wrong(group, wanted, groups, colours)
        reasons += wrong
        groups.append(None if wrong else group)
    for unwanted in metadata.get("exclude", []):
        if (n := len(objects.get(unwanted["class"], []))) >= unwanted["count"]:
            reasons.append(f"{n} of {unwanted['class']}, fewer than {unwanted['count']} wanted")
    return Verdict(tuple(reasons))


def _wrong(
    group: list[Found], wanted: dict[str, Any], groups: Sequence[list[Found] | None], colours: Colours
) -> list[str]:
    name, count = wanted["class"], wanted["count"]
    if len(group) < count:
        return [f"{len(group)} of {name}, {count} wanted"]
    if "color" in wanted:
        seen = list(colours(name, group))
        if seen.count(wanted["color"]) < count:
            return [f"{name} is {', '.join(seen)}, {wanted['color']} wanted"]
    if "position" in wanted:
        relation, target = wanted["position"]
        if (others := groups[target]) is None:
            return [f"nothing for {name} to be {relation}"]
        if not all(relation in relations(one, other) for one in group for other in others):
            return [f"{name} is not {relation} the other"]
    return []


def summary(judged: Sequence[tuple[str, bool]]) -> dict[str, tuple[float, int]]:
    """The share of correct images of each task that occurs, and of all tasks their mean, with how many images.

    judged: the tag of each image, and whether it is correct. A mean over tasks, not over images.
    """
    scores: dict[str, tuple[float, int]] = {}
    for tag, name in TASKS.items():
        if of := [correct for other, correct in judged if other == tag]:
            scores[name] = sum(of) / len(of), len(of)
    overall = sum(share for share, _ in scores.values()) / len(scores) if scores else float("nan")
    return {"overall": (overall, len(judged))} | scores
