"""What an exercise is made of, and the catalogue of all there are."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pkgutil import iter_modules

import torch


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
