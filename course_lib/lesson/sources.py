"""The source of a library function as a cell that runs on its own: its imports in front."""

from __future__ import annotations

import ast
import builtins
import inspect
import sys
from collections import defaultdict
from collections.abc import Callable
from types import ModuleType


def runnable(function: Callable, decorator: str = "") -> str:
    """`function`'s source with an import for every global name it uses, and `decorator` on top of it."""
    function = inspect.unwrap(function)
    source = inspect.getsource(function)
    scope = function.__globals__
    used = {node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)}
    modules, names = [], defaultdict(list)
    for name in sorted(used):
        if name not in scope or hasattr(builtins, name) or name == function.__name__:
            continue
        value = scope[name]
        if isinstance(value, ModuleType):
            modules.append(f"import {value.__name__}" + (f" as {name}" if value.__name__ != name else ""))
        else:
            names[_home(name, value, function.__module__)].append(name)
    imports = modules + [f"from {home} import {', '.join(group)}" for home, group in sorted(names.items())]
    head = "\n".join(imports) + "\n\n\n" if imports else ""
    return head + (decorator + "\n" if decorator else "") + source.rstrip()


def _home(name: str, value: object, module: str) -> str:
    """The module that `value` was defined in, if it can be had from there under `name`; else the one that uses it."""
    home = getattr(value, "__module__", None)
    return home if home and getattr(sys.modules.get(home), name, None) is value else module
