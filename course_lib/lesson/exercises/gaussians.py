"""Exercises on several Gaussian variables: their weighted sum, and one given the others."""

from __future__ import annotations

import torch
from torch import Tensor

from course_lib.foundations import conditional_normal, sum_normal
from course_lib.lesson.tasks import Exercise, Mistake

# --- 2.3 weighted sums ---------------------------------------------------------------------------------------------


def _draw_sum(generator: torch.Generator) -> tuple[Tensor, ...]:
    mean_x, mean_y, a, b = torch.randn(4, generator=generator, dtype=torch.float64)
    var_x, var_y = 0.2 + 3 * torch.rand(2, generator=generator, dtype=torch.float64)
    correlation = 1.8 * torch.rand((), generator=generator, dtype=torch.float64) - 0.9
    return mean_x, var_x, mean_y, var_y, a, b, correlation * (var_x * var_y).sqrt()


def _by_matrix(mean_x, var_x, mean_y, var_y, a=1.0, b=1.0, covariance=0.0) -> tuple[Tensor, Tensor]:
    """The map (a, b) applied to a two-dimensional Gaussian: rows times matrix times column."""
    row = torch.stack([a, b])
    matrix = torch.stack([torch.stack([var_x, covariance]), torch.stack([covariance, var_y])])
    return row @ torch.stack([mean_x, mean_y]), row @ matrix @ row


def _mean(mx, vx, my, vy, a, b, c) -> Tensor:
    return a * mx + b * my


def _numbers_without_weights(answer, generator) -> str | None:
    mean_x, var_x, mean_y, var_y, *_ = _draw_sum(generator)
    mean, variance = answer(mean_x, var_x, mean_y, var_y)
    right = abs(float(mean - mean_x - mean_y)) < 1e-4 and abs(float(variance - var_x - var_y)) < 1e-4
    return None if right else "needs the defaults a=1.0, b=1.0, covariance=0.0, as they stand in the exercise."


SUM_NORMAL = Exercise(
    id="2.3",
    title="weighted sums",
    reference=sum_normal,
    independent=_by_matrix,
    draw=_draw_sum,
    properties=(_numbers_without_weights,),
    mistakes=(
        Mistake(
            "scale not squared",
            lambda mx, vx, my, vy, a, b, c: (_mean(mx, vx, my, vy, a, b, c), a * vx + b * vy + 2 * a * b * c),
            "multiplies a variance by the weight itself. Twice as large numbers have four times the variance: square "
            "the weights.",
        ),
        Mistake(
            "standard deviations added",
            lambda mx, vx, my, vy, a, b, c: (
                _mean(mx, vx, my, vy, a, b, c),
                (a.abs() * vx.sqrt() + b.abs() * vy.sqrt()) ** 2,
            ),
            "adds standard deviations. Only variances add; two independent errors partly cancel.",
        ),
        Mistake(
            "covariance ignored",
            lambda mx, vx, my, vy, a, b, c: (_mean(mx, vx, my, vy, a, b, c), a**2 * vx + b**2 * vy),
            "leaves the covariance out, as if X and Y were always independent (a source of this course does). If they "
            "move together, the sum spreads more: add 2 a b covariance.",
        ),
        Mistake(
            "cross term once",
            lambda mx, vx, my, vy, a, b, c: (_mean(mx, vx, my, vy, a, b, c), a**2 * vx + b**2 * vy + a * b * c),
            "adds the covariance once. The square (u + v)² = u² + 2uv + v² has it twice.",
        ),
        Mistake(
            "cross term without weights",
            lambda mx, vx, my, vy, a, b, c: (_mean(mx, vx, my, vy, a, b, c), a**2 * vx + b**2 * vy + 2 * c),
            "forgets the weights in the cross term: it is 2 a b covariance.",
        ),
        Mistake(
            "standard deviation for variance",
            lambda mx, vx, my, vy, a, b, c: (
                _mean(mx, vx, my, vy, a, b, c),
                (a**2 * vx + b**2 * vy + 2 * a * b * c).sqrt(),
            ),
            "returns the standard deviation of the sum. The variance is wanted: leave the root out.",
        ),
    ),
    hints=(
        "The mean is easy: a times one mean plus b times the other, whether they are independent or not.",
        "For the variance, think of (a u + b v)² = a² u² + b² v² + 2ab uv, averaged, with u and v measured from "
        "their means.",
        "a² var_x + b² var_y + 2ab covariance.",
    ),
)

