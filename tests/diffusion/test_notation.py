"""Every name in the notation table exists in course_lib.diffusion, where the table says."""

import inspect

import pytest

import course_lib.diffusion as diffusion
from course_lib.diffusion import NOTATION, Schedule, notation_table


@pytest.mark.parametrize("symbol", NOTATION, ids=lambda s: s.name)
def test_name_exists(symbol):
    if symbol.where.startswith("Schedule."):
        assert symbol.where == f"Schedule.{symbol.name}"
        value = getattr(Schedule.linear(50), symbol.name)
        if symbol.shape == "(T,)":
            assert value.shape == (50,)
    elif " -> " in symbol.where:
        function, result = symbol.where.split(" -> ")
        assert result == symbol.name
        assert result in getattr(diffusion, function).__doc__
    else:
        function, argument = symbol.where.rstrip(")").split("(")
        assert argument == symbol.name
        assert argument in inspect.signature(getattr(diffusion, function)).parameters


def test_names_say_what_they_are():
    for symbol in NOTATION:
        assert symbol.name.endswith(("_variance", "_var")) <= (symbol.kind == "variance")
        assert symbol.name.endswith("_std") <= (symbol.kind == "std")


def test_every_symbol_is_a_row_of_the_table():
    rows = notation_table().splitlines()
    assert len(rows) == len(NOTATION) + 2
    assert len({row.count("|") for row in rows}) == 1
