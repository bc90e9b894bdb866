"""A choice that cannot be is refused with the variable's name and what would do."""

import pytest
import torch

from course_lib import runtime


@pytest.mark.parametrize(
    ("variable", "value", "ask", "says"),
    [
        ("COURSE_PROFILE", "fast", runtime.profile, "quick, full"),
        ("COURSE_PRECISION", "half", runtime.precision, "auto, float32, bfloat16, float16"),
        ("COURSE_STEPS", "0", lambda: runtime.steps(3), "at least 1"),
        ("COURSE_STEPS", "2.5", lambda: runtime.steps(3), "whole number"),
        ("COURSE_DEVICE", "gpu!", runtime.device, "cpu, cuda or mps"),
    ],
)
def test_the_message_names_variable_value_and_remedy(monkeypatch, variable, value, ask, says):
    monkeypatch.setenv(variable, value)
    with pytest.raises(ValueError, match=variable) as caught:
        ask()
    assert value in str(caught.value)
    assert says in str(caught.value)


def test_a_device_that_is_not_here(monkeypatch):
    monkeypatch.setenv("COURSE_DEVICE", "cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r"COURSE_DEVICE='cuda' is not available.*cpu"):
        runtime.device()
