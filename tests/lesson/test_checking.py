"""The checker itself: what it says of answers that are missing, broken, or wrong in a way nobody named."""

import dataclasses
import math
import re
import sys

import pytest
import torch

from course_lib.lesson.checking import attempted, check
from course_lib.lesson.tasks import Exercise, Mistake


def affine(x, shift):
    """Twice x, shifted."""
    return 2 * x + shift


def draw(generator):
    return torch.randn(3, 2, generator=generator), torch.randn((), generator=generator)


TASK = Exercise(
    id="99.1",
    title="a test",
    reference=affine,
    independent=lambda x, shift: x + x + shift,
    draw=draw,
    mistakes=(Mistake("sign", lambda x, shift: 2 * x - shift, "has the wrong sign."),),
    hints=("a", "b"),
)


def missing_a(x, shift): ...


def missing_b(x, shift):
    """A docstring."""


def missing_c(x, shift):
    pass


def missing_d(x, shift):
    return ...


def missing_e(x, shift):
    return None


@pytest.mark.parametrize("stub", [missing_a, missing_b, missing_c, missing_d, missing_e])
def test_a_stub_is_not_an_attempt(stub):
    assert not attempted(stub)
    assert check(TASK, stub).status == "not attempted"


@pytest.mark.parametrize("answer", [lambda x, shift: 0, lambda x, shift: x, affine])
def test_anything_else_is(answer):
    assert attempted(answer)


class Answer:
    def __init__(self, x, shift):
        pass


@torch.no_grad()
def missing_under_a_decorator(x, shift): ...


def in_place(x, shift):
    x *= 2
    return x + shift


def random_answer(x, shift):
    return 2 * x + shift + torch.randn(x.shape)


def other_names(y, shift):
    return 2 * y + shift


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda x, shift: (2 * x + shift)[0], r"returns the shape \(2,\), but \(3, 2\) is wanted"),
        (lambda x, shift: (x, shift), "returns 2 values where one value would do"),
        (lambda x, shift: print("x"), "returns nothing: is the `return` missing"),
        (lambda x, shift: "x" + str(shift), "returns a str, but a torch tensor is wanted"),
        (lambda x, shift: x > shift, "torch.bool"),
        (lambda x, shift: (2 * x + shift).numpy(), "returns a numpy.ndarray, but a torch tensor is wanted"),
        (lambda x, shift: (2 * x + shift).tolist(), "returns a list, but a torch tensor is wanted"),
        (lambda x, shift: x + torch.zeros(7), "Two shapes do not fit"),
        (lambda x, shift: math.sqrt(x), "for tensors use torch.sqrt"),
        (lambda x, shift: 2 * x + shift + 1, "right shape but other values: for example"),
        (lambda x, shift: 2 * x * float("nan"), "right shape but other values: for example nan"),
        (lambda x, shift: x / 0 * 0, "other values"),
        (lambda x, shift: 1 / 0, r"stopped with ZeroDivisionError: division by zero in line \d+ of the cell"),
        (lambda x, shift: x @ x, "stopped with RuntimeError"),
        (lambda x, shift: undefined_name, "stopped with NameError"),
        (in_place, "changes one of its arguments in place"),
        (random_answer, "gives different values for the same arguments"),
        (other_names, r"takes the arguments \(y, shift\), but \(x, shift\) are wanted"),
        (lambda x: x, r"takes the arguments \(x\)"),
        (lambda x, shift: sys.exit("enough"), "stopped with SystemExit: enough"),
        (lambda x, shift: (2 * x + shift).to_sparse(), "stopped with|other values|slightly different"),
        (torch.logit, "arguments .* wanted"),
        (Answer, "returns a .*Answer, but a torch tensor is wanted"),
        (torch.no_grad()(lambda x, shift: 1 / 0), "stopped with ZeroDivisionError"),
    ],
)
def test_a_wrong_answer_is_explained(answer, words):
    verdict = check(TASK, answer)
    assert verdict.status == "wrong"
    assert verdict.mistake is None
    assert re.search(words, verdict.message), verdict.message


