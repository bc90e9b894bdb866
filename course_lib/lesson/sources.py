"""The source of a library function as a cell that runs on its own: its imports in front."""

from __future__ import annotations

import ast
import builtins
import inspect
import sys
from collections.abc import Callable
from types import ModuleType


def runnable(function: Callable, decorator: str = "") -> str:
    """`function`'s source with an import for every global name it uses, and `decorator` on top of it."""
    source = inspect.getsource(function)
    scope = function.__globals__
    used = {node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)}
    names = sorted(name for name in used if name in scope and not hasattr(builtins, name) and name != function.__name__)
    lines = sorted({_import_line(name, scope[name], function.__module__) for name in names})
    head = "\n".join(lines) + "\n\n\n" if lines else ""
    return head + (decorator + "\n" if decorator else "") + source.rstrip()


def _import_line(name: str, value: object, module: str) -> str:
    if isinstance(value, ModuleType):
        return f"import {value.__name__}" if value.__name__ == name else f"import {value.__name__} as {name}"
    home = getattr(value, "__module__", None)  # where it was defined, if it can be had from there under this name
    if home is None or getattr(sys.modules.get(home), name, None) is not value:
        home = module
    return f"from {home} import {name}"
