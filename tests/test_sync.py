"""Badges, links, lesson table, navigation and environment.yml: in step, and following when the address changes."""

import importlib
import json
import re
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
    row = "| 03 |  | **[KL divergence](notebooks/03_kl_divergence.ipynb)**<br>Measure a distance. |  | 7 |"
    assert row in (copy / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def tool(root, monkeypatch):
    monkeypatch.syspath_prepend(root / "tools")
    return importlib.import_module("sync")


def numbers(text):
    return {float(found.replace(",", "")) for found in re.findall(r"\d[\d,]*(?:\.\d+)?", text)}


def cells_of_table(root):
    """The rows of README.md's lesson table, by number, as lists of cells."""
    table = (root / "README.md").read_text(encoding="utf-8").split("<!-- lessons -->")[1].split("<!-- /lessons -->")[0]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| ")]
    return {cells[0]: cells for cells in rows}


def test_every_lesson_shows_a_picture_and_a_measured_number(root):
    rows, files = cells_of_table(root), sorted(path.name for path in (root / "notebooks").glob("*.ipynb"))
    for file in files:
        number, image, lesson, measured, minutes, badge = rows[file[:2]]
        found = re.fullmatch(r'<img src="(assets/figures/\d\d_\w+\.png)" width="\d+" alt="([^"]{40,})">', image)
        assert found, f"{file}: no picture with alt text and width: {image}"
        assert (root / found[1]).exists()
        assert found[1].startswith(f"assets/figures/{number}_")
        assert numbers(measured), f"{file}: a source of its number in tools/lesson_plan.py is missing"
        assert f"](notebooks/{file})" in lesson
        assert minutes.isdecimal()
        assert badge.endswith(f"/notebooks/{file})")


def test_each_lesson_has_one_number_planned(tool):
    assert sorted(tool.MEASURED) == list(range(len(tool.PLAN)))


def test_digits_written_into_a_text_are_in_its_sources(root, tool):
    said = {int(lesson.number): lesson.said for lesson in tool.Tree(root).lessons}
    for number, (text, *sources) in tool.MEASURED.items():
        there = set()
        for source in sources:
            found = re.search(source, said.get(number, "")) if isinstance(source, str) else None
            there |= numbers(found[0] if found else source[1] if isinstance(source, tuple) else "")
        written = numbers(re.sub(r"\{[^}]*\}", "", text))
        assert number not in said or written <= there, f"lesson {number:02d}: {written - there} is in no source"


def test_the_numbers_follow_cards_and_outputs(copy):
    card = copy / "assets" / "checkpoints" / "text_shapes.json"
    content = json.loads(card.read_text(encoding="utf-8"))
    content["metrics"]["all words right, unseen prompts, scale 3 (n = 500)"]["value"] = 0.1234
    card.write_text(json.dumps(content), encoding="utf-8")
    book = copy / "notebooks" / "07_unet_2015.ipynb"
    book.write_text(
        book.read_text(encoding="utf-8").replace("31,030,658 parameters", "4,711 parameters"), encoding="utf-8"
    )
    (copy / "assets" / "checkpoints" / "ddpm_fashion.json").unlink()
    assert sync(copy, "--check").returncode == 1
    assert sync(copy).returncode == 0
    measured = {number: cells[3] for number, cells in cells_of_table(copy).items() if number.isdecimal()}
    assert measured["15"].startswith("12% of 500")
    assert measured["07"].startswith("4,711 parameters")
    assert measured["09"] == "", "without its card a lesson claims nothing"


def test_a_picture_text_cannot_break_the_table(tool, root):
    prose = '# 01 · T\n\npromise\n\n5 minutes\n\n![a | b <c> "d"](../assets/figures/01_hero.png)'
    lesson = tool.read_card("01_x.ipynb", {"cells": [{"cell_type": "markdown", "source": [prose]}]})
    row = tool.Tree(root).row(lesson)
    assert 'alt="a &#124; b &lt;c&gt; &quot;d&quot;"' in row
    assert row.count(" | ") == 5


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
