"""Lesson 00, start here: one warm-up exercise, to see how exercises work."""

from __future__ import annotations

import math

import torch

from course_lib.lesson.tasks import Exercise, Mistake
from course_lib.show.tiles import default_columns


def _draw_n(generator: torch.Generator) -> tuple[int]:
    side, n = torch.randint(1, 15, (), generator=generator), torch.randint(1, 200, (), generator=generator)
    return (int(side**2 if torch.rand((), generator=generator) < 0.5 else n),)  # squares are where rounding matters


def _smallest_that_fits(n: int) -> int:
    columns = 1
    while columns * columns < n:
        columns += 1
    return columns


def _everything_fits(answer, generator) -> str | None:
    for n in range(1, 60):
        columns = int(answer(n))
        if columns < 1 or columns * columns < n:
            return f"gives {columns} columns for {n} images: a square sheet has only {columns**2} places."
    return None


DEFAULT_COLUMNS = Exercise(
    id="0.1",
    title="columns of a sheet",
    reference=default_columns,
    independent=_smallest_that_fits,
    draw=_draw_n,
    properties=(_everything_fits,),
    mistakes=(
        Mistake(
            "rounded down",
            lambda n: int(math.sqrt(n)),
            "rounds down. Five images get a sheet of 2 by 2, and the fifth is lost without a word: round up.",
        ),
        Mistake(
            "rounded to nearest",
            lambda n: round(math.sqrt(n)),
            "rounds to nearest. Five images get 2 columns, and in a square sheet the fifth is lost: round up.",
        ),
        Mistake(
            "one column too many",
            lambda n: int(math.sqrt(n)) + 1,
            "is one too many where n is a square: nine images need 3 columns, not 4.",
        ),
        Mistake(
            "half of n", lambda n: max(1, n // 2), "halves n; the side of a square is the square root of its area."
        ),
    ),
    hints=(
        "A square of c columns and c rows has c · c places. What is the smallest c with enough of them?",
        "The square root of n, rounded up: the math module has a function for that.",
    ),
)

EXERCISES = (DEFAULT_COLUMNS,)
