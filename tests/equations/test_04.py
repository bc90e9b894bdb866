"""Every tagged equation of lesson 04, checked by a route that does not use the formula itself."""

import itertools
import math

import numpy as np
import pytest
import scipy.optimize
import scipy.stats
import torch

from course_lib.data import photograph
from course_lib.foundations import (
    Corner,
    Lasso,
    Quadratic,
    coordinate_descent,
    kmeans,
    lasso_residual,
    lasso_step,
    nearest_centre,
    quadratic_step,
    soft_threshold,
    solve_lasso,
)


def normal(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def quadratic(d, seed):
    root = normal(d, d + 1, seed=seed)
    return Quadratic(root @ root.T + 0.1 * torch.eye(d, dtype=torch.float64), normal(d, seed=seed + 100))


def lasso(seed, penalty=4.0, n=20, d=6):
    X = normal(n, d, seed=seed)
    return Lasso(X, X[:, :2] @ normal(2, seed=seed + 1) * 3 + 0.5 * normal(n, seed=seed + 2), penalty)


def gradient_of(function, x):
    x = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(function(x), x)
    return slope


def smooth_part(problem):
    return lambda w: 0.5 * (problem.y - problem.X @ w).pow(2).sum()


@pytest.fixture
def knobs():
    """The lesson's two knobs: a dull photograph, its target, and the quadratic that they make."""
    target = (photograph(48).double().mean(dim=1).flatten() + 1) / 2
    dull = 0.5 * target + 0.1
    patterns = torch.stack([dull, torch.ones_like(dull)])
    return dull, target, Quadratic(patterns @ patterns.T / len(target), patterns @ target / len(target))


def test_eq_4_1(knobs):
    """Half the mean squared error: the quadratic's lowest point is the line that ordinary regression fits."""
    dull, target, _ = knobs
    noisy = target + 0.05 * normal(len(target), seed=1)  # no exact answer any more
    patterns = torch.stack([dull, torch.ones_like(dull)])
    problem = Quadratic(patterns @ patterns.T / len(noisy), patterns @ noisy / len(noisy))
    line = scipy.stats.linregress(dull.numpy(), noisy.numpy())
    assert problem.minimum.tolist() == pytest.approx([line.slope, line.intercept], rel=1e-9)
    for contrast, brightness in ((1.0, 0.0), (2.3, -0.4)):
        half = 0.5 * torch.nn.functional.mse_loss(contrast * dull + brightness, noisy).item()
        found = problem.value(torch.tensor([contrast, brightness], dtype=torch.float64)) + 0.5 * noisy.square().mean()
        assert found.item() == pytest.approx(half, rel=1e-9)


@pytest.mark.parametrize(
    ("problem", "d", "holds"),
    [(quadratic(3, 1), 3, True), (lasso(2), 6, True), (Corner(), 2, False)],
    ids=["smooth", "separable corners", "other corners"],
)
def test_eq_4_2(problem, d, holds):
    """The premise by trying 201 steps along each axis; the conclusion by trying 1,000 other points."""
    *_, last = coordinate_descent(problem, torch.ones(d), 200)
    for i, step in itertools.product(range(d), torch.linspace(-4, 4, 201).tolist()):
        moved = last.x.clone()
        moved[i] += step
        assert float(problem.value(moved)) >= last.value - 1e-9
    others = last.x + torch.cat([normal(500, d, seed=3), 0.1 * normal(500, d, seed=4)])
    lowest = min(float(problem.value(other)) for other in others)
    assert (lowest >= last.value - 1e-9) == holds


def test_eq_4_3():
    """Chords stay above the landscapes that the lesson calls convex, and cut through the one that it does not."""

    def saddle(x):
        return x.square().sum() - 4 * x[0] * x[1]

    def worst(function, d):
        pairs, shares = normal(400, 2, d, seed=5), torch.rand(400, generator=torch.Generator().manual_seed(6)).tolist()
        return min(
            float((1 - s) * function(x) + s * function(y) - function((1 - s) * x + s * y))
            for (x, y), s in zip(pairs, shares, strict=True)
        )

    for problem, d in ((quadratic(3, 2), 3), (Corner(), 2), (lasso(3), 6)):
        assert worst(problem.value, d) >= -1e-9
    assert worst(saddle, 2) < -0.1


def test_eq_4_4():
    """Tangents by automatic differentiation: below a convex smooth function everywhere, not below the saddle."""

    def worst(function, d):
        gaps = []
        for x, y in normal(300, 2, d, seed=7):
            gaps.append(float(function(y) - function(x) - gradient_of(function, x) @ (y - x)))
        return min(gaps)

    problem = lasso(4)
    assert worst(lambda x: torch.logsumexp(3 * x, 0), 4) >= -1e-12
    assert worst(smooth_part(problem), 6) >= -1e-9
    assert worst(lambda x: x.square().sum() - 4 * x[0] * x[1], 2) < -0.1


def test_eq_4_5():
    """Value by a double sum, gradient by automatic differentiation of it, and both vanish together at the minimum."""
    problem = quadratic(4, 3)
    n = range(4)

    def by_sums(x):
        pairs = sum(problem.A[i, j] * x[i] * x[j] for i in n for j in n)
        return 0.5 * pairs - sum(problem.b[i] * x[i] for i in n)

    for x in normal(5, 4, seed=8):
        assert problem.value(x).item() == pytest.approx(by_sums(x).item(), rel=1e-12)
        assert torch.allclose(gradient_of(by_sums, x), problem.A @ x - problem.b, atol=1e-10)
    assert gradient_of(by_sums, problem.minimum).abs().max() < 1e-10
    found = scipy.optimize.minimize(lambda x: float(by_sums(torch.from_numpy(x))), np.zeros(4), tol=1e-12)
    assert found.x == pytest.approx(problem.minimum.numpy(), abs=1e-4)


def test_eq_4_6():
    """scipy's scalar search along the axis finds the same value."""
    problem = quadratic(4, 4)
    for i, x in enumerate(normal(4, 4, seed=9)):

        def along(value, i=i, x=x):
            return float(problem.value(torch.cat([x[:i], torch.tensor([value], dtype=torch.float64), x[i + 1 :]])))

        best = scipy.optimize.minimize_scalar(along, bracket=(-1, 1), tol=1e-10)
        assert quadratic_step(problem.A, problem.b, x, i).item() == pytest.approx(best.x, abs=1e-6)


def test_eq_4_7(knobs):
    """New values before i, old ones after it, and the best of a fine grid in between; and the value never rises."""
    problem = quadratic(3, 5)
    states = list(coordinate_descent(problem, normal(3, seed=10), 3))
    sweeps = [states[0].x, *(s.x for s in states[1:] if s.coordinate == 2)]
    grid = torch.linspace(-6, 6, 24_001, dtype=torch.float64)
    for old, new in itertools.pairwise(sweeps):
        for i in range(3):
            points = torch.cat([new[:i], torch.zeros(1, dtype=torch.float64), old[i + 1 :]]).repeat(len(grid), 1)
            points[:, i] = grid
            heights = 0.5 * ((points @ problem.A) * points).sum(dim=1) - points @ problem.b
            assert grid[heights.argmin()].item() == pytest.approx(new[i].item(), abs=3e-4)
    for case, start in ((problem, normal(3, seed=11)), (lasso(5), normal(6, seed=12)), (knobs[2], torch.zeros(2))):
        values = [s.value for s in coordinate_descent(case, start, 20)]
        assert all(after <= before + 1e-12 for before, after in itertools.pairwise(values))


def test_eq_4_8(knobs):
    """The measured shrinking per sweep is the squared cosine of the angle between the knobs' two patterns."""
    dull, _, problem = knobs
    cosine = torch.nn.functional.cosine_similarity(dull, torch.ones_like(dull), dim=0).item()
    left = [(s.x - problem.minimum)[1].item() for s in coordinate_descent(problem, torch.tensor([1.0, 0.0]), 12)][2::2]
    for before, after in itertools.pairwise(left):
        assert after / before == pytest.approx(cosine**2, rel=1e-6)
    assert cosine**2 == pytest.approx(0.831, abs=5e-4)  # the number that the lesson prints
    for rho in (-0.7, 0.0, 0.5):
        bowl = Quadratic(torch.tensor([[4.0, 2 * rho], [2 * rho, 1.0]], dtype=torch.float64), torch.zeros(2))
        *_, first = coordinate_descent(bowl, torch.tensor([3.0, 1.0]), 1)
        assert first.x[1].item() == pytest.approx(rho**2, abs=1e-12)


def test_eq_4_9():
    """The largest of four planes; as a linear programme its minimum is 0, and it is at the origin."""
    planes = torch.tensor([[4.0, -2], [-2, 4], [2, -4], [-4, 2]]).double()  # ±(x + y) ± 3 (x - y)
    for point in normal(200, 2, seed=13):
        assert Corner().value(point).item() == pytest.approx((planes @ point).max().item(), rel=1e-12)
    rows = np.hstack([planes.numpy(), -np.ones((4, 1))])  # plane(x, y) ≤ height
    lowest = scipy.optimize.linprog([0, 0, 1], A_ub=rows, b_ub=np.zeros(4), bounds=[(None, None)] * 3)
    assert lowest.x == pytest.approx([0, 0, 0], abs=1e-9)


@pytest.mark.parametrize("slant", [1.0, -0.8])
def test_eq_4_10(slant):
    """Smooth convex plus separable corners: descent by scalar searches reaches the lowest point of a grid."""

    def f(x, y):
        smooth = np.logaddexp(slant * x + 2 * y, -x) + 0.3 * (x - y - 1) ** 2
        return smooth + 0.7 * np.abs(x) + np.maximum(y - 0.2, -0.5 * (y - 0.2))

    def lowest(along):
        return scipy.optimize.minimize_scalar(along, bounds=(-4, 4), method="bounded", options={"xatol": 1e-9}).x

    x, y = 2.0, -2.0
    for _ in range(60):
        x = lowest(lambda v, y=y: f(v, y))
        y = lowest(lambda v, x=x: f(x, v))
    grid = np.linspace(-3, 3, 1201)
    everywhere = f(grid[:, None], grid[None, :])
    assert f(x, y) <= everywhere.min() + 1e-6
    assert f(x, y) >= everywhere.min() - 1e-3


def test_eq_4_11():
    """Slopes whose line stays below |x| at 4,001 places: all from -1 to 1 at the corner, one alone elsewhere."""
    everywhere, slopes = np.linspace(-10, 10, 4001), np.linspace(-2, 2, 401)

    def subgradients(x):
        return [s for s in slopes if (np.abs(everywhere) >= abs(x) + s * (everywhere - x) - 1e-12).all()]

    at_corner = subgradients(0.0)
    assert (min(at_corner), max(at_corner)) == pytest.approx((-1, 1))
    assert len(at_corner) == 201
    assert subgradients(1.5) == pytest.approx([1])
    assert subgradients(-2.0) == pytest.approx([-1])
    for v, threshold in (
        (0.4, 1.0),
        (-2.5, 0.5),
    ):  # v - w is the threshold times a subgradient
        w = soft_threshold(torch.tensor(v), threshold).item()
        assert min(abs((v - w) / threshold - s) for s in subgradients(w)) < 0.011


def test_eq_4_12():
    """At the coordinate-wise optimum the slope of f is not positive on the left and not negative on the right."""
    problem = lasso(6)
    w = solve_lasso(problem, tolerance=1e-11)
    assert (w == 0).any()
    assert (w != 0).any()
    slope = gradient_of(smooth_part(problem), w)
    for i in range(len(w)):
        e = torch.zeros(6, dtype=torch.float64)
        e[i] = 1e-6
        right = (problem.value(w + e) - problem.value(w)).item() / 1e-6
        left = (problem.value(w) - problem.value(w - e)).item() / 1e-6
        assert left <= 1e-4
        assert right >= -1e-4
        needed = -slope[i].item() / problem.penalty  # a subgradient of |w_i|
        assert abs(needed) <= 1 + 1e-9
        if w[i] != 0:
            assert needed == pytest.approx(math.copysign(1, w[i].item()))


def bound(problem, x, y):
    """The pieces of the proof, one per coordinate, with the slope by automatic differentiation."""
    slope = gradient_of(smooth_part(problem), x)
    return slope * (y - x) + problem.penalty * (y.abs() - x.abs())


def test_eq_4_13():
    """f(y) - f(x) is at least the sum of the pieces, at any x at all; what is between them is ½‖X(y - x)‖²."""
    problem = lasso(7)
    for x, y in 2 * normal(300, 2, 6, seed=14):
        gap = (problem.value(y) - problem.value(x) - bound(problem, x, y).sum()).item()
        assert gap >= -1e-9
        assert gap == pytest.approx(0.5 * (problem.X @ (y - x)).square().sum().item(), rel=1e-6)


def test_eq_4_14():
    """No piece is negative at the optimum, for any y; a hundredth away from it some are."""
    for seed in range(5):
        problem = lasso(seed + 20)
        x = solve_lasso(problem, tolerance=1e-11)
        for y in x + torch.cat([normal(60, 6, seed=15), 0.01 * normal(60, 6, seed=16)]):
            assert bound(problem, x, y).min() >= -1e-9
            assert problem.value(y) >= problem.value(x)
        nearby = x + 0.01
        assert min(bound(problem, nearby, y).min().item() for y in nearby + 0.01 * normal(200, 6, seed=17)) < -1e-4


def test_eq_4_15():
    """Lowest of 120,001 values of w; and torch's own softshrink."""
    grid = torch.linspace(-6, 6, 120_001, dtype=torch.float64)
    for v, penalty in itertools.product((-3.0, -0.6, 0.0, 0.3, 1.0, 4.2), (0.0, 0.5, 1.0, 2.5)):
        lowest = grid[(0.5 * (grid - v) ** 2 + penalty * grid.abs()).argmin()].item()
        assert soft_threshold(torch.tensor(v), penalty).item() == pytest.approx(lowest, abs=1e-4)
    values = 3 * normal(4, 5, seed=18)
    assert torch.allclose(soft_threshold(values, 0.7), torch.nn.functional.softshrink(values, 0.7))


def test_eq_4_16():
    """By loops over plain numbers, and lowest where a solver that knows nothing of lassos finds it."""
    problem = lasso(8, d=3)
    X, y = problem.X.tolist(), problem.y.tolist()

    def by_loops(w):
        squares = sum((y[k] - sum(X[k][i] * w[i] for i in range(3))) ** 2 for k in range(len(y)))
        return 0.5 * squares + 4.0 * sum(abs(v) for v in w)

    for w in normal(10, 3, seed=19):
        assert problem.value(w).item() == pytest.approx(by_loops(w.tolist()), rel=1e-12)
    options = {"xatol": 1e-9, "fatol": 1e-12, "maxiter": 4000}
    found = scipy.optimize.minimize(by_loops, np.full(3, 0.1), method="Nelder-Mead", options=options)
    assert found.fun == pytest.approx(float(problem.value(solve_lasso(problem))), rel=1e-8)


def test_eq_4_17():
    """Lowest of 80,001 values along each axis, and exactly 0 where that is lowest."""
    grid = torch.linspace(-4, 4, 80_001, dtype=torch.float64)
    zeros = 0
    for seed in range(6):
        problem, w = lasso(seed + 40, penalty=12.0), 0.3 * normal(6, seed=seed)
        for i in range(6):
            rest = problem.y - problem.X @ w + problem.X[:, i] * w[i]
            heights = 0.5 * (rest - grid[:, None] * problem.X[:, i]).square().sum(dim=1) + 12.0 * grid.abs()
            found = lasso_step(problem.X, problem.y, 12.0, w, i).item()
            assert found == pytest.approx(grid[heights.argmin()].item(), abs=1e-4)
            zeros += found == 0
    assert 0 < zeros < 36


def test_eq_4_18():
    """The fastest fall along an axis, by one-sided differences; never above it, and 0 at the end."""
    for seed in range(6):
        problem = lasso(seed + 60)
        w = normal(6, seed=seed) * (torch.arange(6) % 2)
        step = 1e-7
        falls = []
        for i, sign in itertools.product(range(6), (-1, 1)):
            moved = w.clone()
            moved[i] += sign * step
            falls.append((problem.value(w) - problem.value(moved)).item() / step)
        assert lasso_residual(problem.X, problem.y, 4.0, w) == pytest.approx(max(*falls, 0), rel=1e-4)
        assert lasso_residual(problem.X, problem.y, 4.0, solve_lasso(problem)) < 1e-8


def test_eq_4_19():
    """Point by point with math.dist, at every half step."""
    points = normal(40, 3, seed=20)
    for state in kmeans(points, points[:4]):
        pairs = zip(points.tolist(), state.assignment.tolist(), strict=True)
        by_hand = sum(math.dist(p, state.centres[a].tolist()) ** 2 for p, a in pairs)
        assert state.value == pytest.approx(by_hand, rel=1e-12)


def test_eq_4_20():
    """Both halves against every rival: all 256 ways to share out eight points, and a solver for the two centres."""
    points = normal(8, 2, seed=21)
    centres = points[:2]
    choice = nearest_centre(points, centres)
    ways = torch.tensor(list(itertools.product((0, 1), repeat=8)))
    costs = (points - centres[ways]).square().sum(dim=(1, 2))
    assert ways[costs.argmin()].tolist() == choice.tolist()
    states = list(kmeans(points, centres))

    def cost(flat):
        return float((points - torch.from_numpy(flat).reshape(2, 2)[choice]).square().sum())

    best = scipy.optimize.minimize(cost, np.zeros(4), tol=1e-12)
    assert states[1].moved == "centres"
    assert states[1].centres.flatten().numpy() == pytest.approx(best.x, abs=1e-4)
