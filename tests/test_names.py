"""No name is used that its file never binds.

The linter's own rule for this (F821) takes the shapes in jaxtyping's strings for names, so it is off.
"""

import ast
import builtins
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
KNOWN = {*dir(builtins), "__file__", "__name__", "__doc__", "__path__"}


def unbound(source: str) -> set[str]:
    """Names that a module reads, and that nothing in it binds: no import, assignment, argument, definition."""
    bound, read = set(KNOWN), set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name):
            (read if isinstance(node.ctx, ast.Load) else bound).add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
            bound.add(node.name)
        elif isinstance(node, ast.arg):
            bound.add(node.arg)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            bound |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name:
            bound.add(node.name)
    return read - bound


@pytest.mark.parametrize("folder", ["course_lib", "tools"])
def test_every_name_is_bound_somewhere(folder):
    found = {str(path.relative_to(ROOT)): unbound(path.read_text()) for path in sorted((ROOT / folder).rglob("*.py"))}
    assert len(found) > 5
    assert not {path: names for path, names in found.items() if names}


def test_a_forgotten_import_is_found():
    assert unbound("import os\ndef f(x: 'n dim'):\n    return os.path, [y for y in x], math.pi") == {"math"}
