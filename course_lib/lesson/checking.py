"""How an answer is judged: attempted at all? right arguments? right shape? right values? which usual mistake?"""

from __future__ import annotations

import contextlib
import copy
import dis
import inspect
import io
import traceback
from collections.abc import Callable
from numbers import Real

import torch
from torch import Tensor

from course_lib.lesson.tasks import Exercise, Mistake, Verdict

Outcome = tuple[Tensor, ...]


class _Wrong(Exception):
    """Says in one sentence what is wrong with an answer."""


def check(task: Exercise, attempt: Callable, seed: int = 0) -> Verdict:
    """Judge an answer; nothing is printed or recorded, and no error of the answer's gets out."""
    if not attempted(attempt):
        message = f'not attempted yet. Replace the `...`; hint("{task.id}") helps.'
        return Verdict("not attempted", message)
    generator = torch.Generator().manual_seed(seed)
    draws = [task.draw(generator) for _ in range(task.draws)]
    raw = [task.independent(*args) for args in draws]
    number = "list of numbers" if isinstance(raw[0], list) else isinstance(raw[0], int | float)
    expected = [outcome(value, number=True) for value in raw]
    try:
        _check_signature(task, attempt)
        found = [_call(task, attempt, args, number, show_prints=k == 0) for k, args in enumerate(draws)]
        for right, given in zip(expected, found, strict=True):
            _check_shape(right, given)
        worst = _first_difference(task, expected, found)
        if worst is not None:
            mistake = _recognise(task, draws, found)
            if mistake is not None:
                return Verdict("wrong", f"{mistake.message} {_REST}", mistake.name)
            if not _same(task, found[0], _call(task, attempt, draws[0], number)):
                raise _Wrong("gives different values for the same arguments: use the noise it is handed, draw none.")
            raise _Wrong(worst)
        for rule in task.properties:
            complaint = rule(attempt, generator)
            if complaint:
                raise _Wrong(complaint)
    except _Wrong as wrong:
        return Verdict("wrong", f"{wrong} {_REST}")
    except (Exception, SystemExit) as error:  # an answer may do anything, and no check may stop the lesson
        return Verdict("wrong", f"{_where(error, attempt)} {_REST}")
    rules = f" and {len(task.properties)} more check{'s' * (len(task.properties) > 1)}" if task.properties else ""
    return Verdict("passed", f"passed: right on {task.draws} random draws{rules}.")


_NTH = ("first", "second", "third", "fourth")
_REST = "The lesson goes on with ours; yours is on `.attempt`."


def attempted(function: Callable) -> bool:
    """False for a body of `...`, `pass` or `return ...`, with or without a docstring: it hands back a constant."""
    function = inspect.unwrap(function)  # a stub under another decorator is still a stub
    if not hasattr(function, "__code__"):
        return True
    steps = [step for step in dis.get_instructions(function) if step.opname not in ("RESUME", "NOP")]
    if any(step.opname not in ("LOAD_CONST", "RETURN_CONST", "RETURN_VALUE") for step in steps):
        return True
    return steps[0].argval is not None and steps[0].argval is not ...


def outcome(value: object, number: bool | str = False) -> Outcome:
    """Whatever an answer returned, as a tuple of tensors; plain numbers, or a list of them, where `number` allows it.

    Raises _Wrong for anything else: a NumPy array or a list may hold the right values, but the lesson goes on with
    torch.
    """
    if value is None:
        raise _Wrong("returns nothing: is the `return` missing?")
    if value is ...:
        raise _Wrong("returns `...`: put your formula in its place.")
    if number and isinstance(value, int | float) and not isinstance(value, bool):
        return (torch.as_tensor(value),)
    if number and isinstance(value, list | tuple | range) and all(isinstance(v, Real) for v in value):
        return (torch.tensor([float(v) for v in value], dtype=torch.float64),)
    several = isinstance(value, tuple) or (isinstance(value, list) and all(isinstance(v, Tensor) for v in value))
    parts = tuple(value) if several else (value,)
    wanted = number if isinstance(number, str) else "number" if number else "torch tensor"
    for k, part in enumerate(parts):
        if not isinstance(part, Tensor):
            kind = f"{type(part).__module__}.{type(part).__name__}".removeprefix("builtins.")
            which = f", as {_NTH[k]} of {len(parts)} values" if 1 < len(parts) <= len(_NTH) else ""
            raise _Wrong(f"returns a {kind}{which}, but a {wanted} is wanted.")
    return parts


def _check_signature(task: Exercise, attempt: Callable) -> None:
    wanted = inspect.signature(task.reference).parameters
    try:
        given = inspect.signature(attempt).parameters
    except (TypeError, ValueError):  # some built-in functions do not tell
        raise _Wrong(f"is no function of your own; one with the arguments ({', '.join(wanted)}) is wanted.") from None
    if list(given) != list(wanted):
        raise _Wrong(f"takes the arguments ({', '.join(given)}), but ({', '.join(wanted)}) are wanted.")


