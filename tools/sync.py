"""Bring everything that is derived into step (`make sync`), or say what is not (`python tools/sync.py --check`).

From pyproject.toml: the repository's address in README.md's badges, in CITATION.cff, in the lessons' Colab badges and
set-up cells; environment.yml. From the lessons' cards: README.md's table and each lesson's `previous · index · next`.
The numbers in that table are read where they were measured, see `lesson_plan.py`.

In a lesson, `<!-- badge -->…<!-- /badge -->` and `<!-- nav -->…<!-- /nav -->` inside Markdown cells mark what is
written here; the set-up cell is the one that mentions COURSE_SOURCE. Running this twice changes nothing more.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tomllib
from dataclasses import dataclass
from html import escape
from pathlib import Path

from lesson_plan import MEASURED, PLAN

ROOT = Path(__file__).resolve().parent.parent
BADGE = "https://colab.research.google.com/assets/colab-badge.svg"
# Pictures in a table may shrink to nothing, so the heads of their columns are made wide with spaces that don't break.
PICTURE, WIDE = 180, "&nbsp;" * 16
NOTE = """\
Every number is read from the lesson's stored outputs or from the card of a shipped network. A range, as 57% to 65%, \
holds the true share with 95% certainty; chance is what guesses, or pictures of other sentences, would get. A Fréchet \
distance is the better the smaller it is; its floor is that of as many real pictures."""
# Five lines, and such that `ruff format` leaves them as they are.
SET_UP = """\
import importlib.util, os

if importlib.util.find_spec("course_lib") is None:  # Colab, Kaggle: fetch the course; torch and numpy stay as they are
    %pip install -q --no-deps {{os.environ.get("COURSE_SOURCE", "git+{address}")}}
importlib.import_module("course_lib.lesson").setup()"""


@dataclass(frozen=True)
class Lesson:
    """A lesson that exists, as its card describes it."""

    file: str
    title: str
    promise: str
    minutes: str
    picture: tuple[str, str] | None = None  # its place in the checkout, and what is seen on it
    said: str = ""  # stored outputs, then prose

    @property
    def number(self) -> str:
        return self.file[:2]


def between(name: str, text: str, content: str) -> str:
    """`text` with whatever stands between `<!-- name -->` and `<!-- /name -->` replaced by `content`, everywhere."""
    pattern = re.compile(rf"(<!-- {name} -->\n?).*?(\n?<!-- /{name} -->)", re.DOTALL)
    return pattern.sub(lambda found: f"<!-- {name} -->\n{content}\n<!-- /{name} -->", text)


def source(cell: dict) -> str:
    return "".join(cell["source"])


def printed(cell: dict) -> str:
    """What a code cell's stored outputs say."""
    parts = (output.get("text") or output.get("data", {}).get("text/plain", "") for output in cell.get("outputs", []))
    return "".join("".join(part) for part in parts)


def read_card(file: str, book: dict) -> Lesson:
    """What a notebook's cells say; ValueError when title, promise or minutes are missing. A picture may be."""
    outputs = "\n".join(printed(cell) for cell in book["cells"] if cell["cell_type"] == "code")
    prose = "\n\n".join(source(cell) for cell in book["cells"] if cell["cell_type"] == "markdown")
    prose = re.sub(r"<!-- (\w+) -->.*?<!-- /\1 -->", "", prose, flags=re.DOTALL)
    title = re.search(r"^# (?:Lesson )?(?:\d\d\s*[·.:—–-]?\s*)?(.+)$", prose, re.MULTILINE)
    minutes = re.search(r"(\d+)\s*(?:minutes|min\b)", prose)
    if not title or not minutes:
        raise ValueError(f"notebooks/{file}: its card needs a line '# {file[:2]} · Title' and '… minutes'")
    paragraphs = [part.strip() for part in prose[title.end() :].split("\n\n") if part.strip()]
    promise = " ".join(line.lstrip("> ").strip() for line in paragraphs[0].splitlines()).strip("*_ ")
    hero = re.search(rf"!\[([^\]]+)\]\(\.\./(assets/figures/{file[:2]}_[^)]+)\)", prose)
    picture = (hero[2], hero[1]) if hero else None
    return Lesson(file, title[1].strip(), promise, minutes[1], picture, f"{outputs}\n{prose}")


def fields(source: str | tuple[str, str], said: str, checkpoints: Path) -> list:
    """What a source of `MEASURED` says; nothing where it is not there yet."""
    if isinstance(source, str):
        found = re.search(source, said)
        return list(found.groups()) if found else []
    name, metric = source
    card = checkpoints / f"{name}.json"
    metrics = json.loads(card.read_text(encoding="utf-8"))["metrics"] if card.exists() else {}
    return [metrics[metric]] if metric in metrics else []


