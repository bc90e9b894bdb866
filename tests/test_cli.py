"""The `course` command: what each part prints, and that `lab` never touches a learner's work."""

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from course_lib import cli, runtime
from course_lib.cli import doctor, lab


def book(*sources):
    """A notebook with these code cells, each of which has printed 1."""
    cells = []
    for number, source in enumerate(sources):
        printed = {"output_type": "stream", "name": "stdout", "text": ["1"]}
        cell = {"cell_type": "code", "id": f"c{number}", "metadata": {}, "source": [source]}
        cells.append({**cell, "execution_count": 1, "outputs": [printed]})
    return json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5})


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """A folder of shipped lessons, as of an installed package."""
    folder = tmp_path / "shipped"
    (folder / "notebooks").mkdir(parents=True)
    (folder / "assets" / "figures").mkdir(parents=True)
    (folder / "assets" / "figures" / "x.png").write_bytes(b"png")
    monkeypatch.setattr(runtime, "notebooks_root", lambda: folder / "notebooks")
    monkeypatch.setattr(runtime, "assets_root", lambda: folder / "assets")
    monkeypatch.setattr(runtime, "checkout", lambda: None)
    for name in ("00_start_here", "05_forward_noising"):
        (folder / "notebooks" / f"{name}.ipynb").write_text(
            book("x = 1", "![](../assets/figures/x.png)"), encoding="utf-8"
        )
    return folder / "notebooks"


@pytest.fixture
def mine(tmp_path):
    return tmp_path / "work" / "my_lessons"


LESSON = "05_forward_noising.ipynb"


def test_lessons_are_copied_with_their_figures(shipped, mine):
    assert lab.copy_lessons(mine) == []
    assert sorted(path.name for path in mine.glob("*.ipynb")) == ["00_start_here.ipynb", LESSON]
    assert "](assets/figures/x.png)" in (mine / LESSON).read_text(encoding="utf-8")
    assert (mine / "assets" / "figures" / "x.png").is_file()


def test_in_a_checkout_the_copies_are_exact(shipped, mine, monkeypatch):
    monkeypatch.setattr(runtime, "checkout", lambda: mine.parent)
    lab.copy_lessons(mine)
    assert (mine / LESSON).read_bytes() == (shipped / LESSON).read_bytes()
    assert not (mine / "assets").exists()


def test_work_is_kept_and_the_newer_lesson_lies_beside_it(shipped, mine):
    lab.copy_lessons(mine)
    (mine / LESSON).write_text(book("x = 'my work'"), encoding="utf-8")
    assert lab.copy_lessons(mine) == [], "nothing newer ships: nothing to say"
    (shipped / LESSON).write_text(book("x = 2"), encoding="utf-8")
    (line,) = lab.copy_lessons(mine)
    assert "05_forward_noising.new.ipynb" in line
    assert "my work" in (mine / LESSON).read_text(encoding="utf-8")
    assert "x = 2" in (mine / "05_forward_noising.new.ipynb").read_text(encoding="utf-8")
    assert lab.copy_lessons(mine) == [], "said once"
    (shipped / LESSON).write_text(book("x = 3"), encoding="utf-8")
    assert len(lab.copy_lessons(mine)) == 1
    assert "x = 3" in (mine / "05_forward_noising.new.ipynb").read_text(encoding="utf-8")


def test_work_in_the_newer_copy_is_kept_too(shipped, mine):
    lab.copy_lessons(mine)
    (mine / LESSON).write_text(book("x = 'my work'"), encoding="utf-8")
    (shipped / LESSON).write_text(book("x = 2"), encoding="utf-8")
    lab.copy_lessons(mine)
    (mine / "05_forward_noising.new.ipynb").write_text(book("x = 'more work'"), encoding="utf-8")
    (shipped / LESSON).write_text(book("x = 3"), encoding="utf-8")
    (line,) = lab.copy_lessons(mine)
    assert "move it away" in line
    assert "more work" in (mine / "05_forward_noising.new.ipynb").read_text(encoding="utf-8")


def test_an_unchanged_copy_follows_though_it_was_run(shipped, mine):
    lab.copy_lessons(mine)
    text = (mine / LESSON).read_text(encoding="utf-8")
    (mine / LESSON).write_text(text.replace('"text": ["1"]', '"text": ["another run"]'), encoding="utf-8")
    (shipped / LESSON).write_text(book("x = 2"), encoding="utf-8")
    (line,) = lab.copy_lessons(mine)
    assert "replaced your unchanged copy" in line
    assert "x = 2" in (mine / LESSON).read_text(encoding="utf-8")


