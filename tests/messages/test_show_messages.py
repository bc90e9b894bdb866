"""What a reader is told who hands a figure function the wrong thing."""

import pytest
import torch

from course_lib import show
from course_lib.pixels import from_uint8, to_uint8

ONE = torch.zeros(1, 1, 4, 4)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: show.grid(torch.zeros(4, 4), alt="a"), ValueError, r"images must have shape .*got \(4, 4\)"),
        (lambda: show.grid(torch.zeros(1, 2, 4, 4), alt="a"), ValueError, "1 or 3"),
        (lambda: show.grid(torch.zeros(0, 1, 4, 4), alt="a"), ValueError, "images is empty"),
        (lambda: show.grid([[0.0]], alt="a"), TypeError, "images must be a tensor"),
        (lambda: show.grid(ONE, alt=" "), ValueError, "alt must say"),
        (lambda: show.grid(ONE, ["a", "b"], alt="a"), ValueError, "titles must have 1 entries, got 2"),
        (lambda: show.grid(ONE, alt="a", row_titles=[]), ValueError, "row_titles must have 1 entries, got 0"),
        (lambda: show.grid(ONE, alt="a", columns=0), ValueError, "columns must be at least 1"),
        (lambda: show.grid(ONE.to(torch.uint8), alt="a"), TypeError, "images must be a float tensor"),
        (lambda: show.grid(ONE / 0, alt="a"), ValueError, "NaN"),
        (lambda: show.strip([], [], alt="a"), ValueError, "labels must have one entry per state"),
        (lambda: show.strip([ONE], ["a", "b"], alt="a"), ValueError, "2 labels for 1 states"),
        (lambda: show.gif([], alt="a"), ValueError, "states is empty"),
        (lambda: show.gif([ONE], alt=""), ValueError, "alt must say"),
        (lambda: show.gif([ONE], alt="a", seconds=0), ValueError, "seconds must be positive"),
        (
            lambda: show.curves([1, 2], {"a": [1]}, xlabel="", ylabel="", alt="a"),
            ValueError,
            "a has 1 values but x has 2",
        ),
        (
            lambda: show.curves([1], {"a": [1]}, xlabel="", ylabel="", alt="a", bands={"b": [1]}),
            ValueError,
            "bands names",
        ),
        (lambda: show.slider(print, [1, 2], name="t", start=3), ValueError, "start=3 is not among"),
        (lambda: from_uint8(torch.zeros(3)), TypeError, "pixels must be a uint8 tensor"),
        (lambda: to_uint8(torch.zeros(3, dtype=torch.uint8)), TypeError, "images must be a float tensor"),
    ],
)
def test_message(call, error, words):
    with pytest.raises(error, match=words):
        call()
