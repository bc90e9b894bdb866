"""Edit a lesson as text: `python tools/notebook.py edit 05` writes notebooks/05_*.py, `… store 05` reads it back.

`store` puts the text into the notebook, runs it top to bottom in the quick profile on a fresh kernel, and keeps the
outputs; sliders are stored as still pictures. Then the text file is removed. `… run` only runs and stores.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient

WIDGET = "application/vnd.jupyter.widget-view+json"
NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"


def paths(lesson: str) -> tuple[Path, Path]:
    """The lesson's notebook and its text form."""
    found = sorted({path.with_suffix("") for path in NOTEBOOKS.glob(f"{lesson}_*") if path.is_file()})
    if len(found) != 1:
        sys.exit(f"no single lesson begins with {lesson!r}: {[path.name for path in found]}")
    return found[0].with_suffix(".ipynb"), found[0].with_suffix(".py")


def edit(lesson: str) -> None:
    notebook, text = paths(lesson)
    jupytext.write(jupytext.read(notebook), text, fmt="py:percent")
    print(f"edit {text}, then: python tools/notebook.py store {lesson}")


def store(lesson: str) -> None:
    notebook, text = paths(lesson)
    subprocess.check_call([sys.executable, "-m", "jupytext", "--quiet", "--update", "--to", "ipynb", text])
    text.unlink()
    subprocess.check_call([sys.executable, NOTEBOOKS.parent / "tools" / "sync.py"])
    subprocess.check_call([sys.executable, "-m", "ruff", "format", "--quiet", notebook])
    run(lesson)


def run(lesson: str) -> None:
    notebook, _ = paths(lesson)
    book = nbformat.read(notebook, as_version=4)
    with tempfile.TemporaryDirectory() as nobodys_progress:
        os.environ.update(COURSE_STATIC="1", COURSE_PROFILE="quick", COURSE_STATE=nobodys_progress)
        place = {"metadata": {"path": str(NOTEBOOKS)}}
        NotebookClient(book, timeout=600, coalesce_streams=True, resources=place).execute()
    for cell in book.cells:
        cell.metadata.pop("execution", None)  # when each cell ran is no part of the lesson
        if cell.cell_type == "code":  # progress bars: without the kernel they would stand at 0 forever
            cell.outputs = [out for out in cell.outputs if WIDGET not in out.get("data", {})]
    book.metadata = {
        "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    nbformat.write(book, notebook)
    print(f"stored {notebook.name}: {notebook.stat().st_size / 1000:.0f} KB")


if __name__ == "__main__":
    {"edit": edit, "store": store, "run": run}[sys.argv[1]](sys.argv[2])
