"""Every tagged equation of lesson 04, checked by a route that does not use the formula itself."""

import itertools
import math

import numpy as np
import pytest
import scipy.cluster.vq
import scipy.optimize
import torch

from course_lib.foundations import (
    Corner,
    Lasso,
    Quadratic,
    coordinate_descent,
    gauss_seidel,
    lasso_residual,
    quadratic_step,
    soft_threshold,
    solve_lasso,
)


def normal(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def bowl(d=4, seed=0):
    root = normal(d, d, seed=seed)
    return Quadratic(root @ root.T + 0.5 * torch.eye(d), normal(d, seed=seed + 1))


def lasso(seed=0, penalty=3.0):
    X = normal(15, 5, seed=seed)
    w = torch.tensor([2.0, 0, -1, 0, 0.5], dtype=torch.float64)
    return Lasso(X, X @ w + 0.5 * normal(15, seed=seed + 1), penalty)


def lowest_along(value, x, i):
    """Where a function of one coordinate is lowest, by scipy's bracketing search."""

    def height(v):
        moved = x.clone()
        moved[i] = v
        return value(moved).item()

    return scipy.optimize.minimize_scalar(height, bracket=(x[i].item() - 1, x[i].item() + 1), tol=1e-12).x


def test_eq_4_1():
    """True for the bowl, false for the corner: tried along every axis and in every direction."""
    directions = torch.nn.functional.normalize(normal(500, 2, seed=2), dim=1)
    steps = torch.tensor([1e-3, 0.03, 0.3, 1.0, 3.0], dtype=torch.float64)
    smooth = bowl(2)
    for problem, end in ((smooth, smooth.minimum), (Corner(), torch.ones(2, dtype=torch.float64))):
        here = problem.value(end)
        for e, step in itertools.product(torch.eye(2, dtype=torch.float64), steps):
            assert problem.value(end + step * e) > here
            assert problem.value(end - step * e) > here
        lower = [bool(problem.value(end + s * d) < here - 1e-12) for d in directions for s in steps]
        assert any(lower) == isinstance(problem, Corner)


def test_eq_4_2():
    """Quadratic form against the mean squared error that it stands for, knob by knob."""
    flat, target = normal(200, seed=3), normal(200, seed=4)
    pixels = torch.stack([flat, torch.ones_like(flat)])
    problem = Quadratic(pixels @ pixels.T / 200, pixels @ target / 200)
    for contrast, brightness in ((1.0, 0.0), (-0.3, 2.0), (2.0, -0.6)):
        error = 0.5 * ((contrast * flat + brightness - target) ** 2).mean() - 0.5 * (target**2).mean()
        at = torch.tensor([contrast, brightness], dtype=torch.float64)
        assert problem.value(at).item() == pytest.approx(error.item(), rel=1e-12)


def test_eq_4_3():
    """The step against a search along the axis."""
    problem = bowl()
    x = normal(4, seed=5)
    for i in range(4):
        found = quadratic_step(problem.A, problem.b, x, i).item()
        assert found == pytest.approx(lowest_along(problem.value, x, i), abs=1e-6)


def test_eq_4_4():
    """Each state of the descent is the search's result from the newest values of all other coordinates."""
    for problem in (bowl(), lasso()):
        x = normal(len(problem.b) if isinstance(problem, Quadratic) else 5, seed=6)
        for state in itertools.islice(coordinate_descent(problem, x, sweeps=3), 1, None):
            x[state.coordinate] = lowest_along(problem.value, x, state.coordinate)
            assert torch.allclose(state.x, x, atol=1e-5)
    smooth = bowl()
    swept = list(coordinate_descent(smooth, torch.zeros(4), sweeps=1))[-1].x
    assert torch.allclose(gauss_seidel(smooth.A, smooth.b, torch.zeros(4)), swept, atol=1e-12)


def test_eq_4_5():
    """Tangent planes by automatic differentiation lie below the bowl; a saddle breaks the rule."""
    problem = bowl()
    saddle = torch.diag(torch.tensor([1.0, -1.0, 1.0, 1.0], dtype=torch.float64))
    below = []
    for seed in range(50):
        x, y = normal(2, 4, seed=seed)
        for value in (problem.value, lambda z: 0.5 * z @ saddle @ z):
            at = x.clone().requires_grad_()
            f = 0.5 * at @ problem.A @ at - problem.b @ at if value == problem.value else value(at)
            (gradient,) = torch.autograd.grad(f, at)
            below.append((value == problem.value, bool(value(y) < f - 1e-12 + gradient @ (y - x))))
    assert not any(low for convex, low in below if convex)
    assert any(low for convex, low in below if not convex)


def test_eq_4_6():
    """The corner is the larger of four planes, it is stuck wherever x = y, and 0 at the origin only."""
    corner = Corner()
    for x, y in normal(200, 2, seed=7).tolist():
        planes = [s * (x + y) + 3 * t * (x - y) for s, t in itertools.product((-1, 1), repeat=2)]
        assert corner.value(torch.tensor([x, y], dtype=torch.float64)).item() == pytest.approx(max(planes))
    start = torch.tensor([2.0, 1.0])
    ends = [state.value for state in coordinate_descent(corner, start, sweeps=20)]
    assert ends[1:] == [2.0] * 40
    found = scipy.optimize.minimize(lambda z: corner.value(torch.from_numpy(z)).item(), [2, 1], method="Nelder-Mead")
    assert np.abs(found.x).max() < 1e-3  # a search that walks in all directions gets to the origin


def parts(problem, x):
    """Slope of the smooth part of a lasso by automatic differentiation."""
    at = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(0.5 * ((problem.y - problem.X @ at) ** 2).sum(), at)
    return slope


def test_eq_4_7():
    """The lasso is smooth plus one function per coordinate: mixed differences of its second part vanish."""
    problem = lasso()
    bend = lambda w: problem.value(w) - 0.5 * ((problem.y - problem.X @ w) ** 2).sum()  # noqa: E731
    w, d, e = normal(5, seed=8), torch.eye(5).double()[1] * 0.7, torch.eye(5).double()[3] * -1.3
    mixed = bend(w + d + e) - bend(w + d) - bend(w + e) + bend(w)
    assert abs(mixed.item()) < 1e-12
    corner = Corner().value
    x, d, e = torch.zeros(2).double(), torch.tensor([1.0, 0]).double(), torch.tensor([0, 1.0]).double()
    assert abs((corner(x + d + e) - corner(x + d) - corner(x + e) + corner(x)).item()) > 1  # the corner is not


def test_eq_4_8():
    """f(y) - f(x) is at least the sum of the brackets, at any x: the smooth part's tangent plane does it."""
    problem = lasso()
    for seed in range(300):
        x, y = normal(2, 5, seed=seed)
        brackets = parts(problem, x) * (y - x) + problem.penalty * (y.abs() - x.abs())
        assert (problem.value(y) - problem.value(x)).item() >= brackets.sum().item() - 1e-10


def test_eq_4_9():
    """At the end of the descent 0 lies between the one-sided slopes of every coordinate, and at no other point."""
    problem = lasso()
    x, h = solve_lasso(problem, tolerance=1e-10), 1e-6
    for point, optimal in ((x, True), (x + 0.05, False), (0 * x, False)):
        ok = []
        for e in torch.eye(5, dtype=torch.float64):
            right = (problem.value(point + h * e) - problem.value(point)).item() / h
            left = (problem.value(point) - problem.value(point - h * e)).item() / h
            ok.append(left <= 1e-4 and right >= -1e-4)
        assert all(ok) == optimal


def test_eq_4_10():
    """At the minimum no bracket is negative, for a thousand y; elsewhere some are."""
    problem = lasso()
    x = solve_lasso(problem, tolerance=1e-10)
    y = normal(1000, 5, seed=9) * 10 ** normal(1000, 1, seed=10)
    for point, optimal in ((x, True), (x + 0.05, False)):
        brackets = parts(problem, point) * (y - point) + problem.penalty * (y.abs() - point.abs())
        assert bool((brackets > -1e-7).all()) == optimal


def test_eq_4_11():
    """The minimum of the function as written, by a bounded solver on w = positive part - negative part."""
    problem = lasso()

    def height(z):
        w = torch.from_numpy(z[:5] - z[5:])
        smooth = sum(0.5 * (problem.y[k] - problem.X[k] @ w).item() ** 2 for k in range(15))
        return smooth + problem.penalty * z.sum()

    found = scipy.optimize.minimize(height, np.ones(10), bounds=[(0, None)] * 10, method="L-BFGS-B", tol=1e-15)
    w = solve_lasso(problem, tolerance=1e-10)
    assert problem.value(w).item() == pytest.approx(found.fun, rel=1e-8)
    assert np.abs(found.x[:5] - found.x[5:] - w.numpy()).max() < 1e-3


def test_eq_4_12():
    """The lowest point of ½ (w - v)² + t |w| on a fine grid, and torch's own softshrink."""
    grid = torch.linspace(-3, 3, 60_001, dtype=torch.float64)
    for v, t in itertools.product((-2.0, -0.4, 0.0, 0.7, 1.9), (0.0, 0.5, 1.2)):
        lowest = grid[(0.5 * (grid - v) ** 2 + t * grid.abs()).argmin()].item()
        assert soft_threshold(torch.tensor(v), t).item() == pytest.approx(lowest, abs=2e-4)
    values = normal(1000, seed=11)
    assert torch.allclose(soft_threshold(values, 0.6), torch.nn.functional.softshrink(values, 0.6), atol=1e-12)


def test_eq_4_13():
    """The lasso's coordinate step against a search along the axis."""
    problem = lasso(seed=3)
    w = normal(5, seed=12)
    for i in range(5):
        found = problem.best_coordinate(w, i).item()
        assert found == pytest.approx(lowest_along(problem.value, w, i), abs=1e-6)


def test_eq_4_14():
    """The residual is 0 at the bounded solver's minimum, and bounds how far the function is from it elsewhere."""
    for penalty in (0.3, 3.0, 40.0):
        problem = lasso(penalty=penalty)
        best = solve_lasso(problem, tolerance=1e-10)
        assert lasso_residual(problem.X, problem.y, penalty, best).item() < 1e-9
        for seed in range(50):
            w = best + 10 ** (-seed / 10) * normal(5, seed=seed)
            excess = (problem.value(w) - problem.value(best)).item()
            residual = lasso_residual(problem.X, problem.y, penalty, w).item()
            assert residual > 0
            assert excess <= residual * (w - best).abs().sum().item() + 1e-10  # by convexity


def test_eq_4_15():
    """k-means by taking turns against scipy's, from the same start; neither turn raises the sum of squares."""
    points = torch.cat([normal(60, 2, seed=k) + 4 * normal(1, 2, seed=100 + k) for k in range(4)])
    c = points[[0, 60, 120, 180]].clone()
    theirs, _ = scipy.cluster.vq.kmeans2(points.numpy(), c.numpy(), iter=50, minit="matrix")
    heights = []
    for _ in range(50):
        a = torch.cdist(points, c).argmin(1)
        heights.append(((points - c[a]) ** 2).sum().item())
        c = torch.stack([points[a == k].mean(0) for k in range(4)])
        heights.append(((points - c[a]) ** 2).sum().item())
    assert all(later <= earlier + 1e-9 for earlier, later in itertools.pairwise(heights))
    assert np.abs(c.numpy() - theirs).max() < 1e-9
    assert math.isfinite(heights[-1])
