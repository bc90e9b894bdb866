"""Lesson 14, measuring images: exercises 14.1 to 14.4 with the mistakes that are usually made in them.

The two on samples one by one, 14.3 and 14.4, stand in `clouds`.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from course_lib.evaluation import feature_distance, frechet_distance, mean_over_pairs
from course_lib.lesson.exercises.clouds import MMD, PRECISION
from course_lib.lesson.tasks import Exercise, Mistake

# --- 14.1 the Fréchet distance ---------------------------------------------------------------------------------------


def _draw_moments(generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Two means and two covariances that do not commute, in 2 to 5 dimensions."""
    d = int(torch.randint(2, 6, (), generator=generator))
    means = torch.randn(2, d, generator=generator, dtype=torch.float64)
    roots = torch.randn(2, d, d, generator=generator, dtype=torch.float64)
    covs = roots @ roots.mT + 0.1 * torch.eye(d, dtype=torch.float64)
    return means[0], covs[0], means[1], covs[1]


def _by_eigenvalues_of_the_product(mean_a, cov_a, mean_b, cov_b) -> float:
    """A B is not symmetric, but its eigenvalues are those of A^½ B A^½: none is negative, if rounding is cut off."""
    values = np.linalg.eigvals(cov_a.numpy() @ cov_b.numpy()).real
    values[values < 1e-10 * values.max()] = 0
    apart = sum((a - b) ** 2 for a, b in zip(mean_a.tolist(), mean_b.tolist(), strict=True))
    return apart + float(np.trace(cov_a.numpy()) + np.trace(cov_b.numpy()) - 2 * np.sqrt(values).sum())


def _root(cov: Tensor) -> Tensor:
    """The symmetric root."""
    values, vectors = torch.linalg.eigh(cov)
    return vectors * values.clamp(min=0).sqrt() @ vectors.T


def _with(overlap, means: float = 1.0):
    """The formula with another third term: `overlap(A, B)` is what twice is subtracted."""

    def answer(mean_a, cov_a, mean_b, cov_b) -> float:
        apart = means * (mean_a - mean_b).square().sum()
        return (apart + cov_a.trace() + cov_b.trace() - 2 * overlap(cov_a, cov_b)).item()

    return answer


def _right_overlap(cov_a: Tensor, cov_b: Tensor) -> Tensor:
    return _root(_root(cov_a) @ cov_b @ _root(cov_a)).trace()


def _flat_clouds(answer, generator) -> str | None:
    """The distance of a Gaussian to itself, where it fills two dimensions out of eight."""
    for _ in range(4):
        root = torch.randn(8, 2, generator=generator, dtype=torch.float64)
        mean, cov = torch.zeros(8, dtype=torch.float64), root @ root.T
        try:
            found = float(answer(mean, cov, mean.clone(), cov.clone()))
        except torch.linalg.LinAlgError:  # eigenvalues of a matrix of NaN
            found = math.nan
        if not math.isfinite(found) or abs(found) > 0.1:  # wide enough for an answer in float32
            return (
                f"gives {found:.3g} for two equal Gaussians whose covariance is singular, and 0 is right. Rounding "
                "makes eigenvalues of 0 a little negative: clamp them at 0 before the square root, everywhere."
            )
    return None


FRECHET = Exercise(
    id="14.1",
    title="the Fréchet distance",
    reference=frechet_distance,
    independent=_by_eigenvalues_of_the_product,
    draw=_draw_moments,
    properties=(_flat_clouds,),
    atol=1e-4,
    mistakes=(
        Mistake(
            "the product of the roots",
            _with(lambda a, b: (_root(a) @ _root(b)).trace()),
            "takes the trace of A^½ B^½. That equals the trace of (A^½ B A^½)^½ only where A and B have the same axes: "
            "multiply first, then take the root.",
        ),
        Mistake(
            "the root of each entry",
            _with(lambda a, b: (a @ b).clamp(min=0).sqrt().trace()),
            "takes the root of each entry. The root of a matrix M is the matrix R with R R = M: take the roots of the "
            "eigenvalues.",
        ),
        Mistake(
            "variances only",
            _with(lambda a, b: (a.diagonal() * b.diagonal()).sqrt().sum()),
            "uses the diagonals of the covariances only, as if the features were independent of each other.",
        ),
        Mistake(
            "the length, not its square",
            lambda ma, a, mb, b: (
                frechet_distance(ma, a, mb, b) - (ma - mb).square().sum().item() + (ma - mb).norm().item()
            ),
            "adds the distance of the means. Equation 14.2 has its square, like the variances beside it.",
        ),
        Mistake(
            "the means' distance averaged",
            lambda ma, a, mb, b: (
                frechet_distance(ma, a, mb, b) - (ma - mb).square().sum().item() + (ma - mb).square().mean().item()
            ),
            "averages the squared differences of the means. Add them up: every dimension counts in full.",
        ),
        Mistake(
            "the means forgotten",
            _with(_right_overlap, means=0.0),
            "leaves out the means: two clouds of the same form in different places would be equal.",
        ),
        Mistake(
            "the 2 forgotten",
            lambda ma, a, mb, b: frechet_distance(ma, a, mb, b) + _right_overlap(a, b).item(),
            "subtracts the third term once. It counts twice: (s - t)² = s² + t² - 2 s t.",
        ),
        Mistake(
            "the root of the distance",
            lambda ma, a, mb, b: math.sqrt(frechet_distance(ma, a, mb, b)),
            "takes a root in the end. What is called FID is the squared distance: leave it squared.",
        ),
    ),
    hints=(
        "Three terms: (mean_a - mean_b).square().sum(), the two traces, and twice the trace of a root.",
        "A root of a symmetric matrix: values, vectors = torch.linalg.eigh(M); then "
        "vectors * values.clamp(min=0).sqrt() @ vectors.T.",
        "The trace of (A^½ B A^½)^½ is the sum of the roots of its eigenvalues: "
        "torch.linalg.eigvalsh(root_a @ cov_b @ root_a).clamp(min=0).sqrt().sum().",
    ),
)

