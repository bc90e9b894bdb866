"""Exercises of lesson 14 that compare two clouds point by point: the kernel distance, and precision."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from course_lib.evaluation import cubic_kernel, inside_balls, mmd_squared, precision
from course_lib.lesson.tasks import Exercise, Mistake

# --- 14.3 the unbiased kernel distance -------------------------------------------------------------------------------


def _draw_clouds(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    n, m, d = (int(torch.randint(*ends, (), generator=generator)) for ends in ((4, 8), (9, 13), (2, 6)))
    a = torch.randn(n, d, generator=generator, dtype=torch.float64)
    return a, 1.3 * torch.randn(m, d, generator=generator, dtype=torch.float64) + 0.5


def _by_loops(a: Tensor, b: Tensor) -> float:
    """Pair by pair, in plain Python."""

    def kernel(x: list[float], y: list[float]) -> float:
        return (math.fsum(p * q for p, q in zip(x, y, strict=True)) / len(x) + 1) ** 3

    def within(points: list[list[float]]) -> float:
        pairs = [kernel(x, y) for i, x in enumerate(points) for j, y in enumerate(points) if i != j]
        return math.fsum(pairs) / len(pairs)

    a, b = a.tolist(), b.tolist()
    return within(a) + within(b) - 2 * math.fsum(kernel(x, y) for x in a for y in b) / (len(a) * len(b))


def _mmd(kernel=cubic_kernel, own: bool = False, across: int = 2):
    """The estimate with another kernel, with a point's kernel with itself kept (`own`), or the last term once."""

    def within(x: Tensor) -> Tensor:
        k, n = kernel(x, x), len(x)
        return k.mean() if own else (k.sum() - k.diagonal().sum()) / (n * (n - 1))

    return lambda a, b: (within(a) + within(b) - across * kernel(a, b).mean()).item()


def _power(power: int, plus: float = 1.0, divide: bool = True):
    return lambda x, y: (x @ y.T / (x.shape[1] if divide else 1) + plus) ** power


def _diagonal_not_counted(a: Tensor, b: Tensor) -> float:
    """The own pairs are gone from the sum, and still in the number that it is divided by."""

    def within(x: Tensor) -> Tensor:
        return (cubic_kernel(x, x).sum() - cubic_kernel(x, x).diagonal().sum()) / len(x) ** 2

    return (within(a) + within(b) - 2 * cubic_kernel(a, b).mean()).item()


MMD = Exercise(
    id="14.3",
    title="the unbiased kernel distance",
    reference=mmd_squared,
    independent=_by_loops,
    draw=_draw_clouds,
    mistakes=(
        Mistake(
            "biased: points paired with themselves",
            _mmd(own=True),
            "pairs each point with itself too, for k(x, x) is in the mean. That makes the answer too large, the more "
            "the fewer points there are: leave the diagonal out, and divide by n (n - 1).",
        ),
        Mistake(
            "divided by n²",
            _diagonal_not_counted,
            "leaves the diagonal out of the sum and divides by n² all the same. There are n (n - 1) pairs left.",
        ),
        Mistake(
            "the last term once",
            _mmd(across=1),
            "subtracts the mean over pairs across the sets once. It counts twice, as in (p - q)² = p² + q² - 2 p q.",
        ),
        Mistake(
            "the last term added",
            _mmd(across=-2),
            "adds the mean over pairs across the sets. The more alike the sets, the larger it is: subtract it.",
        ),
        Mistake("squared kernel", _mmd(_power(2)), "takes the square. The kernel of equation 14.5 is a cube."),
        Mistake(
            "not divided by d",
            _mmd(_power(3, divide=False)),
            "does not divide x·y by the number of features. Then the values grow with d³.",
        ),
        Mistake(
            "without the 1",
            _mmd(_power(3, plus=0.0)),
            "leaves out the + 1. With it the kernel compares means and variances too, not third moments alone.",
        ),
        Mistake(
            "the root",
            lambda a, b: math.sqrt(max(mmd_squared(a, b), 0.0)),
            "takes a root. The estimate of the square is the unbiased one, and it may be negative.",
        ),
    ),
    hints=(
        "Three matrices: cubic_kernel(a, a), cubic_kernel(b, b), cubic_kernel(a, b). The last needs a plain mean.",
        "k.sum() - k.diagonal().sum() is the sum over pairs of two different points; there are n (n - 1) of them.",
        "a and b may have different numbers of points: each has its own n (n - 1).",
    ),
)

