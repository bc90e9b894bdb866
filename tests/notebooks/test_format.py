"""Every lesson keeps the course's format: card, set-up cell, sections, exercises, alt text, stored outputs."""

import ast
import json
import re
from itertools import pairwise
from pathlib import Path

import pytest

from course_lib.lesson.tasks import find

ROOT = Path(__file__).resolve().parents[2]
LESSONS = sorted((ROOT / "notebooks").glob("*.ipynb"))
WITHOUT_ALL = ("00", "20")  # the first and the last lesson may have fewer exercises and no tagged equations


class Lesson:
    def __init__(self, path):
        self.path, self.number = path, path.name[:2]
        self.cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        self.markdown = [source(cell) for cell in self.cells if cell["cell_type"] == "markdown"]
        self.code = [cell for cell in self.cells if cell["cell_type"] == "code"]
        self.prose = "\n\n".join(self.markdown)

    def tags(self):
        return {tag for cell in self.cells for tag in cell["metadata"].get("tags", [])}


def source(cell):
    return "".join(cell["source"])


@pytest.fixture(params=LESSONS, ids=lambda path: path.stem)
def lesson(request):
    return Lesson(request.param)


def test_there_are_lessons():
    numbers = [path.name[:2] for path in LESSONS]
    assert numbers == sorted(set(numbers))
    assert {"00", "01", "02", "03", "04", "05"} <= set(numbers)


def test_stored_as_run_from_top_to_bottom(lesson):
    assert [cell["execution_count"] for cell in lesson.code] == list(range(1, len(lesson.code) + 1))
    for cell in lesson.code:
        for output in cell["outputs"]:
            assert output["output_type"] != "error"
            assert output.get("name") != "stderr", output


def test_sizes(lesson):
    assert lesson.path.stat().st_size <= 600_000
    for cell in lesson.code:
        assert len(source(cell).splitlines()) <= 30, source(cell)


def test_card(lesson):
    card = lesson.markdown[0]
    assert re.match(rf"# {lesson.number} · \S", card)
    assert re.search(r"^\*\*.+\*\*$", card, re.MULTILINE), "a one-sentence promise in bold"
    for row in ("You will", "Before this", "Time", "Downloads"):
        assert f"| **{row}** |" in card
    assert re.search(r"!\[.{20,}\]\(\.\./assets/figures/\S+\)", card, re.DOTALL), "a hero picture"
    assert "<!-- badge -->" in card
    assert "<!-- nav -->" in card
    assert "<!-- nav -->" in lesson.markdown[-1]


def test_set_up_cell_is_the_same_everywhere(lesson):
    first = source(lesson.code[0])
    assert first == source(Lesson(LESSONS[0]).code[0])
    assert len(first.splitlines()) <= 5
    assert "nbval-ignore-output" in lesson.code[0]["metadata"]["tags"]


def test_sections_and_ending(lesson):
    headings = re.findall(r"^(#+) (.+)$", lesson.prose, re.MULTILINE)
    levels = [len(marks) for marks, _ in headings]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b <= a + 1 for a, b in pairwise(levels)), "no heading level is skipped"
    titles = [title for _, title in headings]
    assert "Recap" in titles
    assert "Further reading" in titles
    assert lesson.number in WITHOUT_ALL or any("departs from its sources" in title for title in titles)
    assert "mistake" in lesson.tags()


def test_pictures_have_alternative_text(lesson):
    for alt, target in re.findall(r"!\[(.*?)\]\((.*?)\)", lesson.prose, re.DOTALL):
        assert len(alt) >= 10, target
    pictures = 0
    for cell in lesson.code:
        for output in cell["outputs"]:
            data = output.get("data", {})
            if any(kind.startswith("image/") for kind in data):
                pictures += 1
                text = "".join(data["text/plain"])
                assert not text.startswith("<"), text
                assert len(text) >= 20, text
    assert pictures


def test_links_lead_somewhere(lesson):
    for target in re.findall(r"\]\(([^)\s]+)\)", lesson.prose):
        if not target.startswith(("http", "#")):
            assert (lesson.path.parent / target).is_file(), target


def test_every_tagged_equation_has_its_test(lesson):
    tags = re.findall(r"\\tag\{(\d+)\.(\d+)\}", lesson.prose)
    assert [int(k) for _, k in tags] == list(range(1, len(tags) + 1)), "numbered in order"
    assert all(int(number) == int(lesson.number) for number, _ in tags)
    if not tags:
        assert lesson.number in WITHOUT_ALL
        return
    tests = ast.parse((ROOT / "tests" / "equations" / f"test_{lesson.number}.py").read_text(encoding="utf-8"))
    names = {node.name for node in tests.body if isinstance(node, ast.FunctionDef)}
    assert {f"test_eq_{int(a)}_{b}" for a, b in tags} <= names
    assert not [line for line in lesson.prose.splitlines() if line.startswith("$$") and "\\tag" not in line]


def test_exercises_are_stubs_of_the_right_functions(lesson):
    found = {}
    for cell in lesson.code:
        text = source(cell)
        if "@exercise(" not in text:
            continue
        for node in ast.parse(text).body:
            if isinstance(node, ast.FunctionDef) and node.decorator_list:
                task = find(node.decorator_list[0].args[0].value)
                found[task.id] = node
                assert node.name == task.reference.__name__
                assert isinstance(node.body[-1], ast.Expr)
                assert node.body[-1].value.value is ...
                assert ast.get_docstring(node)
                assert f"**Exercise {task.id}.**" in lesson.prose
    assert lesson.number in WITHOUT_ALL or len(found) >= 3
    assert len(found) == sum(source(cell).count("@exercise(") for cell in lesson.code)


def test_nothing_of_this_machine_is_stored(lesson):
    text = lesson.path.read_text(encoding="utf-8")
    assert not re.search(r"(?<![\w.])/(home|root|tmp|work|Users|mnt)/", re.sub(r'"[A-Za-z0-9+/=\\n]{200,}"', "", text))
