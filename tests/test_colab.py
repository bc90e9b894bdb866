"""The set-up cell where nothing but a lesson is at hand: it fetches the course and moves neither torch nor numpy.

A new environment plays Colab: it borrows this one's packages one by one (links), all but the course and einops, holds
a stand-in `google.colab`, and has no network. The course comes from a git repository made of the tree as it stands,
einops from a folder of wheels in which a newer numpy lies in wait.
"""

import base64
import hashlib
import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from importlib import metadata
from pathlib import Path

import nbclient
import nbformat
import pytest
from conftest import NO_NETWORK, ROOT, Environment, borrow, run

from course_lib.lesson import dependencies

pytestmark = pytest.mark.skipif(os.name == "nt", reason="links need special rights on Windows")
LESSONS = sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))
WITNESS = """
import importlib.metadata, json, course_lib, einops
versions = {name: importlib.metadata.version(name) for name in ("torch", "numpy")}
print("WITNESS " + json.dumps({"course": course_lib.__file__, "einops": einops.__file__, **versions}))
"""


def make_wheel(folder: Path, name: str, version: str, files: dict[str, bytes], requires: tuple[str, ...] = ()) -> None:
    """Write a minimal pure-Python wheel."""
    info = f"{name}-{version}.dist-info"
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Requires-Dist: {requirement}" for requirement in requires]
    content = {
        **files,
        f"{info}/METADATA": ("\n".join(lines) + "\n").encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = []
    for path, blob in content.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(blob).digest()).rstrip(b"=").decode()
        record.append(f"{path},sha256={digest},{len(blob)}")
    content[f"{info}/RECORD"] = "\n".join([*record, f"{info}/RECORD,,"]).encode() + b"\n"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        for path, blob in content.items():
            archive.writestr(path, blob)


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """Links to every installed package except the course and einops."""
    folder = tmp_path_factory.mktemp("packages")
    installed = Path(sysconfig.get_paths()["purelib"])
    for entry in installed.iterdir():
        if not entry.name.startswith(("einops", "course_lib", "generative_image_models", "_editable_impl")):
            (folder / entry.name).symlink_to(entry)
    return folder


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheels")
    found = metadata.distribution("einops")
    kept = [file for file in found.files if file.parts[0] == "einops" and file.suffix == ".py"]
    files = {file.as_posix(): Path(found.locate_file(file)).read_bytes() for file in kept}
    make_wheel(folder, "einops", found.version, files, requires=("numpy",))
    make_wheel(folder, "numpy", "99.0", {"numpy/__init__.py": b"raise ImportError('numpy was replaced')"})
    return folder


@pytest.fixture(scope="module")
def source(tree_copy):
    """A git repository with the tree as it stands; git+file://…"""
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    run("git", "init", "--quiet", cwd=tree_copy)
    run("git", "add", "--all", cwd=tree_copy)
    run("git", *identity, "commit", "--quiet", "--message", "the tree", cwd=tree_copy)
    return f"git+{tree_copy.as_uri()}"


