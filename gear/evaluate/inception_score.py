"""The Inception Score: how sure a classifier is of each image, and how evenly it spreads them over classes."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float


class ScoreError(ValueError):
    """Logits that have no Inception Score: what was needed, what came."""


@dataclass(frozen=True)
class Score:
    """
    mean: over the splits, 1 to the number of classes; higher is better. sd: over the splits, 0 where there is one only.
    """

    mean: float
    sd: float
    splits: int


def inception_score(logits: Float[np.ndarray, "n C"], split: int = 5000) -> Score:
    """exp of the mean KL(p(y | x) || p(y)), p(y) the mean of its split (Salimans et al. 2016), as ADM's evaluator does.

    logits: of the 2015 Inception without their bias, all 1008. Splits are runs of `split` images in the order they
    come, not shuffled: images ordered by class score lower. A last short split counts as much as a whole one, and with
    n < split there is one of n, whose score is bounded by n and biased downwards. float64 throughout. Raises
    `ScoreError` for no logits or some that are not finite.
    """
    if split < 1 or not len(logits):
        raise ScoreError(f"an Inception Score needs images, and splits of at least 1; {len(logits)} in {split}s came.")
    scores = []
    for start in range(0, len(logits), split):
        part = torch.from_numpy(np.array(logits[start : start + split], dtype=np.float64))
        if not part.isfinite().all():
            raise ScoreError("logits must be finite; NaN or infinity came, which a diverged model makes.")
        log_p = part.log_softmax(1)
        p = log_p.exp()
        marginal = p.mean(0)
        kl = (p * log_p).sum(1).mean() - torch.special.xlogy(marginal, marginal).sum()
        scores.append(kl.exp().item())
    return Score(float(np.mean(scores)), float(np.std(scores)), len(scores))
