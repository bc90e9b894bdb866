"""Coordinate descent: where it arrives, where it is stuck, and that every single step is an exact minimisation."""

import itertools

import numpy as np
import pytest
import scipy.optimize
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib.foundations import (
    Corner,
    Lasso,
    Quadratic,
    coordinate_descent,
    gauss_seidel,
    lasso_residual,
    lasso_step,
    quadratic_step,
    soft_threshold,
    solve_lasso,
)


def f64(*values):
    return torch.tensor(values, dtype=torch.float64)


def quadratic(d, seed):
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(d, d + 2, generator=generator, dtype=torch.float64)
    return Quadratic(root @ root.T, torch.randn(d, generator=generator, dtype=torch.float64))


def lasso(seed, penalty, n=30, d=8):
    generator = torch.Generator().manual_seed(seed)
    X = torch.randn(n, d, generator=generator, dtype=torch.float64)
    w = torch.tensor([3.0, -2.0, 1.0] + [0.0] * (d - 3), dtype=torch.float64)
    return Lasso(X, X @ w + 0.5 * torch.randn(n, generator=generator, dtype=torch.float64), penalty)


PROBLEMS = {"quadratic": (quadratic(4, 0), 4), "corner": (Corner(), 2), "lasso": (lasso(0, 5.0), 8)}


def test_two_dimensions_reach_the_minimum():
    problem = Quadratic(f64(2, 1, 1, 3).reshape(2, 2), f64(1, -1))
    *_, last = coordinate_descent(problem, f64(5, 5), 40)
    assert torch.allclose(last.x, torch.linalg.inv(problem.A) @ problem.b, atol=1e-10)
    assert torch.allclose(problem.minimum, last.x, atol=1e-10)
    assert torch.allclose(problem.minimum, f64(0.8, -0.6), atol=1e-12)


