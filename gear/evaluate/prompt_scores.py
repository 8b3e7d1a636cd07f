"""GenEval's and DPG-Bench's numbers with intervals: over prompts, as images of one prompt rise and fall together."""

from collections.abc import Mapping, Sequence

import numpy as np

from gear.evaluate import dpg, geneval
from gear.evaluate.bootstrap import interval
from gear.evaluate.dpg import Answers
from gear.evaluate.prompts import TASKS, Question
from gear.evaluate.results import Metric

PROMPTS = {"geneval": 553, "dpg": 1065}
IMAGES = 4  # a prompt


def of_geneval(judged: Mapping[str, tuple[str, Sequence[bool]]], seed: int = 0) -> dict[str, Metric]:
    """judged: of each prompt's folder its tag, and whether each of its images is correct. Shares from 0 to 1."""
    images = [(tag, correct) for tag, of in judged.values() for correct in of]
    found = geneval.summary(images)
    tags = np.array([tag for tag, _ in judged.values()])
    right = np.array([sum(of) for _, of in judged.values()], np.float64)
    n = np.array([len(of) for _, of in judged.values()], np.float64)
    groups = {name: np.flatnonzero(tags == tag) for tag, name in TASKS.items() if name in found}

    def overall(chosen: np.ndarray) -> float:
        """Of a resample; a task of which it has no prompt counts as in the whole."""
        times = np.bincount(chosen, minlength=len(n))
        shares = []
        for name, of in groups.items():
            total = (times[of] * n[of]).sum()
            shares.append((times[of] * right[of]).sum() / total if total else found[name][0])
        return float(np.mean(shares))

    metrics = {"overall": _metric(*found["overall"], overall, len(n), seed, "mean of the tasks")}
    for name, of in groups.items():
        metrics[name] = _metric(
            *found[name], lambda chosen, of=of: right[of][chosen].sum() / n[of][chosen].sum(), len(of), seed
        )
    return metrics


def of_dpg(judged: Mapping[str, tuple[Sequence[Question], Sequence[Answers]]], seed: int = 0) -> dict[str, Metric]:
    """judged: of each prompt its questions, and the answers about each of its images. Percent."""
    found = dpg.summary(list(judged.values()))
    each = np.array([np.mean([dpg.score(asked, one) for one in images]) for asked, images in judged.values()])
    metrics = {"overall": _metric(*found["overall"], lambda chosen: 100 * each[chosen].mean(), len(each), seed)}
    for name in found.keys() - {"overall"}:
        metrics[name] = Metric(*found[name], note="answers as they are")
    return {name: metrics[name] for name in found}


def warnings(protocol: str, prompts: int, images: int) -> list[str]:
    """protocol: "geneval" or "dpg"."""
    said = [
        f"{protocol}: the judge is ours, of transformers, not the official one: compare with numbers of the same judge."
    ]
    if prompts != PROMPTS[protocol]:
        said.append(f"{protocol}: published numbers are of {PROMPTS[protocol]:,} prompts, these of {prompts:,}.")
    if images != IMAGES * prompts:
        said.append(f"{protocol}: published numbers are of {IMAGES} images a prompt, these of {images / prompts:.3g}.")
    return said


def _metric(value: float, n: int, statistic, prompts: int, seed: int, note: str = "") -> Metric:
    span = interval(lambda chosen: float(statistic(chosen)), prompts, seed=seed) if prompts > 1 else None
    return Metric(value, n, None if span is None else (span.low, span.high), note)
