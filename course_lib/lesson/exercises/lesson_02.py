"""Lesson 02, Gaussians and moments: exercises 2.1 to 2.4. The last two, on several variables, stand in `gaussians`."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from course_lib.foundations import central_moment, complete_square
from course_lib.lesson.exercises.gaussians import CONDITIONAL_NORMAL, SUM_NORMAL
from course_lib.lesson.tasks import Exercise, Mistake

# --- 2.1 central moments -------------------------------------------------------------------------------------------


def _draw_masses(generator: torch.Generator) -> tuple[Tensor, int, Tensor | None]:
    n, k = int(torch.randint(3, 9, (), generator=generator)), int(torch.randint(2, 6, (), generator=generator))
    x = torch.randn(n, generator=generator, dtype=torch.float64) + 1
    weights = 0.2 + 3 * torch.rand(n, generator=generator, dtype=torch.float64)
    return x, k, weights if torch.rand((), generator=generator) < 0.6 else None


def _by_loops(x: Tensor, k: int, weights: Tensor | None) -> Tensor:
    masses = [1.0] * len(x) if weights is None else weights.tolist()
    total = math.fsum(masses)
    center = math.fsum(m * v for m, v in zip(masses, x.tolist(), strict=True)) / total
    return x.new_tensor(math.fsum(m * (v - center) ** k for m, v in zip(masses, x.tolist(), strict=True)) / total)


def _masses(x: Tensor, weights: Tensor | None) -> Tensor:
    return torch.ones_like(x) if weights is None else weights


def _center(x: Tensor, weights: Tensor | None) -> Tensor:
    return _masses(x, weights) @ x / _masses(x, weights).sum()


CENTRAL_MOMENT = Exercise(
    id="2.1",
    title="central moments",
    reference=central_moment,
    independent=_by_loops,
    draw=_draw_masses,
    mistakes=(
        Mistake(
            "absolute values",
            lambda x, k, w=None: _masses(x, w) @ (x - _center(x, w)).abs() ** k / _masses(x, w).sum(),
            "takes absolute values (a source of this course does). Moments are signed: what lies to the left counts "
            "as negative for odd k, so that a symmetric heap has an odd moment of 0.",
        ),
        Mistake(
            "about 0",
            lambda x, k, w=None: _masses(x, w) @ x**k / _masses(x, w).sum(),
            "measures from 0: that is the raw moment. A central moment measures from the mean: subtract it first.",
        ),
        Mistake(
            "weights ignored",
            lambda x, k, w=None: ((x - x.mean()) ** k).mean(),
            "treats all values alike. With `weights`, both averages count each value by its weight.",
        ),
        Mistake(
            "mean without weights",
            lambda x, k, w=None: _masses(x, w) @ (x - x.mean()) ** k / _masses(x, w).sum(),
            "weighs the powers but not the mean from which they are measured. The mean needs the weights too.",
        ),
        Mistake(
            "weights not divided by their sum",
            lambda x, k, w=None: _masses(x, w) @ (x - _center(x, w)) ** k / (len(x) if w is None else 1),
            "adds up weight times power without dividing by the sum of the weights. An average divides.",
        ),
        Mistake(
            "divided by n - 1",
            lambda x, k, w=None: _by_loops(x, k, w) * (len(x) / (len(x) - 1) if w is None else 1),
            "divides by n - 1. That is a correction for estimating a variance from few samples; here every value "
            "counts 1/n. (torch.var does it too: say correction=0.)",
        ),
    ),
    hints=(
        "Two averages, one after the other: first the mean, then the average of (x - mean) to the power of k.",
        "The average of v with weights w is (w * v).sum() / w.sum(). Where weights is None, take torch.ones_like(x).",
        "mean = (w * x).sum() / w.sum(), and then the same with (x - mean) ** k in the place of x.",
    ),
)

# --- 2.2 completing the square -------------------------------------------------------------------------------------


def _draw_exponents(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    n = int(torch.randint(1, 5, (), generator=generator))
    a = 0.1 + 3 * torch.rand(n, generator=generator, dtype=torch.float64)
    return a, 2 * torch.randn(n, generator=generator, dtype=torch.float64)


def _by_area(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of the curve exp(-(a x² + b x)), measured on a fine grid."""
    means, variances = [], []
    for p, q in zip(a.tolist(), b.tolist(), strict=True):
        top = -q / (2 * p)
        x = torch.linspace(top - 9 / p**0.5, top + 9 / p**0.5, 4001, dtype=torch.float64)
        height = torch.softmax(-(p * x**2 + q * x), dim=0)
        means.append(float(height @ x))
        variances.append(float(height @ (x - means[-1]) ** 2))
    return a.new_tensor(means), a.new_tensor(variances)


COMPLETE_SQUARE = Exercise(
    id="2.2",
    title="completing the square",
    reference=complete_square,
    independent=_by_area,
    draw=_draw_exponents,
    mistakes=(
        Mistake(
            "half lost",
            lambda a, b: (-b / (2 * a), 1 / a),
            "has the right mean, but the variance is twice too large. The exponent is (x - mean)² / (2 variance), "
            "with a 2: compare the factors of x².",
        ),
        Mistake(
            "sign",
            lambda a, b: (b / (2 * a), 1 / (2 * a)),
            "has the mean on the wrong side. (x - m)² = x² - 2mx + …: a positive b means a negative mean.",
        ),
        Mistake(
            "half lost in the mean",
            lambda a, b: (-b / a, 1 / (2 * a)),
            "puts the mean twice too far out. (x - m)² = x² - 2mx + …: compare the factors of x, with the 2.",
        ),
        Mistake(
            "standard deviation for variance",
            lambda a, b: (-b / (2 * a), (1 / (2 * a)).sqrt()),
            "returns the standard deviation. The variance is wanted: leave the root out.",
        ),
        Mistake(
            "precision for variance",
            lambda a, b: (-b / (2 * a), 2 * a),
            "returns 2a, which is the precision. The variance is 1 divided by it.",
        ),
    ),
    hints=(
        "Write (x - mean)² / (2 variance) out as a sum of three terms. Which stand in front of x² and of x?",
        "x² has the factor 1 / (2 variance); this must be a. Solve for the variance.",
        "x has the factor -mean / variance; this must be b. Solve for the mean and put the variance in.",
    ),
)

EXERCISES = (CENTRAL_MOMENT, COMPLETE_SQUARE, SUM_NORMAL, CONDITIONAL_NORMAL)