@pytest.mark.parametrize("name", PROBLEMS)
def test_never_rises_and_counts_its_steps(name):
    problem, d = PROBLEMS[name]
    start = torch.randn(d, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    states = list(coordinate_descent(problem, start, 6))
    assert len(states) == 1 + 6 * d
    assert (states[0].sweep, states[0].coordinate) == (0, None)
    assert torch.equal(states[0].x, start)
    assert [(s.sweep, s.coordinate) for s in states[1:]] == [(k, i) for k in range(1, 7) for i in range(d)]
    for before, after in itertools.pairwise(states):
        assert after.value <= before.value + 1e-12 * abs(before.value)
        moved = (after.x != before.x).nonzero().flatten().tolist()
        assert moved in ([], [after.coordinate])
        assert after.value == float(problem.value(after.x))


@pytest.mark.parametrize("name", PROBLEMS)
def test_every_step_is_an_exact_minimisation(name):
    """scipy's bounded search along the same axis does not get lower."""
    problem, d = PROBLEMS[name]
    start = torch.randn(d, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    for i in range(d):

        def along(value, i=i):
            x = start.clone()
            x[i] = value
            return float(problem.value(x))

        found = float(problem.best_coordinate(start, i))
        best = scipy.optimize.minimize_scalar(
            along, bounds=(found - 3, found + 4), method="bounded", options={"xatol": 1e-9}
        )
        assert along(found) <= best.fun + 1e-9
        assert found == pytest.approx(best.x, abs=1e-4)


def test_a_quadratic_step_is_the_lowest_point_of_a_parabola():
    """Three values of the function along one axis fix a parabola; its lowest point is what the step must find."""
    problem = quadratic(4, 6)
    x = torch.randn(4, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    for i in range(4):
        trials = x.repeat(3, 1)
        trials[:, i] = f64(-1, 0, 1)
        low, middle, high = (float(problem.value(trial)) for trial in trials)
        lowest = (low - high) / 2 / (low - 2 * middle + high)
        assert quadratic_step(problem.A, problem.b, x, i).item() == pytest.approx(lowest, rel=1e-9)
        assert problem.best_coordinate(x, i) == quadratic_step(problem.A, problem.b, x, i)


def test_a_sweep_is_the_iteration_of_gauss_and_seidel():
    """And the start stays as it was."""
    problem = quadratic(5, 7)
    start = torch.ones(5, dtype=torch.float64)
    *_, last = coordinate_descent(problem, start, 1)
    assert torch.equal(gauss_seidel(problem.A, problem.b, start), last.x)
    by_triangle = torch.linalg.solve(problem.A.tril(), problem.b - problem.A.triu(1) @ start)
    assert torch.allclose(last.x, by_triangle, atol=1e-12)
    assert start.tolist() == [1] * 5
    single = gauss_seidel(problem.A.float(), problem.b.float(), start.float())  # float32 in, float64 out
    assert single.dtype == torch.float64
    assert torch.allclose(single, last.x, atol=1e-5)


def test_lasso_functions_are_what_the_class_uses():
    problem, w = lasso(5, 3.0), torch.linspace(-1, 1, 8, dtype=torch.float64)
    for i in range(8):
        assert lasso_step(problem.X, problem.y, 3.0, w, i) == problem.best_coordinate(w, i)
    assert lasso_residual(problem.X, problem.y, 3.0, w) == problem.kkt_residual(w)
    assert lasso_residual(problem.X, problem.y, 3.0, solve_lasso(problem)) < 1e-8


def test_the_residual_is_the_steepest_descent_along_an_axis():
    """What the function loses per unit of a tiny step in the best of the 2 d directions."""
    problem, size = lasso(6, 4.0), 1e-7
    generator = torch.Generator().manual_seed(6)
    w = torch.randn(8, generator=generator, dtype=torch.float64) * f64(1, 0, 1, 0, 0, 1, 1, 0)
    steps = size * torch.cat([torch.eye(8), -torch.eye(8)]).double()
    loss = max(float(problem.value(w) - problem.value(w + step)) / size for step in steps)
    assert loss == pytest.approx(problem.kkt_residual(w), rel=1e-5)


def test_moved_coordinates_are_used_at_once():
    """Gauss and Seidel's order: one sweep solves (D + L) x_new = b - U x_old, triangle by triangle."""
    problem = quadratic(5, 3)
    x = torch.randn(5, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    *_, swept = coordinate_descent(problem, x, 1)
    lower, upper = problem.A.tril(), problem.A.triu(1)
    assert torch.allclose(swept.x, torch.linalg.solve(lower, problem.b - upper @ x), atol=1e-10)
    jacobi = (problem.b - (problem.A - torch.diag(problem.A.diagonal())) @ x) / problem.A.diagonal()
    assert not torch.allclose(swept.x, jacobi, atol=1e-3)


@settings(deadline=None, max_examples=12)
@given(st.integers(1, 5), st.integers(0, 10**6))
def test_any_quadratic(d, seed):
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(d, d, generator=generator, dtype=torch.float64)
    problem = Quadratic(root @ root.T + torch.eye(d, dtype=torch.float64), torch.ones(d))
    *_, last = coordinate_descent(problem, torch.zeros(d), 60)
    assert float(problem.value(problem.minimum)) <= last.value + 1e-12
    assert last.value == pytest.approx(float(problem.value(problem.minimum)), abs=1e-3)


def test_states_are_snapshots_and_the_start_is_left_alone():
    start = f64(5, 5)
    states = list(coordinate_descent(quadratic(2, 4), start, 2))
    assert start.tolist() == [5, 5]
    assert len({tuple(s.x.tolist()) for s in states}) > 3


def test_stuck_in_the_corner():
    """(1, 1) is lowest along both axes, f = 2 there, and yet f(0, 0) = 0."""
    corner = Corner()
    *_, last = coordinate_descent(corner, f64(1, 1), 10)
    assert last.x.tolist() == [1, 1]
    assert last.value == 2
    assert corner.value(f64(0, 0)) == 0
    for step in torch.linspace(-3, 3, 101, dtype=torch.float64):
        assert corner.value(f64(1 + step, 1)) >= 2
        assert corner.value(f64(1, 1 + step)) >= 2
    assert corner.value(f64(0.9, 0.9)) < 2  # both at once: downhill
    *_, other = coordinate_descent(corner, f64(4, -1.5), 3)
    assert other.x.tolist() == [-1.5, -1.5]


def test_corner_is_convex():
    generator = torch.Generator().manual_seed(5)
    for x, y in torch.randn(200, 2, 2, generator=generator, dtype=torch.float64):
        for share in (0.2, 0.5, 0.9):
            between = Corner().value(share * x + (1 - share) * y)
            assert between <= share * Corner().value(x) + (1 - share) * Corner().value(y) + 1e-12


# --- lasso


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("penalty", [0.0, 1.0, 10.0])
def test_lasso_satisfies_its_conditions(seed, penalty):
    problem = lasso(seed, penalty)
    w = solve_lasso(problem)
    assert problem.kkt_residual(w) < 1e-8
    gradient = problem.X.T @ (problem.X @ w - problem.y)
    for g, value in zip(gradient.tolist(), w.tolist(), strict=True):
        if value == 0:
            assert abs(g) <= penalty + 1e-8
        else:
            assert g == pytest.approx(-penalty * (1 if value > 0 else -1), abs=1e-8)
    generator = torch.Generator().manual_seed(seed)
    for scale in (1e-3, 0.1, 3):  # the inequality itself: nobody is lower
        for step in torch.randn(50, len(w), generator=generator, dtype=torch.float64):
            assert problem.value(w + scale * step) >= problem.value(w) - 1e-9


def test_the_solver_takes_the_steps_of_the_iteration():
    """Stopped after every sweep, it stands where `coordinate_descent` stands."""
    problem = lasso(3, 2.0)
    states = [s for s in coordinate_descent(problem, torch.zeros(8), 6) if s.coordinate == 7]
    for state in states:
        reached = problem.kkt_residual(state.x) * (1 + 1e-6)
        assert torch.allclose(solve_lasso(problem, tolerance=reached), state.x, atol=1e-12)


def test_lasso_by_a_bounded_solver():
    """w = u - v with u, v ≥ 0 makes the problem smooth: scipy's L-BFGS-B finds the same value."""
    problem = lasso(1, 4.0)
    X, y, d = problem.X.numpy(), problem.y.numpy(), 8

    def smooth(parts):
        w = parts[:d] - parts[d:]
        gradient = X.T @ (X @ w - y)
        return 0.5 * ((y - X @ w) ** 2).sum() + 4.0 * parts.sum(), [*(gradient + 4.0), *(-gradient + 4.0)]

    best = scipy.optimize.minimize(
        lambda parts: (smooth(parts)[0], np.array(smooth(parts)[1])),
        np.ones(2 * d),
        jac=True,
        bounds=[(0, None)] * 2 * d,
    )
    w = solve_lasso(problem)
    assert float(problem.value(w)) == pytest.approx(best.fun, rel=1e-6)
    assert torch.allclose(w, torch.from_numpy(best.x[:d] - best.x[d:]), atol=1e-3)


def test_penalty_makes_zeros_and_then_nothing_else():
    counts = [int((solve_lasso(lasso(2, penalty)) != 0).sum()) for penalty in (0.0, 10.0, 1e4)]
    assert counts[0] == 8
    assert 0 < counts[1] < 8
    assert counts[2] == 0
    problem = lasso(2, 1.0)
    largest = float((problem.X.T @ problem.y).abs().max())  # from this penalty on, 0 is optimal
    assert not solve_lasso(lasso(2, largest * 1.000001)).any()
    assert solve_lasso(lasso(2, largest * 0.99)).any()


def test_least_squares_without_a_penalty():
    problem = lasso(3, 0.0)
    wanted = torch.linalg.lstsq(problem.X, problem.y[:, None]).solution[:, 0]
    assert torch.allclose(solve_lasso(problem), wanted, atol=1e-8)


def test_residual_of_a_wrong_answer_is_large():
    problem = lasso(4, 2.0)
    w = solve_lasso(problem)
    assert problem.kkt_residual(w + 0.01) > 0.01
    assert problem.kkt_residual(torch.zeros(8)) == pytest.approx(float((problem.X.T @ problem.y).abs().max()) - 2)


def test_a_column_of_zeros_is_left_out():
    X = f64(1, 0, 2, 0, -1, 0).reshape(3, 2)
    w = solve_lasso(Lasso(X, f64(1, 2, 3), 0.1))
    assert w[1] == 0
    *_, last = coordinate_descent(Lasso(X, f64(1, 2, 3), 0.1), f64(0, 7), 1)
    assert last.x[1] == 0


@settings(deadline=None, max_examples=60)
@given(st.floats(-10, 10), st.floats(0, 5))
def test_soft_threshold_by_a_grid(value, threshold):
    grid = torch.linspace(-12, 12, 24_001, dtype=torch.float64)
    best = grid[(0.5 * (grid - value) ** 2 + threshold * grid.abs()).argmin()].item()
    found = soft_threshold(f64(value), threshold).item()
    assert found == pytest.approx(best, abs=1e-3)
    if abs(value) <= threshold:
        assert found == 0


def test_an_unfinished_lasso_says_so():
    X = f64(1, 1, 1, 1.0001).reshape(2, 2)
    with pytest.raises(RuntimeError, match=r"KKT residual is still .* after 3 sweeps"):
        solve_lasso(Lasso(X, f64(1, 2), 1e-6), max_sweeps=3)
