"""What a lesson needs besides the subject itself: set-up, exercises with checkers, sizes and expected bands.

Names load on first use: the set-up cell must run `setup()` before anything else is imported, because on Colab it is
`setup()` that fetches the missing packages.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from course_lib.lesson.bands import expect
    from course_lib.lesson.exercise import Exercise, Mistake, exercise, hint, solution, solution_source
    from course_lib.lesson.progress import progress
    from course_lib.lesson.setup import setup
    from course_lib.lesson.sizes import sizes

_HOME = {
    "Exercise": "exercise",
    "Mistake": "exercise",
    "exercise": "exercise",
    "expect": "bands",
    "hint": "exercise",
    "progress": "progress",
    "setup": "setup",
    "sizes": "sizes",
    "solution": "exercise",
    "solution_source": "exercise",
}
__all__ = list(_HOME)


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
