"""What orders images at random, the same under every version of numpy."""

import numpy as np


def random_state(*words: int) -> np.random.RandomState:
    """Seeded by whole numbers of up to 64 bits.

    RandomState and not Generator: NEP 19 freezes its stream, so that a run resumes the same under a newer numpy.
    """
    return np.random.RandomState([(word >> shift) & 0xFFFFFFFF for word in words for shift in (0, 32)])
