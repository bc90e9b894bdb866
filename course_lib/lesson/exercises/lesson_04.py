"""Lesson 04, coordinate descent: exercises 4.1 to 4.4. The last two, on the lasso, stand in `lasso`."""

from __future__ import annotations

import torch
from torch import Tensor

from course_lib.foundations import gauss_seidel, quadratic_step
from course_lib.lesson.exercises.lasso import LASSO_RESIDUAL, SOFT_THRESHOLD
from course_lib.lesson.tasks import Exercise, Mistake


def _draw_valley(generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    d = int(torch.randint(3, 6, (), generator=generator))
    root = torch.randn((d, d), generator=generator, dtype=torch.float64)
    b, x = torch.randn((2, d), generator=generator, dtype=torch.float64)
    return root @ root.T + torch.eye(d, dtype=torch.float64), b, x


# --- 4.1 one coordinate --------------------------------------------------------------------------------------------


def _draw_step(generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, int]:
    A, b, x = _draw_valley(generator)
    return A, b, x, int(torch.randint(0, len(b), (), generator=generator))


def _lowest_of_three(A: Tensor, b: Tensor, x: Tensor, i: int) -> Tensor:
    """The vertex of the parabola through three values of the function along axis i."""
    heights = []
    for shift in (-1.0, 0.0, 1.0):
        moved = x.clone()
        moved[i] += shift
        heights.append(0.5 * moved @ A @ moved - b @ moved)
    low, middle, high = heights
    return x[i] + (low - high) / (2 * (low - 2 * middle + high))


QUADRATIC_STEP = Exercise(
    id="4.1",
    title="one coordinate",
    reference=quadratic_step,
    independent=_lowest_of_three,
    draw=_draw_step,
    mistakes=(
        Mistake(
            "own term kept",
            lambda A, b, x, i: (b[i] - A[i] @ x) / A[i, i],
            "subtracts the whole row A[i] @ x. The coordinate's own term, A[i, i] * x[i], does not belong to the "
            "others: take it out. (What you return is the step to take; the new value is x[i] plus it.)",
        ),
        Mistake(
            "a gradient step",
            lambda A, b, x, i: x[i] - (A[i] @ x - b[i]),
            "takes a step of size 1 down the slope. The lowest point along the axis is known exactly: divide by "
            "A[i, i].",
        ),
        Mistake(
            "not divided by A_ii",
            lambda A, b, x, i: b[i] - (A[i] @ x - A[i, i] * x[i]),
            "forgets to divide by A[i, i], the curvature along this axis.",
        ),
        Mistake(
            "sign of b",
            lambda A, b, x, i: -(b[i] + A[i] @ x - A[i, i] * x[i]) / A[i, i],
            "has the sign of b wrong: the function is ½ xᵀA x minus bᵀx, so its gradient is A x - b.",
        ),
        Mistake(
            "others added",
            lambda A, b, x, i: (b[i] + A[i] @ x - A[i, i] * x[i]) / A[i, i],
            "adds what the other coordinates contribute. Solve A_ii x_i + (others) = b_i for x_i: they are subtracted.",
        ),
        Mistake(
            "others ignored",
            lambda A, b, x, i: b[i] / A[i, i],
            "looks at its own coordinate alone. What the others contribute, A[i, j] * x[j] for all j ≠ i, shifts the "
            "lowest point.",
        ),
    ),
    hints=(
        "Component i of the gradient is A[i] @ x - b[i]. At the lowest point along axis i it is 0.",
        "Split A[i] @ x into the part with x[i], which is A[i, i] * x[i], and the rest.",
        "others = A[i] @ x - A[i, i] * x[i]; then A[i, i] * (new value) + others = b[i]. Solve for the new value.",
    ),
)

# --- 4.2 one sweep -------------------------------------------------------------------------------------------------


def _triangle_solve(A: Tensor, b: Tensor, x: Tensor) -> Tensor:
    """One Gauss-Seidel sweep as a linear system: (lower triangle with diagonal) new = b - (strict upper triangle) x."""
    right = b - torch.triu(A, diagonal=1) @ x
    return torch.linalg.solve_triangular(torch.tril(A), right[:, None], upper=False)[:, 0]


def _sweep(A: Tensor, b: Tensor, x: Tensor, order, newest: bool = True) -> Tensor:
    new = x.clone()
    for i in order:
        new[i] = quadratic_step(A, b, new if newest else x, i)
    return new


GAUSS_SEIDEL = Exercise(
    id="4.2",
    title="one sweep",
    reference=gauss_seidel,
    independent=_triangle_solve,
    draw=_draw_valley,
    mistakes=(
        Mistake(
            "all from the old point",
            lambda A, b, x: _sweep(A, b, x, range(len(x)), newest=False),
            "computes every coordinate from the old x. That is Jacobi's method, which may even climb. Use each new "
            "value at once: put it into the copy that the next step reads.",
        ),
        Mistake(
            "first coordinate only",
            lambda A, b, x: _sweep(A, b, x, range(1)),
            "moves the first coordinate only. A sweep visits all of them: is the `return` inside the loop?",
        ),
        Mistake(
            "last coordinate missed",
            lambda A, b, x: _sweep(A, b, x, range(len(x) - 1)),
            "stops before the last coordinate: range(len(x)) already ends at len(x) - 1.",
        ),
        Mistake(
            "backwards",
            lambda A, b, x: _sweep(A, b, x, reversed(range(len(x)))),
            "sweeps from the last coordinate to the first. That works as well, but here the order is 0, 1, …, d - 1.",
        ),
        Mistake(
            "two sweeps",
            lambda A, b, x: gauss_seidel(A, b, gauss_seidel(A, b, x)),
            "sweeps twice. One sweep is wanted.",
        ),
    ),
    hints=(
        "Start with x = x.clone(), so that the caller's tensor is left alone.",
        "A loop over i, in which quadratic_step(A, b, x, i) is written into x[i].",
        "for i in range(len(x)): x[i] = quadratic_step(A, b, x, i), and return x after the loop.",
    ),
)

EXERCISES = (QUADRATIC_STEP, GAUSS_SEIDEL, SOFT_THRESHOLD, LASSO_RESIDUAL)
