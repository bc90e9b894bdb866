"""Exercises that check themselves, say what went wrong, and never stop a lesson.

A lesson's cell defines a function under `@exercise("5.1")`. Running the cell runs the check: shape first, then values
against an independent computation on random draws, then properties that hold for every right answer. A wrong answer is
compared with the usual mistakes, so that the message can name the one that was made. What the cell leaves behind always
works: an answer that is missing or wrong is replaced by the library's own function, and stays on `.attempt`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pkgutil import iter_modules

import torch

from course_lib.lesson import checking, progress, sources


@dataclass(frozen=True)
class Mistake:
    """A usual wrong answer: what it is called, code that makes it, and what to tell who made it."""

    name: str
    function: Callable
    message: str


@dataclass(frozen=True)
class Exercise:
    """One exercise. The lesson's function has `reference`'s name and arguments; `reference`'s source is the solution.

    independent: another route to the same values (loops, float64). draw: a generator -> one tuple of arguments.
    properties: functions (answer, generator) -> None if all is well, else what is wrong, in one sentence.
    """

    id: str
    title: str
    reference: Callable
    independent: Callable
    draw: Callable[[torch.Generator], tuple]
    mistakes: tuple[Mistake, ...]
    hints: tuple[str, ...]
    properties: tuple[Callable[[Callable, torch.Generator], str | None], ...] = ()
    draws: int = 24
    rtol: float = 1e-4
    atol: float = 1e-5


@dataclass(frozen=True)
class Verdict:
    """What a check found: `status` is "passed", "not attempted" or "wrong"; `mistake` the named one, if recognised."""

    status: str
    message: str
    mistake: str | None = None


@functools.cache
def catalogue() -> dict[str, Exercise]:
    """Every exercise of the course by id, in order: all `EXERCISES` of the modules in `course_lib.lesson.exercises`."""
    package = import_module("course_lib.lesson.exercises")
    modules = sorted(module.name for module in iter_modules(package.__path__) if module.name.startswith("lesson_"))
    found = [e for name in modules for e in import_module(f"{package.__name__}.{name}").EXERCISES]
    return {e.id: e for e in found}


def find(exercise_id: str) -> Exercise:
    """The exercise with this id. Raises ValueError naming the ids there are."""
    table = catalogue()
    if exercise_id not in table:
        raise ValueError(f"there is no exercise {exercise_id!r}; there are {', '.join(table)}")
    return table[exercise_id]


def check(exercise_id: str, attempt: Callable, seed: int = 0) -> Verdict:
    """Check a function against an exercise; nothing is printed or recorded, and no mistake in `attempt` gets out."""
    return checking.check(find(exercise_id), attempt, seed)


def exercise(exercise_id: str) -> Callable[[Callable], Callable]:
    """Decorate an answer: check it, print the verdict, and hand back a function that works in any case."""
    task = find(exercise_id)

    def decorate(attempt: Callable) -> Callable:
        verdict = check(exercise_id, attempt)
        print(f"{_SIGN[verdict.status]} exercise {task.id} ({task.title}): {verdict.message}")
        if verdict.status == "passed":
            try:
                progress.record(task.id)
            except (progress.DamagedProgress, OSError) as error:
                print(f"  (not remembered: {error})")

        chosen = attempt if verdict.status == "passed" else task.reference

        @functools.wraps(chosen)
        def answer(*args, **kwargs):
            return chosen(*args, **kwargs)

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
