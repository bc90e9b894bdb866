"""Keeping the best: when is a measured network better than all before it?"""

from __future__ import annotations

import math
from collections.abc import Iterable


def improvements(scores: Iterable[float | int]) -> list[bool]:
    """For each score: is it lower than all before it? Then the file of the best network is rewritten.

    An equal score is no improvement, and a score that is not a number (NaN) never is.
    """
    best, found = math.inf, []
    for score in scores:
        found.append(score < best)  # False for NaN
        if score < best:
            best = score
    return found
