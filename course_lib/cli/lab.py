"""`course lab`: the learner's own copies of the lessons, and JupyterLab on the first of them.

A copy that the learner has changed is never touched. `.copied.json` beside the copies remembers what was laid there
(a hash of the cells' sources; outputs do not count), so that an unchanged lesson can follow when a newer one ships.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from course_lib import runtime

FIRST = "00_start_here.ipynb"
RECORD = ".copied.json"
QUIET = Path(__file__).parent / "jupyter"  # Jupyter settings that keep the "official news?" question out of the way


def fingerprint(text: str) -> str | None:
    """SHA-256 of a notebook's cell kinds and sources; None if `text` is no notebook."""
    try:
        cells = [[cell["cell_type"], "".join(cell["source"])] for cell in json.loads(text)["cells"]]
    except (ValueError, KeyError, TypeError):
        return None
    return hashlib.sha256(json.dumps(cells).encode()).hexdigest()


def _fingerprint_of(path: Path) -> str | None:
    try:
        return fingerprint(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return None


def _record(folder: Path) -> dict[str, str]:
    """`{file: fingerprint as copied}`. Unreadable counts as empty: then everything that differs is the learner's."""
    try:
        table = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return table if isinstance(table, dict) else {}


def _lay(path: Path, text: str, record: dict[str, str]) -> None:
    with runtime.replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    record[path.name] = fingerprint(text)


def _unchanged(path: Path, record: dict[str, str]) -> bool:
    """May `path` be replaced: is it absent, or still as it was copied?"""
    return not path.exists() or (path.name in record and record[path.name] == _fingerprint_of(path))


def _copy(name: str, text: str, folder: Path, record: dict[str, str]) -> str | None:
    """Lay one lesson in `folder` by the rules above; returns a line for the learner where there is something to say."""
    mine, beside = folder / name, folder / name.replace(".ipynb", ".new.ipynb")
    newest = fingerprint(text)
    if mine.exists() and _fingerprint_of(mine) == newest:
        record[name] = newest
        return None
    if _unchanged(mine, record):
        fresh = not mine.exists()
        _lay(mine, text, record)
        return None if fresh else f"{name}: a newer lesson has replaced your unchanged copy"
    if record.get(name) == newest or _fingerprint_of(beside) == newest:
        return None  # the learner's work on the newest lesson, or the newest already lies beside it
    if _unchanged(beside, record):
        _lay(beside, text, record)
        return f"{name}: your work is kept; the newer lesson lies beside it as {beside.name}"
    return f"{name}: a newer lesson ships, but you have changed {beside.name} too; move it away to get the newer one"


def copy_lessons(folder: Path) -> list[str]:
    """Bring `folder` up to date without touching the learner's work; returns what there is to say, line by line."""
    shipped = sorted(runtime.notebooks_root().glob("[0-9][0-9]_*.ipynb"))
    if not shipped:
        raise ValueError(f"no lessons found in {runtime.notebooks_root()}; install the course again")
    folder.mkdir(parents=True, exist_ok=True)
    record = _record(folder)
    beside_assets = runtime.checkout() is not None and folder.parent == runtime.checkout()
    lines = []
    for lesson in shipped:
        text = lesson.read_text(encoding="utf-8")
        if not beside_assets:  # `../assets` would point nowhere: the figures come along, and the links follow
            text = text.replace("../assets/", "assets/")
        line = _copy(lesson.name, text, folder, record)
        lines += [line] if line else []
    if not beside_assets:
        figures = runtime.assets_root() / "figures"
        if figures.is_dir():
            shutil.copytree(figures, folder / "assets" / "figures", dirs_exist_ok=True)
    with runtime.replacing(folder / RECORD) as temporary:
        temporary.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return lines


def run(folder: str | None, *, copy_only: bool, options: list[str]) -> int:
    """Copy the lessons, then serve JupyterLab from the folder's parent until it is stopped."""
    mine = Path(folder).expanduser().resolve() if folder else (runtime.checkout() or Path.cwd()) / "my_lessons"
    for line in copy_lessons(mine):
        print(line)
    print(f"your lessons: {mine}")
    if copy_only:
        return 0
    where = [f"--ServerApp.root_dir={mine.parent}", f"--LabApp.default_url=/lab/tree/{mine.name}/{FIRST}"]
    command = [sys.executable, "-m", "jupyterlab", *where, *options]
    if hasattr(os, "geteuid") and os.geteuid() == 0 and "--allow-root" not in options:
        print("you are root (a container?): JupyterLab is started with --allow-root")
        command.append("--allow-root")
    settings = [str(QUIET), os.environ.get("JUPYTER_CONFIG_PATH", "")]
    env = {**os.environ, "JUPYTER_CONFIG_PATH": os.pathsep.join(filter(None, settings))}
    return subprocess.call(command, env=env)
