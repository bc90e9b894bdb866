"""What surrounds a lesson: the decorator, hints, solutions, progress, sizes, bands and the set-up line."""

import json
import subprocess
import sys

import pytest
import torch

from course_lib import lesson
from course_lib.diffusion import Schedule
from course_lib.diffusion import q_step as library_q_step
from course_lib.lesson import exercise, expect, hint, progress, sizes, solution, solution_source


@pytest.fixture(autouse=True)
def state(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_STATE", str(tmp_path / "state"))
    return tmp_path / "state" / "progress.json"


def works(function):
    x, noise = torch.randn(2, 3), torch.randn(2, 3)
    schedule = Schedule.linear(50)
    assert torch.allclose(function(schedule, x, 7, noise), library_q_step(schedule, x, 7, noise))


def test_a_right_answer_is_kept_and_remembered(state, capsys):
    @exercise("5.2")
    def q_step(schedule, x_prev, t, noise):
        return library_q_step(schedule, x_prev, t, noise)

    assert "✓ exercise 5.2 (one noising step): passed" in capsys.readouterr().out
    assert q_step.verdict.status == "passed"
    works(q_step)
    assert list(json.loads(state.read_text())["passed"]) == ["5.2"]


@pytest.mark.parametrize("kind", ["stub", "wrong", "crash"])
def test_anything_else_is_replaced_and_stays_on_attempt(kind, state, capsys):
    def stub(schedule, x_prev, t, noise): ...

    def wrong(schedule, x_prev, t, noise):
        return x_prev + noise

    def crash(schedule, x_prev, t, noise):
        raise RuntimeError("boom")

    attempt = {"stub": stub, "wrong": wrong, "crash": crash}[kind]
    answer = exercise("5.2")(attempt)
    assert answer.attempt is attempt
    assert capsys.readouterr().out.startswith("○" if kind == "stub" else "✗")
    works(answer)
    assert not state.exists()
    assert not hasattr(library_q_step, "attempt")


def test_an_answer_without_the_default_still_works(state):
    @exercise("5.5")
    def cosine_betas(T, s):
        f = torch.cos((torch.arange(T + 1, dtype=torch.float64) / T + s) / (1 + s) * torch.pi / 2) ** 2
        return (1 - f[1:] / f[:-1]).clamp(max=0.999)

    assert cosine_betas.verdict.status == "passed"
    assert torch.allclose(cosine_betas(100), Schedule.cosine(100).betas)
    assert torch.allclose(cosine_betas(100, s=0.01), Schedule.cosine(100, 0.01).betas)


def test_a_damaged_progress_file_is_named_and_left_alone(state, capsys):
    state.parent.mkdir()
    state.write_text("{ half a fi")
    exercise("5.2")(library_q_step)
    assert "not a progress file any more" in capsys.readouterr().out
    progress()
    assert str(state) in capsys.readouterr().out
    assert state.read_text() == "{ half a fi"


def test_progress_counts(state, capsys):
    progress()
    assert "· 5.2" in capsys.readouterr().out
    exercise("5.2")(library_q_step)
    exercise("5.2")(library_q_step)
    capsys.readouterr()
    progress()
    out = capsys.readouterr().out
    assert "✓ 5.2" in out
    assert "· 5.3" in out
    assert "1 of" in out
    assert [path.name for path in state.parent.iterdir()] == ["progress.json"]


def test_progress_that_cannot_be_written_stops_nothing(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("COURSE_STATE", str(tmp_path / "file"))
    works(exercise("5.2")(library_q_step))
    assert "not remembered" in capsys.readouterr().out


def test_hints_come_in_order(capsys):
    hint("5.3")
    assert 'hint("5.3", 2)' in capsys.readouterr().out
    hint("5.3", 3)
    assert 'solution("5.3")' in capsys.readouterr().out


def test_solution_is_the_librarys_source(capsys):
    solution("5.2")
    printed = capsys.readouterr().out
    assert '@exercise("5.2")\ndef q_step(' in printed
    assert "torch.sqrt(beta) * noise" in printed
    assert printed.strip() == solution_source("5.2").strip()


def test_sizes(monkeypatch):
    monkeypatch.delenv("COURSE_STEPS", raising=False)
    monkeypatch.setenv("COURSE_PROFILE", "quick")
    assert sizes(images=(8, 64), steps=(10, 1000)).images == 8
    monkeypatch.setenv("COURSE_PROFILE", "full")
    assert sizes(images=(8, 64), steps=(10, 1000)).steps == 1000
    monkeypatch.setenv("COURSE_STEPS", "3")
    assert vars(sizes(images=(8, 64), steps=(10, 1000))) == {"images": 64, "steps": 3}


def test_expect_in_a_run_that_is_cut_short(capsys, monkeypatch):
    """Two training steps reach no band: the lesson says so and goes on."""
    monkeypatch.setenv("COURSE_STEPS", "2")
    for value in (0.7, float("nan")):
        expect("loss", value, 0.4, 0.6)
        assert "expected 0.4 … 0.6 without COURSE_STEPS" in capsys.readouterr().out
    expect("loss", 0.5, 0.4, 0.6)
    assert capsys.readouterr().out == "loss: 0.5 (expected 0.4 … 0.6)\n"


def test_expect(capsys):
    expect("loss", torch.tensor(0.5), 0.4, 0.6)
    assert capsys.readouterr().out == "loss: 0.5 (expected 0.4 … 0.6)\n"
    for value in (0.7, 0.3, float("nan"), float("inf")):
        with pytest.raises(AssertionError, match="loss is"):
            expect("loss", value, 0.4, 0.6)


def test_set_up_says_where_it_runs():
    code = "from course_lib.lesson import setup; setup()"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.count("\n") == 1
    for word in ("profile", "device", "torch", "Python"):
        assert word in out


def test_set_up_needs_nothing_before_it_has_looked():
    """On Colab the set-up cell runs before jaxtyping is there: importing `setup` must not import torch or jaxtyping."""
    code = "import sys; from course_lib.lesson import setup; print({'torch', 'jaxtyping', 'numpy'} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "set()"


def test_every_public_name_is_there_and_stays_itself():
    for name in lesson.__all__:
        first = getattr(lesson, name)
        assert callable(first)
        assert getattr(lesson, name) is first
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = lesson.nonsense