@pytest.mark.parametrize(
    "answer",
    [
        affine,
        lambda x, shift: (2 * x + shift).double(),
        lambda x, shift: torch.as_tensor((2 * x + shift).numpy()),
    ],
)
def test_right_answers_of_any_make_pass(answer):
    assert check(TASK, answer).status == "passed"


def test_a_stub_under_another_decorator_is_not_an_attempt():
    assert check(TASK, missing_under_a_decorator).status == "not attempted"


def test_the_named_mistake_wins():
    verdict = check(TASK, lambda x, shift: 2 * x - shift)
    assert (verdict.mistake, verdict.status) == ("sign", "wrong")


def test_properties_speak_last():
    def rule(answer, generator):
        return "breaks the rule." if answer(torch.zeros(1, 1), torch.zeros(())).item() == 0 else None

    task = Exercise(**{**TASK.__dict__, "properties": (rule,)})
    verdict = check(task, affine)
    assert verdict.status == "wrong"
    assert "breaks the rule" in verdict.message


def test_prints_of_the_first_call_only(capsys):
    def chatty(x, shift):
        print("here")
        return 2 * x + shift

    assert check(TASK, chatty).status == "passed"
    assert capsys.readouterr().out == "here\n"


PAIR = Exercise(
    id="9.9",
    title="two values",
    reference=lambda x: (x, x.sum()),
    independent=lambda x: (x.clone(), x.sum()),
    draw=lambda generator: (torch.randn(3, generator=generator, dtype=torch.float64),),
    mistakes=(),
    hints=(),
)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda x: x, "returns one value where 2 values would do"),
        (lambda x: (x, x), r"returns the shape \(3,\), but \(\) is wanted as second value"),
        (lambda x: (x, float(x.sum())), "returns a float, as second of 2 values, but a torch tensor is wanted"),
        (lambda x: (x, 2 * x.sum()), "gives as its second value"),
        (lambda x: (2 * x, x.sum()), "is wrong in its first value"),
    ],
)
def test_of_two_values_the_wrong_one_is_named(answer, words):
    verdict = check(PAIR, answer)
    assert verdict.status == "wrong"
    assert re.search(words, verdict.message), verdict.message


def test_a_list_of_tensors_is_as_good_as_a_tuple():
    assert check(PAIR, lambda x: [x, x.sum()]).status == "passed"


def by_name(x, *, shift=0.0):
    """Twice x, shifted by an argument that has a name and no place."""
    return 2 * x + shift


def test_arguments_behind_a_star_are_handed_over_by_name():
    task = dataclasses.replace(TASK, reference=by_name)
    assert check(task, by_name).status == "passed"
    assert check(task, affine).status == "passed"  # an answer may do without the star
    assert check(task, lambda x, *, shift=0.0: 2 * x - shift).mistake == "sign"


def test_a_list_of_numbers():
    """Where the answer is a list of whole numbers, a list, a range or a tensor of them will do; nothing else."""

    def countdown(n):
        return list(range(n, 0, -1))

    task = dataclasses.replace(
        TASK,
        reference=countdown,
        independent=countdown,
        draw=lambda generator: (int(torch.randint(2, 9, (), generator=generator)),),
        mistakes=(Mistake("rising", lambda n: list(range(1, n + 1)), "rises."),),
    )
    for right in (countdown, lambda n: range(n, 0, -1), lambda n: torch.arange(n, 0, -1)):
        assert check(task, right).status == "passed"
    assert check(task, lambda n: list(range(1, n + 1))).mistake == "rising"
    assert "a list of numbers is wanted" in check(task, lambda n: str(n)).message
    assert check(task, lambda n: list(range(n))[1:]).status == "wrong"
