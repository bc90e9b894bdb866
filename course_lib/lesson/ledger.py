"""Which exercises are passed, remembered in one small file on this machine."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

from course_lib import runtime
from course_lib.lesson.tasks import catalogue


class DamagedProgress(ValueError):
    """The progress file cannot be read; it is left as it is."""


def progress_file() -> Path:
    """`progress.json` in `COURSE_STATE`."""
    return runtime.state_root() / "progress.json"


def passed() -> dict[str, str]:
    """Exercise id -> day it was first passed (ISO date). Raises DamagedProgress naming the file and the remedy."""
    path = progress_file()
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    try:
        table = json.loads(text)["passed"]
        if not isinstance(table, dict) or not all(isinstance(v, str) for v in table.values()):
            raise TypeError
    except (ValueError, KeyError, TypeError):
        raise DamagedProgress(
            f"{path} is not a progress file any more. It is left as it is; move it away to start a new one."
        ) from None
    return table


def record(exercise_id: str) -> None:
    """Remember that an exercise is passed; the file is replaced in one step or not at all."""
    table = passed()
    if exercise_id in table:
        return
    table[exercise_id] = date.today().isoformat()
    with runtime.replacing(progress_file()) as temporary:
        temporary.write_text(json.dumps({"passed": dict(sorted(table.items()))}, indent=1) + "\n", encoding="utf-8")


def progress() -> None:
    """Print, lesson by lesson, which exercises are passed and which are still open."""
    try:
        done = passed()
    except DamagedProgress as error:
        print(error)
        return
    exercises = catalogue()
    for lesson in sorted({key.split(".")[0] for key in exercises}, key=int):
        keys = [key for key in exercises if key.split(".")[0] == lesson]
        marks = "   ".join(f"{'✓' if key in done else '·'} {key}" for key in keys)
        print(f"Lesson {int(lesson):02d}   {sum(key in done for key in keys)} of {len(keys)}   {marks}")
    print(f"{sum(key in done for key in exercises)} of {len(exercises)} exercises passed")
