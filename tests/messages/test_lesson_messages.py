"""What a reader is told who asks a lesson for something that is not there."""

import pytest

from course_lib import recipes
from course_lib.lesson import exercise, expect, hint, sizes, solution


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: exercise("5.99"), r"there is no exercise '5.99'; there are 0.1, "),
        (lambda: hint("5.2", 0), "has hints 1 to 3, not 0"),
        (lambda: hint("nonsense"), "there is no exercise 'nonsense'"),
        (lambda: solution("7"), "there is no exercise '7'"),
        (lambda: sizes(images=8), r"images must be a pair \(quick, full\), got 8"),
        (lambda: expect("x", 1, 3, 2), "low must not exceed high"),
        (lambda: recipes.load("nonsense"), "there is no recipe 'nonsense'; there are .*recognition_curve"),
    ],
)
def test_message(call, words):
    with pytest.raises(ValueError, match=words):
        call()