@pytest.mark.parametrize("harm", ["lost record", "damaged record", "damaged lesson"])
def test_in_doubt_a_file_is_the_learners(shipped, mine, harm):
    lab.copy_lessons(mine)
    (mine / LESSON).write_text(
        "{half a notebook" if harm == "damaged lesson" else book("x = 'my work'"), encoding="utf-8"
    )
    if harm == "lost record":
        (mine / lab.RECORD).unlink()
    elif harm == "damaged record":
        (mine / lab.RECORD).write_text("[", encoding="utf-8")
    before = (mine / LESSON).read_bytes()
    (shipped / LESSON).write_text(book("x = 2"), encoding="utf-8")
    assert len(lab.copy_lessons(mine)) == 1
    assert (mine / LESSON).read_bytes() == before


def test_lab_opens_lesson_00_and_passes_options_on(shipped, mine, monkeypatch, capsys):
    calls = []
    monkeypatch.setattr(lab.subprocess, "call", lambda command, env: calls.append((command, env)) or 0)
    assert cli.main(["lab", "--folder", str(mine), "--no-browser", "--port=8899"]) == 0
    ((command, env),) = calls
    quiet = Path(env["JUPYTER_CONFIG_PATH"].split(os.pathsep)[0]) / "labconfig" / "page_config.json"
    assert json.loads(quiet.read_text(encoding="utf-8"))["disabledExtensions"]
    assert command[1:3] == ["-m", "jupyterlab"]
    assert {"--no-browser", "--port=8899", f"--ServerApp.root_dir={mine.parent}"} <= set(command)
    assert f"--LabApp.default_url=/lab/tree/{mine.name}/00_start_here.ipynb" in command
    assert cli.main(["lab", "--folder", str(mine), "--copy-only"]) == 0
    assert len(calls) == 1
    assert str(mine) in capsys.readouterr().out


def test_doctor_says_what_to_do_and_stops(monkeypatch, capsys):
    def broken():
        raise OSError("no such thing")

    checks = {
        "fine": lambda: doctor.Finding("ok", "all well"),
        "better": lambda: doctor.Finding("note", "do this"),
        "bad": broken,
    }
    monkeypatch.setattr(doctor, "CHECKS", checks)
    assert cli.main(["doctor"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines[:3]] == ["ok", "NOTE", "STOP"]
    assert "OSError: no such thing" in lines[2]
    monkeypatch.setattr(doctor, "CHECKS", {"better": checks["better"]})
    assert cli.main(["doctor"]) == 0


def test_doctor_sees_missing_data_and_damaged_checkpoints(monkeypatch, tmp_path):
    monkeypatch.setenv("COURSE_DATA", str(tmp_path / "nothing"))
    assert doctor._data().verdict == "note"
    monkeypatch.setattr(runtime, "assets_root", lambda: tmp_path)
    (tmp_path / "checkpoints").mkdir()
    assert doctor._checkpoints().verdict == "ok"
    (tmp_path / "checkpoints" / "tiny.json").write_text("{}", encoding="utf-8")
    found = doctor._checkpoints()
    assert found.verdict == "stop"
    assert "course train tiny" in found.text


def test_train_calls_the_recipe_and_names_the_known_ones(monkeypatch, capsys):
    from course_lib import recipes

    called = []
    monkeypatch.setattr(recipes, "names", lambda: ["tiny"])
    monkeypatch.setattr(recipes, "load", lambda name: SimpleNamespace(train=lambda: called.append(name)))
    assert cli.main(["train", "tiny"]) == 0
    assert called == ["tiny"]
    assert cli.main(["train"]) == 0
    assert capsys.readouterr().out == "tiny\n"
    assert cli.main(["train", "huge"]) == 1
    assert "there are: tiny" in capsys.readouterr().err


def test_progress_prints(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("COURSE_STATE", str(tmp_path))
    assert cli.main(["progress"]) == 0
    assert "exercises" in capsys.readouterr().out


@pytest.mark.parametrize("words", [[], ["sing"], ["doctor", "--loud"]])
def test_unknown_words_end_with_the_usage(words, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    assert ended.value.code == 2
    assert "usage: course" in capsys.readouterr().err
