"""Which of the T trained steps a sampler visits."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

SPACINGS = ("trailing", "leading", "linspace")


def timesteps(T: int, steps: int, spacing: str = "trailing") -> list[int]:
    """`steps` of the indices 0…T-1, highest first; after the last comes -1, the clean image, where ᾱ = 1.

    trailing: T-1 downwards in strides of T/steps, rounded. Starts where training ends, in pure noise.
    linspace: from T-1 to 0, both visited, evenly spaced and rounded (Nichol & Dhariwal 2021).
    leading: multiples of ⌊T/steps⌋ (Song et al. 2021). It starts up to one stride too early, in an x_t that still
    holds some image, though the sampler feeds it pure noise (Lin et al. 2024, arXiv 2305.08891, table 2).
    A single step is T-1 in every spacing. Raises ValueError unless 1 ≤ steps ≤ T.
    """
    if not isinstance(steps, int) or isinstance(steps, bool) or not 1 <= steps <= T:
        raise ValueError(f"steps must be a whole number from 1 to T = {T}, got {steps!r}: no step is visited twice")
    if spacing not in SPACINGS:
        raise ValueError(f"spacing must be one of {', '.join(map(repr, SPACINGS))}, got {spacing!r}")
    if steps == 1:
        return [T - 1]
    if spacing == "trailing":
        return [round(T - i * T / steps) - 1 for i in range(steps)]
    if spacing == "linspace":
        return [round(i * (T - 1) / (steps - 1)) for i in reversed(range(steps))]
    return [i * (T // steps) for i in reversed(range(steps))]


def checked_timesteps(given: Sequence[int], T: int) -> list[int]:
    """`given` as a list. Raises ValueError unless it falls strictly, within 0…T-1."""
    ts = [int(t) for t in given]
    if not ts or any(a <= b for a, b in pairwise(ts)) or not 0 <= ts[-1] <= ts[0] < T:
        raise ValueError(f"timesteps must fall strictly within {T - 1}…0, for instance timesteps(T, 50); got {ts}")
    return ts
