"""What a lesson needs besides the subject itself: set-up, exercises with checkers, sizes and expected bands.

Names load on first use: the set-up cell must run `setup()` before anything else is imported, because on Colab it is
`setup()` that fetches the missing packages. No module here is called like a name it exports: importing the module
would put it in the name's place.
"""

from importlib import import_module

_HOME = {
    "Exercise": "tasks",
    "Mistake": "tasks",
    "exercise": "answering",
    "expect": "bands",
    "hint": "answering",
    "progress": "ledger",
    "setup": "start",
    "sizes": "scale",
    "solution": "answering",
    "solution_source": "answering",
}
__all__ = list(_HOME)


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