class Tree:
    """A checkout at `root`: what its derived files should hold."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        self.address = self.project["urls"]["Repository"].removesuffix("/").removesuffix(".git")
        paths = sorted((root / "notebooks").glob("[0-9][0-9]_*.ipynb"))
        self.books = {path.name: json.loads(path.read_text(encoding="utf-8")) for path in paths}
        self.lessons = [read_card(name, book) for name, book in self.books.items()]

    def colab(self, file: str) -> str:
        """Address that opens a lesson on Colab."""
        repository = self.address.removeprefix("https://github.com/")
        return f"https://colab.research.google.com/github/{repository}/blob/main/notebooks/{file}"

    def badge(self, file: str) -> str:
        return f"[![Open in Colab]({BADGE})]({self.colab(file)})"

    def navigation(self, file: str) -> str:
        """`previous · index · next` among the lessons that exist."""
        here = [lesson.file for lesson in self.lessons].index(file)
        parts = []
        if here > 0:
            parts.append(f"[← {self.lessons[here - 1].title}]({self.lessons[here - 1].file})")
        parts.append("[index](00_start_here.ipynb)" if here > 0 else "index")
        if here + 1 < len(self.lessons):
            parts.append(f"[{self.lessons[here + 1].title} →]({self.lessons[here + 1].file})")
        return " · ".join(parts)

    def notebook(self, file: str) -> str:
        """A lesson's text with badge, navigation and set-up cell in step; everything else as it was."""
        for cell in self.books[file]["cells"]:
            text = before = source(cell)
            if cell["cell_type"] == "markdown":
                text = between("badge", text, self.badge(file))
                text = between("nav", text, self.navigation(file))
            elif "COURSE_SOURCE" in text and "find_spec" in text:
                text = SET_UP.format(address=self.address)
            if text != before:
                cell["source"] = text.splitlines(keepends=True)
        return json.dumps(self.books[file], indent=1, ensure_ascii=False) + "\n"

    def measured(self, lesson: Lesson) -> str:
        """The lesson's measured number in words, or nothing where one of its sources is missing."""
        text, *sources = MEASURED[int(lesson.number)]
        found = [fields(source, lesson.said, self.root / "assets" / "checkpoints") for source in sources]
        return text.format(*(field for part in found for field in part)) if all(found) else ""

    def row(self, lesson: Lesson) -> str:
        """A row of the README's table."""
        image = ""
        if lesson.picture:
            alt = escape(lesson.picture[1], quote=False).replace('"', "&quot;").replace("|", "&#124;")
            image = f'<img src="{lesson.picture[0]}" width="{PICTURE}" alt="{alt}">'
        link = f"**[{lesson.title}](notebooks/{lesson.file})**<br>{lesson.promise}"
        cells = (lesson.number, image, link, self.measured(lesson), lesson.minutes, self.badge(lesson.file))
        return f"| {' | '.join(cells)} |"

    def table(self) -> str:
        """The README's lesson table: the lessons that exist, linked, and those that are planned."""
        known = {lesson.number: lesson for lesson in self.lessons}
        rows = [f"| # | {WIDE}picture{WIDE} | lesson | measured | minutes | {WIDE * 2} |", "|---|---|---|---|---|---|"]
        for number, (title, promise) in enumerate(PLAN):
            lesson = known.get(f"{number:02d}")
            rows.append(self.row(lesson) if lesson else f"| {number:02d} | | {title}<br>{promise} | | | coming |")
        return "\n".join([*rows, "", NOTE])

    def readme(self) -> str:
        tests = f"{self.address}/actions/workflows/test.yml"
        badges = [f"[![tests]({tests}/badge.svg)]({tests})"]
        badges += [self.badge(lesson.file) for lesson in self.lessons[:1]]
        text = (self.root / "README.md").read_text(encoding="utf-8")
        return between("lessons", between("badges", text, "\n".join(badges)), self.table())

    def citation(self) -> str:
        text = (self.root / "CITATION.cff").read_text(encoding="utf-8")
        return re.sub(r"(?m)^repository-code: .*$", f'repository-code: "{self.address}"', text)

    def environment(self) -> str:
        """environment.yml: python and pip from conda, then the very requirement lines of pyproject.toml, pinned."""
        extras = self.project["optional-dependencies"]
        lines = [*self.project["dependencies"], *extras["lab"], *extras["test"]]
        tested = (re.search(r":: 3\.(\d+)$", line) for line in self.project["classifiers"])
        newest = max(int(found[1]) for found in tested if found)
        head = [
            "# For conda: python and pip from there, then the same pinned packages as with pip. `make sync` writes it.",
            f"name: {self.project['name']}",
            "channels:",
            "  - conda-forge",
            "dependencies:",
            f"  - python{self.project['requires-python']},<3.{newest + 1}",
            "  - pip",
            "  - pip:",
            "      - -c constraints.txt",
        ]
        return "\n".join([*head, *(f"      - {line}" for line in lines), "      - -e ."]) + "\n"

    def derived(self) -> dict[str, str]:
        """`{path: text}` of every file that is derived, wholly or in part."""
        files = {"README.md": self.readme(), "CITATION.cff": self.citation(), "environment.yml": self.environment()}
        return files | {f"notebooks/{file}": self.notebook(file) for file in self.books}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; exit with 1 if something is out of step")
    parser.add_argument("--root", type=Path, default=ROOT, help="the checkout to work on")
    arguments = parser.parse_args(argv)
    stale = []
    for name, text in Tree(arguments.root).derived().items():
        path = arguments.root / name
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(name)
        if not arguments.check:
            path.write_text(text, encoding="utf-8", newline="\n")
    for name in stale:
        print(f"out of step: {name}; run `make sync`" if arguments.check else f"brought into step: {name}")
    return 1 if arguments.check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