def colab(folder: Path, packages: Path, wheels: Path, source: str) -> Environment:
    """A new environment with a stand-in google.colab, and a kernel `colab` that runs in it."""
    environment = borrow(folder / "venv", packages)
    (environment.site / "google" / "colab").mkdir(parents=True)
    (environment.site / "google" / "colab" / "__init__.py").touch()
    variables = {
        **NO_NETWORK,
        "COURSE_SOURCE": source,
        "COURSE_STATE": str(folder / "state"),
        "COURSE_DATA": str(folder / "data"),
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(wheels),
        "PIP_NO_BUILD_ISOLATION": "0",  # in the environment this word turns isolation off
        "PYTHONPATH": "",
        "HOME": str(folder),
    }
    kernel = folder / "jupyter" / "kernels" / "colab"
    kernel.mkdir(parents=True)
    arguments = [str(environment.python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    specification = {"argv": arguments, "display_name": "colab", "language": "python", "env": variables}
    (kernel / "kernel.json").write_text(json.dumps(specification), encoding="utf-8")
    return environment


def execute(book, folder: Path) -> str:
    """Run a notebook in `folder` with the stand-in's kernel; returns what it printed."""
    place = {"metadata": {"path": str(folder)}}
    nbclient.NotebookClient(book, kernel_name="colab", timeout=120, resources=place).execute()
    outputs = [output for cell in book.cells if cell.cell_type == "code" for output in cell.outputs]
    return "".join(output.get("text", "") for output in outputs)


def files_of(packages: Path) -> list[tuple[str, int, int]]:
    """Path, size and time of every file of torch and numpy, followed through the links."""
    tops = [entry.resolve() for name in ("torch", "numpy") for entry in packages.glob(f"{name}*")]
    files = (path for top in tops for path in top.rglob("*") if path.suffix != ".pyc" and path.is_file())
    return sorted((str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files)


@pytest.mark.parametrize("lesson", LESSONS[:1])  # the cell is the same in all lessons, as tests/test_sync.py sees to
def test_the_set_up_cell_fetches_the_course_and_nothing_moves(lesson, tmp_path, monkeypatch, packages, wheels, source):
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    environment = colab(tmp_path, packages, wheels, source)
    alone = tmp_path / "content"
    alone.mkdir()
    (alone / lesson).write_bytes((ROOT / "notebooks" / lesson).read_bytes())
    book = nbformat.read(alone / lesson, as_version=4)
    first = next(cell for cell in book.cells if cell.cell_type == "code")
    again, witness = nbformat.v4.new_code_cell(first.source), nbformat.v4.new_code_cell(WITNESS)
    book.cells = [first, again, witness]
    before = files_of(packages)
    printed = execute(book, alone)
    assert printed.count("profile quick") == 2, "the set-up line, also when the cell is run again"
    found = json.loads(printed.split("WITNESS ")[1].splitlines()[0])
    assert found["course"].startswith(str(environment.site)), "the course was not installed here"
    assert found["einops"].startswith(str(environment.site)), "what was missing was not installed here"
    assert {name: found[name] for name in ("torch", "numpy")} == {
        name: metadata.version(name) for name in ("torch", "numpy")
    }
    assert len(before) > 1000
    assert files_of(packages) == before
    assert not [path.name for path in environment.site.iterdir() if path.name.startswith(("torch", "numpy"))]
    assert [path.name for path in alone.iterdir()] == [lesson]


def test_elsewhere_it_installs_nothing_and_says_what_is_missing(monkeypatch):
    monkeypatch.delenv("KAGGLE_KERNEL_RUN_TYPE", raising=False)
    monkeypatch.delenv("COURSE_INSTALL", raising=False)
    monkeypatch.setattr(dependencies, "requirements", lambda: {"torch": ">=2.6", "no-such-package": ">=1"})
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("nothing may be installed here"))
    with pytest.raises(ImportError, match=r"lacks no-such-package; run `make lab`, or choose the course's kernel"):
        dependencies.ensure()


def test_an_old_package_gets_a_note_and_stays(monkeypatch, capsys):
    monkeypatch.setattr(dependencies, "requirements", lambda: {"torch": ">=99.1"})
    dependencies.ensure()
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("note: torch ")
    assert "older than 99.1" in line


def test_where_it_may_install_a_failure_is_said(monkeypatch):
    monkeypatch.setenv("COURSE_INSTALL", "1")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setattr(dependencies, "requirements", lambda: {"no-such-package": ">=1"})
    with pytest.raises(ImportError, match="pip could not install no-such-package>=1"):
        dependencies.ensure()


def test_what_a_lesson_needs_comes_from_the_package_itself():
    needed = dependencies.requirements()
    assert {"torch", "numpy", "matplotlib", "ipywidgets"} <= needed.keys()
    assert not {"jupyterlab", "pytest"} & needed.keys()
    assert needed["torch"].startswith(">=")


def test_colab_and_kaggle_are_recognised(monkeypatch):
    monkeypatch.delenv("KAGGLE_KERNEL_RUN_TYPE", raising=False)
    assert not dependencies.hosted()
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Interactive")
    assert dependencies.hosted()
    monkeypatch.delenv("KAGGLE_KERNEL_RUN_TYPE")
    monkeypatch.setitem(sys.modules, "google.colab", object())
    assert dependencies.hosted()
