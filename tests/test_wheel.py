"""The wheel: assets and lessons travel with it, and the course runs from it in an empty folder."""

import json
import re
import sys
import zipfile

from conftest import run

PROBE = """
import json, course_lib
from course_lib import checkpoints, runtime
files = lambda top: sorted(path.relative_to(top).as_posix() for path in top.rglob("*") if path.is_file())
print(json.dumps({
    "file": course_lib.__file__, "checkout": str(runtime.checkout()),
    "assets": files(runtime.assets_root()), "notebooks": files(runtime.notebooks_root()),
    "checkpoints": {name: str(error) for name, error in checkpoints.verify_all().items()},
}))
"""


def test_the_installed_wheel_finds_its_assets(wheel_env, tree_copy, tmp_path):
    found = json.loads(run(wheel_env.python, "-c", PROBE, cwd=tmp_path).stdout)
    assert found["file"].startswith(str(wheel_env.folder)), "this would test the checkout, not the wheel"
    assert found["checkout"] == "None"
    for name in ("assets", "notebooks"):
        top = tree_copy / name
        shipped = sorted(path.relative_to(top).as_posix() for path in top.rglob("*") if path.is_file())
        assert found[name] == shipped
    cards = sorted(path.stem for path in (tree_copy / "assets" / "checkpoints").glob("*.json"))
    assert found["checkpoints"] == dict.fromkeys(cards, "None")


def test_doctor_is_content_in_an_empty_folder(wheel_env, tmp_path):
    env = {"COURSE_DATA": str(tmp_path / "data"), "COURSE_STATE": str(tmp_path / "state")}
    done = run(wheel_env.scripts / "course", "doctor", cwd=tmp_path, env=env)
    assert "installed package" in done.stdout
    assert "STOP" not in done.stdout
    assert "all that the course needs is here" in done.stdout


def test_lab_copies_lessons_whose_pictures_are_found(wheel_env, tree_copy, tmp_path):
    run(wheel_env.scripts / "course", "lab", "--copy-only", cwd=tmp_path)
    mine = tmp_path / "my_lessons"
    assert sorted(path.name for path in mine.glob("*.ipynb")) == sorted(
        path.name for path in (tree_copy / "notebooks").glob("*.ipynb")
    )
    for lesson in mine.glob("*.ipynb"):
        book = json.loads(lesson.read_text(encoding="utf-8"))
        prose = "\n".join("".join(cell["source"]) for cell in book["cells"] if cell["cell_type"] == "markdown")
        for link in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", prose):
            assert link.startswith("https:") or (mine / link).is_file(), f"{lesson.name}: {link}"


def test_a_source_distribution_builds_the_same_wheel(wheel, tree_copy, tmp_path):
    run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", tmp_path, cwd=tree_copy)
    (source,) = tmp_path.glob("*.tar.gz")
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", tmp_path, source)
    (again,) = tmp_path.glob("*.whl")
    names = [sorted(zipfile.ZipFile(path).namelist()) for path in (wheel, again)]
    assert names[0] == names[1]