def call(task: Exercise, function: Callable, args: tuple) -> object:
    """`function` on one draw; what stands behind a `*` in the reference's signature is handed over by name."""
    parameters = list(inspect.signature(task.reference).parameters.values())[: len(args)]
    named = [p.kind is p.KEYWORD_ONLY for p in parameters]
    keywords = {p.name: value for p, by_name, value in zip(parameters, named, args, strict=True) if by_name}
    return function(*args[: len(args) - len(keywords)], **keywords)


def _call(task: Exercise, function: Callable, args: tuple, number: bool | str, show_prints: bool = False) -> Outcome:
    """Call with copies of the arguments, so that a change in place is noticed and harms nobody."""
    handed = copy.deepcopy(args)
    prints = io.StringIO()
    with contextlib.redirect_stdout(prints):
        result = outcome(call(task, function, handed), number)
    if show_prints and prints.getvalue():
        print(prints.getvalue(), end="")
    for before, after in zip(args, handed, strict=True):
        if isinstance(before, Tensor) and not torch.equal(before, after):
            raise _Wrong("changes one of its arguments in place: build a new tensor instead (x * 2, not x *= 2).")
    return result


def _check_shape(expected: Outcome, found: Outcome) -> None:
    if len(expected) != len(found):
        raise _Wrong(f"returns {_count(len(found))} where {_count(len(expected))} would do.")
    for k, (right, given) in enumerate(zip(expected, found, strict=True)):
        if given.shape != right.shape:
            shapes = f"the shape {tuple(given.shape)}, but {tuple(right.shape)} is wanted"
            raise _Wrong(f"returns {shapes}{f' as {_NTH[k]} value' if len(found) > 1 else ''}.")
        if given.dtype in (torch.bool, torch.complex64, torch.complex128):
            raise _Wrong(f"returns {given.dtype} values, but real numbers are wanted.")


def _count(n: int) -> str:
    return "one value" if n == 1 else f"{n} values"


def _same(task: Exercise, right: Outcome, given: Outcome) -> bool:
    return all(
        g.shape == r.shape and torch.allclose(g.double(), r.double(), rtol=task.rtol, atol=task.atol, equal_nan=True)
        for r, g in zip(right, given, strict=True)
    )


def _first_difference(task: Exercise, expected: list[Outcome], found: list[Outcome]) -> str | None:
    for right, given in zip(expected, found, strict=True):
        if _same(task, right, given):
            continue
        for n, (r, g) in enumerate(zip(right, given, strict=True)):
            gap = (r.double() - g.double()).abs().nan_to_num(nan=float("inf"))
            gap = torch.where(r.double() == g.double(), 0.0, gap).flatten()  # ∞ - ∞ is no difference
            if len(gap) and gap.max() > task.atol:
                k = int(gap.argmax())
                value, wanted = (float(v.detach().flatten()[k]) for v in (g, r))
                shape = "has the right shape but other values: for example" if r.ndim else "gives"
                if len(right) > 1:
                    shape = f"is wrong in its {_NTH[n]} value: it has" if r.ndim else f"gives as its {_NTH[n]} value"
                return f"{shape} {value:.5g} where {wanted:.5g} is right."
        return "has the right shape but slightly different values."
    return None


def _recognise(task: Exercise, draws: list[tuple], found: list[Outcome]) -> Mistake | None:
    """The usual mistake that gives the very same values on every draw, if there is one."""
    for mistake in task.mistakes:
        try:
            if all(
                _same(task, outcome(mistake.function(*copy.deepcopy(args)), number=True), given)
                for args, given in zip(draws, found, strict=True)
            ):
                return mistake
        except (ArithmeticError, RuntimeError, ValueError, TypeError, IndexError, _Wrong):
            continue  # this mistake cannot be made on these draws
    return None


def _where(error: BaseException, attempt: Callable) -> str:
    """`stopped with ZeroDivisionError: … in line 3 of the cell`: a notebook's cell is a file of its own."""
    code = getattr(inspect.unwrap(attempt), "__code__", None)
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if code and f.filename == code.co_filename]
    place = f" in line {lines[-1]} of the cell" if lines else ""
    advice = ""
    if isinstance(error, RuntimeError) and "must match the size of tensor" in str(error):
        advice = (
            " Two shapes do not fit together. x[:, None] makes a row of numbers a column; for a batch of images, "
            "`gather` gives one number per image, shaped (batch, 1, 1, 1)."
        )
    if isinstance(error, ValueError | TypeError) and "only one element" in str(error):
        advice = " `math` works on single numbers; for tensors use torch.sqrt, torch.log, torch.cos, .clamp(max=…)."
    return f"stopped with {type(error).__name__}: {error}{place}.{advice}"
