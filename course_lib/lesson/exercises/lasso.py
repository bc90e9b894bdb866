"""Exercises on the lasso: the soft threshold, and how to tell that a point is the minimum."""

from __future__ import annotations

import torch
from torch import Tensor

from course_lib.foundations import lasso_residual, soft_threshold
from course_lib.lesson.tasks import Exercise, Mistake

# --- 4.3 the soft threshold ----------------------------------------------------------------------------------------


def _draw_values(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    n = int(torch.randint(6, 12, (), generator=generator))
    threshold = 0.3 + torch.rand((), generator=generator, dtype=torch.float64)
    values = 2 * torch.randn(n, generator=generator, dtype=torch.float64)
    values[:4] = threshold * torch.tensor([0.4, -0.6, 1.8, -2.1])  # inside and outside, on both sides
    return values, threshold


def _by_cases(value: Tensor, threshold: Tensor) -> Tensor:
    found = []
    for v in value.tolist():
        if v > float(threshold):
            found.append(v - float(threshold))
        elif v < -float(threshold):
            found.append(v + float(threshold))
        else:
            found.append(0.0)
    return value.new_tensor(found)


SOFT_THRESHOLD = Exercise(
    id="4.3",
    title="the soft threshold",
    reference=soft_threshold,
    independent=_by_cases,
    draw=_draw_values,
    mistakes=(
        Mistake(
            "hard threshold",
            lambda v, t: v * (v.abs() > t),
            "sets small values to 0 but leaves the large ones as they are. The soft threshold moves every value "
            "towards 0, by exactly the threshold.",
        ),
        Mistake(
            "sign lost",
            lambda v, t: (v.abs() - t).clamp(min=0),
            "returns sizes without their signs: multiply by value.sign().",
        ),
        Mistake(
            "one side only",
            lambda v, t: (v - t).clamp(min=0),
            "treats negative values as small ones. It is the size |v| that is compared with the threshold.",
        ),
        Mistake(
            "shrunk past zero",
            lambda v, t: v - t * v.sign(),
            "moves small values past 0 to the other side. They stop at 0: clamp the size at 0 first.",
        ),
        Mistake(
            "clamped",
            lambda v, t: v.clamp(min=-t, max=t),
            "returns what is cut off. Keep the rest: v minus that.",
        ),
        Mistake(
            "scaled",
            lambda v, t: v / (1 + t),
            "shrinks in proportion. That is what a squared penalty does, and it never gives an exact 0.",
        ),
    ),
    hints=(
        "Three cases: above the threshold, below minus the threshold, and in between. What happens in each?",
        "Work with the size first: value.abs() - threshold, but never below 0.",
        "Then give it its sign back: value.sign() * (value.abs() - threshold).clamp(min=0).",
    ),
)

# --- 4.4 is this the minimum? --------------------------------------------------------------------------------------


def _draw_lasso(generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    n, d = 8, int(torch.randint(3, 6, (), generator=generator))
    X = torch.randn((n, d), generator=generator, dtype=torch.float64)
    w = torch.randn(d, generator=generator, dtype=torch.float64)
    zeros, share = torch.rand(2, generator=generator, dtype=torch.float64)
    if zeros < 0.3:  # all at 0 under a large penalty, where 0 may well be the minimum
        return X, torch.randn(n, generator=generator, dtype=torch.float64), 4 + 4 * share, 0 * w
    w[torch.randperm(d, generator=generator)[:2]] = 0.0
    return X, 3 * torch.randn(n, generator=generator, dtype=torch.float64), 0.2 + share, w


def _largest_slope_down(X: Tensor, y: Tensor, penalty: Tensor, w: Tensor) -> Tensor:
    """From the definition: how steeply the function falls if one coordinate moves a little, in the worse direction.

    At a corner the two directions have slopes of their own; no direction falls at a minimum. Away from the corners
    the slopes are opposite, and the residual is their size.
    """
    worst = 0.0
    for i in range(len(w)):
        slope = sum(float(X[k, i]) * (float(X[k] @ w) - float(y[k])) for k in range(len(y)))
        bend = float(penalty) if w[i] == 0 else 0.0
        tilt = float(penalty) * float(w[i].sign())
        up, down = slope + tilt + bend, -slope - tilt + bend  # derivatives to the right and to the left
        worst = max(worst, -up, -down)
    return w.new_tensor(worst)


def _gradient(X: Tensor, y: Tensor, w: Tensor) -> Tensor:
    return X.T @ (X @ w - y)


def _zero_at_the_minimum(answer, generator) -> str | None:
    """One column has a solution in closed form; for a large penalty it is exactly 0."""
    X = torch.tensor([[1.0], [2.0]], dtype=torch.float64)
    y = torch.tensor([3.0, 1.0], dtype=torch.float64)
    for penalty in (1.0, 20.0):
        best = soft_threshold(X.T @ y, penalty) / 5
        found = float(answer(X, y, torch.tensor(penalty, dtype=torch.float64), best))
        if abs(found) > 1e-6:
            return f"must be 0 at the minimum, but for one column and penalty {penalty} it is {found:.4g} there."
    return None


LASSO_RESIDUAL = Exercise(
    id="4.4",
    title="is this the minimum?",
    reference=lasso_residual,
    independent=_largest_slope_down,
    draw=_draw_lasso,
    properties=(_zero_at_the_minimum,),
    mistakes=(
        Mistake(
            "plain gradient",
            lambda X, y, p, w: _gradient(X, y, w).abs().max(),
            "looks at the gradient of the smooth part alone. The penalty has a slope too, and a corner at 0.",
        ),
        Mistake(
            "zeros treated like the rest",
            lambda X, y, p, w: (_gradient(X, y, w) + p * w.sign()).abs().max(),
            "uses sign(0) = 0 at the corner. Where w_i is 0, any slope up to the penalty in size is fine: only what "
            "exceeds it counts.",
        ),
        Mistake(
            "zeros left out",
            lambda X, y, p, w: torch.where(w == 0, 0.0, (_gradient(X, y, w) + p * w.sign()).abs()).max(),
            "takes every zero for right. A weight at 0 is wrong if its gradient exceeds the penalty in size.",
        ),
        Mistake(
            "sign of the penalty",
            lambda X, y, p, w: torch.where(
                w == 0, (_gradient(X, y, w).abs() - p).clamp(min=0), (_gradient(X, y, w) - p * w.sign()).abs()
            ).max(),
            "subtracts the penalty's slope. Gradient plus penalty · sign(w_i) must vanish where w_i is not 0.",
        ),
        Mistake(
            "sum instead of the largest",
            lambda X, y, p, w: torch.where(
                w == 0, (_gradient(X, y, w).abs() - p).clamp(min=0), (_gradient(X, y, w) + p * w.sign()).abs()
            ).sum(),
            "adds the violations up. The largest one is wanted: .max().",
        ),
        Mistake(
            "small slopes at zero counted as negative",
            lambda X, y, p, w: torch.where(
                w == 0, (_gradient(X, y, w).abs() - p).abs(), (_gradient(X, y, w) + p * w.sign()).abs()
            ).max(),
            "complains about zeros whose gradient is smaller than the penalty. They are fine: clamp at 0 from below, "
            "no absolute value.",
        ),
    ),
    hints=(
        "gradient = X.T @ (X @ w - y) is the slope of the smooth part in each coordinate.",
        "Two cases for each coordinate: w_i ≠ 0: |gradient + penalty · sign(w_i)|; w_i = 0: by how much |gradient| "
        "exceeds the penalty, or 0.",
        "torch.where(w == 0, a, b).max() puts the two cases together; (…).clamp(min=0) takes nothing below 0.",
    ),
)
