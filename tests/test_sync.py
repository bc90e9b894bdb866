"""Badges, links, lesson table, navigation and environment.yml: in step, and following when the address changes."""

import json
import shutil
import subprocess
import sys

import pytest

NEW = "https://github.com/someone-else/another-course"


def sync(root, *options):
    tool = root / "tools" / "sync.py"
    command = [sys.executable, str(tool), "--root", str(root), *options]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)


@pytest.fixture
def copy(tree_copy, tmp_path):
    return shutil.copytree(tree_copy, tmp_path / "tree")


def texts(root):
    found = {}
    for path in root.rglob("*"):
        if path.is_file():
            try:
                found[path.relative_to(root).as_posix()] = path.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                continue
    return found


def test_everything_is_in_step(root):
    done = sync(root, "--check")
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


def test_a_new_address_reaches_every_place(copy):
    project = (copy / "pyproject.toml").read_text(encoding="utf-8")
    old = project.split('Repository = "')[1].split('"')[0]
    (copy / "pyproject.toml").write_text(project.replace(old, NEW), encoding="utf-8")
    before = texts(copy)
    assert sync(copy, "--check").returncode == 1
    assert texts(copy) == before, "--check must change nothing"
    assert sync(copy).returncode == 0
    after = texts(copy)
    where = old.removeprefix("https://github.com/")
    # What a notebook printed or drew is not derived; what a person reads and clicks is.
    assert not [name for name, text in after.items() if where in text]
    changed = {name for name in after if after[name] != before[name]}
    assert {"README.md", "CITATION.cff"} <= changed
    assert {name for name in after if name.startswith("notebooks/") and name.endswith(".ipynb")} <= changed
    assert sync(copy, "--check").returncode == 0


def test_a_lesson_in_the_middle_joins_the_chain(copy):
    notebooks = copy / "notebooks"
    files = sorted(path.name for path in notebooks.glob("*.ipynb") if path.name[:2] != "03")
    card = "# 03 · KL divergence\n\n> Measure a distance.\n\n7 minutes.\n\n"
    card += "<!-- badge --><!-- /badge -->\n<!-- nav --><!-- /nav -->"
    cells = [{"cell_type": "markdown", "id": "card", "metadata": {}, "source": card.splitlines(keepends=True)}]
    book = {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    (notebooks / "03_kl_divergence.ipynb").write_text(json.dumps(book), encoding="utf-8")
    assert sync(copy).returncode == 0
    made = json.loads((notebooks / "03_kl_divergence.ipynb").read_text(encoding="utf-8"))
    assert made["cells"][0]["id"] == "card"
    text = "".join(made["cells"][0]["source"])
    following = [name for name in files if name > "03"]
    assert f"]({files[0]})" in text
    assert f"]({following[0]})" in text
    assert "notebooks/03_kl_divergence.ipynb)" in text
    assert "(03_kl_divergence.ipynb)" in (notebooks / following[0]).read_text(encoding="utf-8")
    row = "| 03 | [KL divergence](notebooks/03_kl_divergence.ipynb) | Measure a distance. | 7 |"
    assert row in (copy / "README.md").read_text(encoding="utf-8")


def test_a_lesson_without_a_card_is_named(copy):
    empty = {"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    (copy / "notebooks" / "04_empty.ipynb").write_text(json.dumps(empty), encoding="utf-8")
    done = sync(copy)
    assert done.returncode != 0
    assert "04_empty.ipynb: its card needs" in done.stderr


def test_all_lessons_have_the_same_set_up_cell(root):
    cells = set()
    for path in sorted((root / "notebooks").glob("*.ipynb")):
        book = json.loads(path.read_text(encoding="utf-8"))
        code = ["".join(cell["source"]) for cell in book["cells"] if cell["cell_type"] == "code"]
        assert "COURSE_SOURCE" in code[0], f"{path.name}: the first code cell is the set-up cell"
        assert len(code[0].splitlines()) <= 5
        cells.add(code[0])
    assert len(cells) == 1