# --- 14.2 the floor --------------------------------------------------------------------------------------------------


def _draw_sets(generator: torch.Generator) -> tuple[Tensor, int, list[Tensor]]:
    count, d = (int(torch.randint(*ends, (), generator=generator)) for ends in ((40, 60), (2, 4)))
    n = 2 * int(torch.randint(6, 10, (), generator=generator)) + 1
    features = torch.randn(count, d, generator=generator, dtype=torch.float64) ** 3
    splits = int(torch.randint(2, 5, (), generator=generator))
    return features, n, [torch.randperm(count, generator=generator) for _ in range(splits)]


def _pair_by_pair(features: Tensor, n: int, orders: list[Tensor]) -> float:
    """Moments by NumPy, rows gathered one by one."""
    rows, total = features.tolist(), 0.0
    for order in orders:
        moments = []
        for places in (order.tolist()[:n], order.tolist()[n : n + n]):
            chosen = np.array([rows[place] for place in places])
            moments += [torch.from_numpy(chosen.mean(0)), torch.from_numpy(np.cov(chosen, rowvar=False))]
        total += _by_eigenvalues_of_the_product(*moments)
    return total / len(orders)


def _mean_of(pair):
    """The mean over the orders of the distance of the two sets that `pair` chooses."""
    return lambda x, n, orders: sum(feature_distance(*pair(x, n, o)) for o in orders) / len(orders)


FLOOR = Exercise(
    id="14.2",
    title="the floor",
    reference=mean_over_pairs,
    independent=_pair_by_pair,
    draw=_draw_sets,
    mistakes=(
        Mistake(
            "n in both sets together",
            _mean_of(lambda x, n, o: (x[o[: n // 2]], x[o[n // 2 : n]])),
            "takes n features for both sets together. Each needs n, as many as there are samples; with half of "
            "them the floor is twice as high.",
        ),
        Mistake(
            "n against all the rest",
            _mean_of(lambda x, n, o: (x[o[:n]], x[o[n:]])),
            "compares n features with all the others. Both sets must have n: the larger one set is, the lower is the "
            "distance, and samples are compared with n real pictures.",
        ),
        Mistake(
            "n against all",
            _mean_of(lambda x, n, o: (x[o[:n]], x)),
            "compares n features with a set that contains them. The two sets must have no picture in common.",
        ),
        Mistake(
            "the orders not used",
            lambda x, n, orders: feature_distance(x[:n], x[n : 2 * n]),
            "takes the features in the order in which they stand. Use each of `orders`: one split is luck.",
        ),
        Mistake(
            "one pair only",
            lambda x, n, orders: feature_distance(x[orders[0][:n]], x[orders[0][n : 2 * n]]),
            "stops after the first order. One pair of sets may be off by half: take the mean over all orders.",
        ),
        Mistake(
            "the smallest",
            lambda x, n, orders: min(feature_distance(x[o[:n]], x[o[n : 2 * n]]) for o in orders),
            "returns the smallest distance. What perfect samples get is the mean: the smallest is a lucky pair.",
        ),
        Mistake(
            "a sum",
            lambda x, n, orders: sum(feature_distance(x[o[:n]], x[o[n : 2 * n]]) for o in orders),
            "adds the distances up. Divide by the number of orders.",
        ),
    ),
    hints=(
        "For each order: features[order] are the features shuffled. The first n are one set, the next n the other.",
        "feature_distance(features[order[:n]], features[order[n : 2 * n]]), and the mean of these over all orders.",
        "found = [… for order in orders]; return sum(found) / len(found).",
    ),
)

EXERCISES = (FRECHET, FLOOR, MMD, PRECISION)
