"""Exercises that check themselves, say what went wrong, and never stop a lesson.

A lesson's cell defines a function under `@exercise("5.1")`. Running the cell runs the check: shape first, then values
against an independent computation on random draws, then properties that hold for every right answer. A wrong answer is
compared with the usual mistakes, so that the message can name the one that was made. What the cell leaves behind always
works: an answer that is missing or wrong is replaced by the library's own function, and stays on `.attempt`.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable

from course_lib.lesson import ledger, sources
from course_lib.lesson.checking import check
from course_lib.lesson.tasks import find


def exercise(exercise_id: str) -> Callable[[Callable], Callable]:
    """Decorate an answer: check it, print the verdict, and hand back a function that works in any case."""
    task = find(exercise_id)

    def decorate(attempt: Callable) -> Callable:
        verdict = check(task, attempt)
        print(f"{_SIGN[verdict.status]} exercise {task.id} ({task.title}): {verdict.message}")
        if verdict.status == "passed":
            try:
                ledger.record(task.id)
            except (ledger.DamagedProgress, OSError) as error:
                print(f"  (not remembered: {error})")

        chosen = attempt if verdict.status == "passed" else task.reference

        signature = inspect.signature(task.reference)

        @functools.wraps(chosen)
        def answer(*args, **kwargs):
            given = signature.bind(*args, **kwargs)
            given.apply_defaults()  # an answer that has dropped a default still works in the rest of the lesson
            return chosen(*given.args, **given.kwargs)

        answer.attempt = attempt
        answer.verdict = verdict
        return answer

    return decorate


_SIGN = {"passed": "✓", "not attempted": "○", "wrong": "✗"}


def hint(exercise_id: str, number: int = 1) -> None:
    """Print one hint of an exercise, from a nudge (1) to nearly the answer (the last one)."""
    task = find(exercise_id)
    if not 1 <= number <= len(task.hints):
        raise ValueError(f"exercise {task.id} has hints 1 to {len(task.hints)}, not {number}")
    print(f"Hint {number} of {len(task.hints)}: {task.hints[number - 1]}")
    more = f'hint("{task.id}", {number + 1})' if number < len(task.hints) else f'solution("{task.id}")'
    print(f"If you are still stuck: {more}")


def solution_source(exercise_id: str) -> str:
    """Code that solves an exercise and runs as it stands in the lesson's cell: the library's own source."""
    task = find(exercise_id)
    return sources.runnable(task.reference, decorator=f'@exercise("{task.id}")')


def solution(exercise_id: str) -> None:
    """Print the library's own implementation: paste it over your cell to run it."""
    print(solution_source(exercise_id))