# --- 14.4 precision --------------------------------------------------------------------------------------------------


def _draw_samples(generator: torch.Generator) -> tuple[Tensor, Tensor, int]:
    n, m, d, k = (int(torch.randint(*ends, (), generator=generator)) for ends in ((15, 25), (26, 40), (2, 4), (1, 5)))
    real = torch.randn(m, d, generator=generator, dtype=torch.float64)
    return 1.2 * torch.randn(n, d, generator=generator, dtype=torch.float64) + 0.6, real, k


def _ball_by_ball(samples: Tensor, real: Tensor, k: int = 3) -> float:
    """One sample, one ball after the other."""
    points, hits = real.tolist(), 0
    radius = [sorted(math.dist(p, q) for j, q in enumerate(points) if j != i)[k - 1] for i, p in enumerate(points)]
    for sample in samples.tolist():
        hits += any(math.dist(sample, centre) <= r for centre, r in zip(points, radius, strict=True))
    return hits / len(samples)


def _with_radius(radius, share=lambda inside: inside.any(dim=1).double().mean()):
    """Precision with another radius of the balls, `radius(samples, real, k)`, or another share."""
    return lambda samples, real, k=3: share(torch.cdist(samples, real) <= radius(samples, real, k)).item()


def _rank(points: Tensor, place: int) -> Tensor:
    return torch.cdist(points, points).kthvalue(place, dim=1).values


PRECISION = Exercise(
    id="14.4",
    title="precision",
    reference=precision,
    independent=_ball_by_ball,
    draw=_draw_samples,
    mistakes=(
        Mistake(
            "a point as its own neighbour",
            _with_radius(lambda s, r, k: _rank(r, k)),
            "counts a point as its own nearest neighbour, at distance 0. Among the others: take the (k + 1)-th "
            "smallest distance of the row.",
        ),
        Mistake(
            "recall",
            lambda samples, real, k=3: precision(real, samples, k),
            "gives the recall: real points in balls around samples. Precision asks whether samples lie in balls around "
            "real points.",
        ),
        Mistake(
            "coverage",
            lambda samples, real, k=3: inside_balls(samples, real, k).any(dim=0).double().mean().item(),
            "gives the share of the balls that hold a sample. Precision is the share of the samples that are in a "
            "ball: `any` over the real points.",
        ),
        Mistake(
            "density",
            lambda samples, real, k=3: inside_balls(samples, real, k).sum().item() / (k * len(samples)),
            "counts how many balls a sample lies in. For precision, one is as good as ten.",
        ),
        Mistake(
            "the nearest ball only",
            lambda samples, real, k=3: (
                inside_balls(samples, real, k)
                .gather(1, torch.cdist(samples, real).argmin(dim=1, keepdim=True))
                .double()
                .mean()
                .item()
            ),
            "looks at the ball around the nearest real point only. A farther one may have a larger ball.",
        ),
        Mistake(
            "all balls",
            _with_radius(lambda s, r, k: _rank(r, k + 1), lambda inside: inside.all(dim=1).double().mean()),
            "asks for samples that lie in all balls. One is enough: `any`.",
        ),
        Mistake(
            "one radius for all",
            _with_radius(lambda s, r, k: _rank(r, k + 1).mean()),
            "gives all balls the mean radius. Each real point has its own: small where points are dense.",
        ),
        Mistake(
            "averaged over all pairs",
            _with_radius(lambda s, r, k: _rank(r, k + 1), lambda inside: inside.double().mean()),
            "averages over all pairs of a sample and a ball. Ask for each sample whether any ball holds it.",
        ),
    ),
    hints=(
        "Two steps: neighbour_radius(real, k) is the radius of the ball around each real point; then ask which samples "
        "are in which ball.",
        "inside = torch.cdist(samples, real) <= radius has a row for each sample and a column for each ball.",
        "inside.any(dim=1) says for each sample whether it is in any ball. Return the share as a number.",
    ),
)
