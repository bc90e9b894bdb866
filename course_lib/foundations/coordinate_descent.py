"""Coordinate descent: minimise along one axis at a time, round and round.

The steps stand alone as small functions (`quadratic_step`, `gauss_seidel`, `lasso_step`, `lasso_residual`), which the
problems below use. Where it works: smooth convex functions (`Quadratic`), and smooth convex plus a separable convex
part (`Lasso`). Where it does not: `Corner`, convex with a crease that runs across the axes.
Source: Wright 2015, Coordinate Descent Algorithms (arXiv 1502.04759); Tseng 2001 for the separable case.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float64, Real
from torch import Tensor

from course_lib.foundations._checks import not_negative, positive, real, same_length, whole
from course_lib.foundations.multivariate import checked_covariance


@runtime_checkable
class Problem(Protocol):
    """A function of d variables, and where it is lowest along one axis."""

    def value(self, x: Real[Tensor, "d"]) -> Float64[Tensor, ""]:
        """The function at x."""

    def best_coordinate(self, x: Real[Tensor, "d"], i: int) -> Float64[Tensor, ""]:
        """The value of coordinate i that minimises the function while all others stay as they are in x."""


class Descent(NamedTuple):
    """Where the descent stands."""

    sweep: int  # 0 at the start, then 1, 2, …
    coordinate: int | None  # the one that has just been moved; None at the start
    x: Float64[Tensor, "d"]
    value: float


def coordinate_descent(problem: Problem, start: Real[Tensor, "d"], sweeps: int) -> Iterator[Descent]:
    """Yield the start, then the state after each single coordinate's exact minimisation: 1 + sweeps · d states.

    x_i^(k) = argmin f(x_1^(k), …, x_{i-1}^(k), · , x_{i+1}^(k-1), …): coordinates that have moved in this sweep are
    used at once, as Gauss and Seidel did. So the value never rises, at no step (but for rounding).
    """
    if not isinstance(problem, Problem):
        raise TypeError(f"problem must have value(x) and best_coordinate(x, i), got {type(problem).__name__}")
    x, sweeps = real(start, "start", ("d",)).clone(), whole(sweeps, "sweeps", least=0)
    yield Descent(0, None, x.clone(), float(problem.value(x)))
    for sweep in range(1, sweeps + 1):
        for i in range(len(x)):
            x[i] = problem.best_coordinate(x, i)
            yield Descent(sweep, i, x.clone(), float(problem.value(x)))


def quadratic_step(A: Real[Tensor, "d d"], b: Real[Tensor, "d"], x: Real[Tensor, "d"], i: int) -> Float64[Tensor, ""]:
    """(b_i - Σ_{j≠i} A_ij x_j) / A_ii: the best value of coordinate i for ½ xᵀA x - bᵀx, the others as they are in x.

    There the i-th component of the gradient A x - b vanishes. A is symmetric; raises ValueError unless A_ii > 0.
    """
    A, b, x = real(A, "A", ("d", "d")), real(b, "b", ("d",)), real(x, "x", ("d",))
    same_length(A=A, b=b, x=x)
    others = A[i] @ x - A[i, i] * x[i]
    return (b[i] - others) / positive(A[i, i], f"A[{i}, {i}]")


def gauss_seidel(A: Real[Tensor, "d d"], b: Real[Tensor, "d"], x: Real[Tensor, "d"]) -> Float64[Tensor, "d"]:
    """One sweep over all coordinates of ½ xᵀA x - bᵀx, first to last, each step using what the ones before it found."""
    x = real(x, "x", ("d",)).clone()
    for i in range(len(x)):
        x[i] = quadratic_step(A, b, x, i)
    return x


class Quadratic:
    """½ xᵀA x - bᵀx with A (d, d) symmetric and positive definite: smooth, with its one minimum at A⁻¹ b."""

    def __init__(self, A: Real[Tensor, "d d"], b: Real[Tensor, "d"]):
        self.A, self.b = real(A, "A", ("d", "d")), real(b, "b", ("d",))
        if self.A.shape != (len(self.b), len(self.b)):
            raise ValueError(
                f"A must have shape ({len(self.b)}, {len(self.b)}) to go with b, got {tuple(self.A.shape)}"
            )
        checked_covariance(self.A, "A")
        if torch.linalg.cholesky_ex(self.A).info != 0:
            raise ValueError(
                "A must be positive definite, or the function has no single lowest point; an eigenvalue is ≤ 0"
            )

    def value(self, x: Real[Tensor, "d"]) -> Float64[Tensor, ""]:
        """The function at x."""
        x = _point(x, "x", len(self.b))
        return 0.5 * x @ self.A @ x - self.b @ x

    def best_coordinate(self, x: Real[Tensor, "d"], i: int) -> Float64[Tensor, ""]:
        """(b_i - Σ_{j≠i} A_ij x_j) / A_ii: where the i-th component of the gradient A x - b vanishes."""
        return quadratic_step(self.A, self.b, _point(x, "x", len(self.b)), i)

    @property
    def minimum(self) -> Float64[Tensor, "d"]:
        """A⁻¹ b, solved for directly."""
        return torch.linalg.solve(self.A, self.b)


class Corner:
    """|x + y| + 3 |x - y|: convex, lowest (0) at the origin, and coordinate descent is stuck wherever x = y.

    Its crease lies along the diagonal. On it, any step along one axis costs 3 in the second term and saves at most 1
    in the first, although walking down the diagonal, both coordinates at once, would lead to the minimum.
    """

    def value(self, x: Real[Tensor, "2"]) -> Float64[Tensor, ""]:
        """The function at x = (x, y)."""
        x, y = _point(x, "x", 2)
        return (x + y).abs() + 3 * (x - y).abs()

    def best_coordinate(self, x: Real[Tensor, "2"], i: int) -> Float64[Tensor, ""]:
        """The other coordinate: the steeper term, 3 |x - y|, decides, and it vanishes where the two are equal."""
        return _point(x, "x", 2)[1 - i].clone()


def soft_threshold(value: Real[Tensor, "*shape"], threshold: float | int) -> Float64[Tensor, "*shape"]:
    """sign(v) · max(|v| - threshold, 0): what minimises ½ (w - v)² + threshold · |w|. Small values become exactly 0."""
    value = real(value, "value")
    threshold = not_negative(threshold, "threshold", ())
    return value.sign() * (value.abs() - threshold).clamp(min=0)


def lasso_step(
    X: Real[Tensor, "n d"], y: Real[Tensor, "n"], penalty: float | int, w: Real[Tensor, "d"], i: int
) -> Float64[Tensor, ""]:
    """The best value of w_i for ½ ‖y - X w‖² + penalty · Σ |w_i|, the others as they are in w.

    Soft threshold of X_iᵀ(what the other coordinates leave of y), over ‖X_i‖²; 0 for a column of zeros.
    """
    X, y, w = _checked(X, y, w)
    column = X[:, i]
    size = column @ column
    if size == 0:
        return torch.zeros_like(size)
    unexplained = y - X @ w + column * w[i]
    return soft_threshold(column @ unexplained, penalty) / size


def lasso_residual(X: Real[Tensor, "n d"], y: Real[Tensor, "n"], penalty: float | int, w: Real[Tensor, "d"]) -> float:
    """How far w is from minimising ½ ‖y - X w‖² + penalty · Σ |w_i|: 0 at the minimum (Karush, Kuhn, Tucker).

    With g = Xᵀ(X w - y), the gradient of the smooth part: |g_i + penalty · sign(w_i)| where w_i is not 0, and the
    excess of |g_i| over the penalty where w_i is 0; the largest of them all.
    """
    X, y, w = _checked(X, y, w)
    penalty = float(not_negative(penalty, "penalty", ()))
    gradient = X.T @ (X @ w - y)
    elsewhere = (gradient + penalty * w.sign()).abs()
    at_zero = (gradient.abs() - penalty).clamp(min=0)
    return float(torch.where(w == 0, at_zero, elsewhere).max())


class Lasso:
    """½ ‖y - X w‖² + penalty · Σ |w_i| with X (n, d), y (n,): smooth and convex, plus one crease along each axis.

    Raises ValueError for a negative penalty. Other libraries divide the first term by n; their penalty is ours over n.
    """

    def __init__(self, X: Real[Tensor, "n d"], y: Real[Tensor, "n"], penalty: float | int):
        X = real(X, "X", ("n", "d"))
        self.X, self.y, _ = _checked(X, y, torch.zeros(X.shape[1]))
        self.penalty = float(not_negative(penalty, "penalty", ()))

    def value(self, w: Real[Tensor, "d"]) -> Float64[Tensor, ""]:
        """The function at w."""
        w = _point(w, "w", self.X.shape[1])
        return 0.5 * (self.y - self.X @ w).square().sum() + self.penalty * w.abs().sum()

    def best_coordinate(self, w: Real[Tensor, "d"], i: int) -> Float64[Tensor, ""]:
        """Soft threshold of X_iᵀ(what the other coordinates leave of y), over ‖X_i‖²; 0 for a column of zeros."""
        return lasso_step(self.X, self.y, self.penalty, w, i)

    def kkt_residual(self, w: Real[Tensor, "d"]) -> float:
        """Largest violation of 0 ∈ gradient + penalty · subgradient of |w_i|, over all i; 0 at the minimum.

        The gradient must be -penalty · sign(w_i) where w_i ≠ 0, and at most the penalty in size where w_i = 0.
        """
        return lasso_residual(self.X, self.y, self.penalty, w)


def solve_lasso(problem: Lasso, tolerance: float = 1e-9, max_sweeps: int = 10_000) -> Float64[Tensor, "d"]:
    """Coordinate descent from 0 until the KKT residual is at most `tolerance`.

    The steps of `lasso_step`; what is unexplained is mended after each, so that a step costs as much as one column.
    Raises RuntimeError where `max_sweeps` do not suffice: nearly parallel columns make progress slow.
    """
    columns, sizes = list(problem.X.T.contiguous()), problem.X.square().sum(dim=0).tolist()
    w = torch.zeros(len(columns), dtype=torch.float64, device=problem.X.device)
    values = [0.0] * len(columns)  # the same numbers as in w, where Python reads them faster
    for sweep in range(whole(max_sweeps, "max_sweeps", least=1) + 1):
        residual = problem.kkt_residual(w)
        if residual <= tolerance:
            return w
        if sweep == max_sweeps:
            break
        unexplained = problem.y - problem.X @ w  # afresh in every sweep, so that rounding does not add up
        for i, (column, size) in enumerate(zip(columns, sizes, strict=True)):
            if size == 0:
                continue
            pull = float(column @ unexplained) + size * values[i]
            new = math.copysign(max(abs(pull) - problem.penalty, 0.0), pull) / size
            if new != values[i]:
                unexplained.add_(column, alpha=values[i] - new)
                w[i] = values[i] = new
    raise RuntimeError(f"the KKT residual is still {residual:.3g} after {max_sweeps} sweeps; tolerance {tolerance:.3g}")


def _checked(X: Tensor, y: Tensor, w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The data and the coefficients of a lasso in float64, once their sizes fit together."""
    X, y = real(X, "X", ("n", "d")), real(y, "y", ("n",))
    if len(X) != len(y):
        raise ValueError(f"X must have one row per value of y, {len(y)}, got {len(X)}")
    return X, y, _point(w, "w", X.shape[1])


def _point(x: Tensor, name: str, d: int) -> Tensor:
    x = real(x, name, ("d",))
    if len(x) != d:
        raise ValueError(f"{name} must have shape ({d},), one number per variable, got ({len(x)},)")
    return x
