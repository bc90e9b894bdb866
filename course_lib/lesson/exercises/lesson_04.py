"""Lesson 04, coordinate descent: exercises 4.1 to 4.4 with the mistakes that are usually made in them.

The two on sparse coefficients, 4.3 and 4.4, stand in `sparsity`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from course_lib.foundations import gauss_seidel, quadratic_step
from course_lib.lesson.exercises.sparsity import LASSO_RESIDUAL, SOFT_THRESHOLD
from course_lib.lesson.tasks import Exercise, Mistake

# --- 4.1 one coordinate step and 4.2 one sweep ---------------------------------------------------------------------


def _draw_quadratic(generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    d = int(torch.randint(3, 6, (), generator=generator))
    root, rest = torch.randn((d, d + 1), generator=generator), torch.rand((d,), generator=generator) + 1
    A = (root @ root.T + torch.diag(rest)).double()
    b, x = torch.randn((2, d), generator=generator, dtype=torch.float64)
    return A, b, x


def _draw_step(generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, int]:
    A, b, x = _draw_quadratic(generator)
    return A, b, x, int(torch.randint(0, len(b), (), generator=generator))


def _height(A: Tensor, b: Tensor, x: list[float]) -> float:
    n = range(len(x))
    return sum(0.5 * float(A[j, k]) * x[j] * x[k] for j in n for k in n) - sum(float(b[j]) * x[j] for j in n)


def _lowest_on_the_axis(A: Tensor, b: Tensor, x: Tensor, i: int) -> float:
    """Along one axis the function is a parabola: three heights on it tell where it is lowest."""
    low, middle, high = (_height(A, b, [*x[:i].tolist(), value, *x[i + 1 :].tolist()]) for value in (-1.0, 0.0, 1.0))
    return (low - high) / (2 * (low - 2 * middle + high))


def _triangle(A: Tensor, b: Tensor, x: Tensor) -> Tensor:
    """A whole sweep at once: (lower triangle with the diagonal) x_new = b - (upper triangle) x_old."""
    known = b.double() - torch.triu(A.double(), diagonal=1) @ x.double()
    return torch.linalg.solve_triangular(torch.tril(A.double()), known[:, None], upper=False)[:, 0]


def _others(A: Tensor, x: Tensor, i: int) -> Tensor:
    return A[i] @ x - A[i, i] * x[i]


QUADRATIC_STEP = Exercise(
    id="4.1",
    title="one coordinate step",
    reference=quadratic_step,
    independent=_lowest_on_the_axis,
    draw=_draw_step,
    mistakes=(
        Mistake(
            "own term kept",
            lambda A, b, x, i: (b[i] - A[i] @ x) / A[i, i],
            "subtracts all of A[i] @ x. The sum runs over the others only: take the own term A_ii x_i out of it. (What "
            "you have is the change of x_i, not its new value.)",
        ),
        Mistake(
            "gradient step",
            lambda A, b, x, i: x[i] - (A[i] @ x - b[i]),
            "goes one gradient step of size 1. The lowest point is wanted: the gradient must be divided by A_ii first.",
        ),
        Mistake(
            "not divided by A_ii",
            lambda A, b, x, i: b[i] - _others(A, x, i),
            "forgets to divide by A_ii. Set the slope A_ii x_i + (others) - b_i to 0 and solve for x_i.",
        ),
        Mistake(
            "sign of b",
            lambda A, b, x, i: (-b[i] - _others(A, x, i)) / A[i, i],
            "has the wrong sign on b_i. The function holds -bᵀx, so the slope is A x - b, and b_i comes out positive.",
        ),
        Mistake(
            "sign of the others",
            lambda A, b, x, i: (b[i] + _others(A, x, i)) / A[i, i],
            "adds the other coordinates' part. It stands beside A_ii x_i in the slope: on the other side, subtract it.",
        ),
        Mistake(
            "whole step in the wrong direction",
            lambda A, b, x, i: x[i] + (A[i] @ x - b[i]) / A[i, i],
            "walks up the slope. The function falls against the gradient: subtract (A x - b)_i / A_ii from x_i.",
        ),
    ),
    hints=(
        "The slope along coordinate i is (A x - b)_i. At the lowest point of this axis it is 0.",
        "Split the sum A[i] @ x into the own term A[i, i] * x[i] and the others. Which of them is unknown?",
        "others = A[i] @ x - A[i, i] * x[i]; then b[i] minus the others, divided by A[i, i].",
    ),
)

GAUSS_SEIDEL = Exercise(
    id="4.2",
    title="one sweep, newest values at once",
    reference=gauss_seidel,
    independent=_triangle,
    draw=_draw_quadratic,
    mistakes=(
        Mistake(
            "all from the old point",
            lambda A, b, x: torch.stack([(b[i] - _others(A, x, i)) / A[i, i] for i in range(len(x))]),
            "takes every step from the old x. That is Jacobi's order, which can run away: hand each step the x whose "
            "earlier coordinates are new already.",
        ),
        Mistake(
            "only one coordinate",
            lambda A, b, x: torch.cat([((b[0] - _others(A, x, 0)) / A[0, 0])[None], x[1:]]),
            "moves the first coordinate only. A sweep moves each of them once: is the `return` inside the loop?",
        ),
        Mistake(
            "last to first",
            lambda A, b, x: _triangle(A.flip(0, 1), b.flip(0), x.flip(0)).flip(0),
            "goes from the last coordinate to the first. Both orders arrive, but i = 0, 1, 2, … is asked for.",
        ),
        Mistake(
            "last coordinate left out",
            lambda A, b, x: torch.cat([_triangle(A, b, x)[:-1], x[-1:]]),
            "leaves the last coordinate as it was: range(len(x)) reaches it, range(len(x) - 1) does not.",
        ),
        Mistake(
            "two sweeps",
            lambda A, b, x: _triangle(A, b, _triangle(A, b, x)),
            "sweeps twice. One call is one sweep, k to k + 1: each coordinate moves once.",
        ),
    ),
    hints=(
        "Begin with x = x.clone(), so that the caller's x stays as it is. Then loop over i.",
        "Each step writes into that copy: x[i] = quadratic_step(A, b, x, i). The next step sees what has been written.",
        "Three lines: clone, a loop over range(len(x)) with the step in it, and the return after the loop.",
    ),
)

EXERCISES = (QUADRATIC_STEP, GAUSS_SEIDEL, SOFT_THRESHOLD, LASSO_RESIDUAL)
