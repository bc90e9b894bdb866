"""Is my number normal? A lesson answers with the band that the number should fall into."""

from __future__ import annotations

import os

from torch import Tensor


def expect(what: str, value: float | int | Tensor, low: float | int, high: float | int) -> None:
    """Print `value` beside the band low…high in which it should lie; raise AssertionError where it does not.

    `what` says what was measured, with its unit. Bands are wide enough for every device and precision of the course.
    Where `COURSE_STEPS` cuts the training short, a value outside is shown and nothing raised.
    """
    value = float(value)
    if not low <= high:
        raise ValueError(f"low must not exceed high, got {low} and {high}")
    inside = low <= value <= high  # False for NaN
    if not inside and os.environ.get("COURSE_STEPS", "").strip():
        print(f"{what}: {value:.4g} (expected {low:.3g} … {high:.3g} without COURSE_STEPS)")
        return
    if not inside:
        raise AssertionError(
            f"{what} is {value:.4g}, outside the expected {low:.3g} … {high:.3g}. If you changed the cell, that may be "
            "what you wanted to see; if not, restart the kernel and run all cells."
        )
    print(f"{what}: {value:.4g} (expected {low:.3g} … {high:.3g})")
