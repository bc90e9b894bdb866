"""One table per lesson says how large everything is, in each profile."""

from __future__ import annotations

from types import SimpleNamespace

from course_lib import runtime


def sizes(**table: tuple) -> SimpleNamespace:
    """Pick this run's column of a lesson's table of sizes.

    Each row is `name=(quick, full)`; the profile chooses, and `COURSE_STEPS` overrides the row called `steps`.

    >>> size = sizes(images=(64, 1024), steps=(200, 20_000))
    """
    for name, row in table.items():
        if not isinstance(row, tuple) or len(row) != 2:
            raise ValueError(f"{name} must be a pair (quick, full), got {row!r}")
    column = 0 if runtime.profile() == "quick" else 1
    chosen = {name: row[column] for name, row in table.items()}
    if "steps" in chosen:
        chosen["steps"] = runtime.steps(chosen["steps"])
    return SimpleNamespace(**chosen)
