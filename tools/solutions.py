"""Run every lesson with its exercises solved (`make test-solutions`).

Each exercise cell's source is replaced by the printed solution; nothing in the checker knows about it. A lesson passes
when every cell runs and every check says that the answer is right. `python tools/solutions.py 05` runs one lesson.
"""

import os
import re
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from course_lib.lesson import solution_source

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
EXERCISE = re.compile(r'^@exercise\("([\d.]+)"\)', re.MULTILINE)


def solved(book: nbformat.NotebookNode) -> dict[str, nbformat.NotebookNode]:
    """Put the solutions in; returns the changed cells by exercise."""
    changed = {}
    for cell in book.cells:
        found = EXERCISE.search(cell.source) if cell.cell_type == "code" else None
        if found:  # what stands before the decorator (imports) stays
            cell.source = cell.source[: found.start()] + solution_source(found[1])
            changed[found[1]] = cell
    return changed


def main(wanted: list[str]) -> int:
    failed = total = 0
    with tempfile.TemporaryDirectory() as state:
        os.environ.update(COURSE_STATIC="1", COURSE_STATE=state)
        for path in sorted(NOTEBOOKS.glob("*.ipynb")):
            if wanted and path.name[:2] not in wanted:
                continue
            book = nbformat.read(path, as_version=4)
            cells = solved(book)
            NotebookClient(book, timeout=600, resources={"metadata": {"path": str(NOTEBOOKS)}}).execute()
            for exercise_id, cell in cells.items():
                said = "".join(output.get("text", "") for output in cell.outputs)
                right = f"✓ exercise {exercise_id}" in said
                print(f"{path.name}: {said.strip() if right else 'WRONG ' + said.strip()}")
                total, failed = total + 1, failed + (not right)
    print(f"{total - failed} passed, {failed} failed")
    return 1 if failed or not total else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