# --- 2.4 one given the others --------------------------------------------------------------------------------------


def _draw_joint(generator: torch.Generator) -> tuple[Tensor, Tensor, list[int], Tensor]:
    d = int(torch.randint(2, 5, (), generator=generator))
    root = torch.randn((d, d), generator=generator, dtype=torch.float64) + 1.5 * torch.eye(d, dtype=torch.float64)
    known = int(torch.randint(1, d, (), generator=generator))
    given = torch.randperm(d, generator=generator)[:known].tolist()
    mean = torch.randn(d, generator=generator, dtype=torch.float64) + 1
    values = torch.randn(known, generator=generator, dtype=torch.float64)
    return mean, root @ root.T + 0.3 * torch.eye(d, dtype=torch.float64), given, values


def _by_precision(mean: Tensor, covariance: Tensor, given: list[int], values: Tensor) -> tuple[Tensor, Tensor]:
    """Through the inverse of the whole covariance, whose block for the rest is the inverse of what is wanted."""
    rest = [i for i in range(len(mean)) if i not in given]
    precision = torch.linalg.inv(covariance)
    left = torch.linalg.inv(precision[rest][:, rest])
    return mean[rest] - left @ precision[rest][:, given] @ (values - mean[given]), left


def _blocks(covariance: Tensor, given: list[int]) -> tuple[Tensor, Tensor, Tensor, list[int]]:
    rest = [i for i in range(len(covariance)) if i not in given]
    return covariance[rest][:, rest], covariance[rest][:, given], covariance[given][:, given], rest


def _wrong(sign_mean: int, sign_cov: int, center: int, invert: bool = True):
    def answer(mean, covariance, given, values):
        of_rest, cross, of_given, rest = _blocks(covariance, given)
        gain = cross @ torch.linalg.inv(of_given) if invert else cross
        shift = gain @ (values - center * mean[given])
        return mean[rest] + sign_mean * shift, of_rest + sign_cov * gain @ cross.T

    return answer


CONDITIONAL_NORMAL = Exercise(
    id="2.4",
    title="some variables given the others",
    reference=conditional_normal,
    independent=_by_precision,
    draw=_draw_joint,
    mistakes=(
        Mistake(
            "sign of the shift",
            _wrong(-1, -1, 1),
            "moves the mean to the wrong side. If the two go together and the known one is above its mean, so is the "
            "expectation of the other: add the shift.",
        ),
        Mistake(
            "covariance grows",
            _wrong(1, 1, 1),
            "adds to the covariance. Knowing something never makes a Gaussian wider: subtract.",
        ),
        Mistake(
            "covariance unchanged",
            _wrong(1, 0, 1),
            "moves the mean but leaves the covariance as it was. What is known of the others takes uncertainty away: "
            "subtract Σ_ab Σ_bb⁻¹ Σ_ba.",
        ),
        Mistake(
            "mean of the known ones forgotten",
            _wrong(1, -1, 0),
            "uses the values as they are. What counts is how far they lie from their own mean: values - mean[given].",
        ),
        Mistake(
            "not divided by the covariance of the known ones",
            _wrong(1, -1, 1, invert=False),
            "leaves Σ_bb⁻¹ out. The shift must not depend on the unit in which the known variables are measured.",
        ),
        Mistake(
            "known ones crossed out",
            lambda m, S, g, v: (m[_blocks(S, g)[3]], _blocks(S, g)[0]),
            "returns the marginal: what the rest looks like if nothing is known. Here the values of the others are "
            "known, and they move the mean and shrink the covariance.",
        ),
    ),
    hints=(
        "First cut the covariance into blocks. rest = [i for i in range(len(mean)) if i not in given]; then "
        "covariance[rest][:, given] is Σ_ab, and so on.",
        "gain = Σ_ab Σ_bb⁻¹: covariance[rest][:, given] @ torch.linalg.inv(covariance[given][:, given]).",
        "The mean is mean[rest] + gain @ (values - mean[given]); the covariance Σ_aa - gain @ Σ_ba.",
    ),
)
