"""Exercises on sparse coefficients: the soft threshold, and how far a lasso's coefficients are from optimal."""

from __future__ import annotations

import torch
from torch import Tensor

from course_lib.foundations import lasso_residual, soft_threshold
from course_lib.lesson.tasks import Exercise, Mistake

# --- 4.3 the soft threshold ----------------------------------------------------------------------------------------


def _draw_values(generator: torch.Generator) -> tuple[Tensor, float]:
    shape = [(7,), (2, 5), (1,), (3, 1, 4)][int(torch.randint(0, 4, (), generator=generator))]
    value = 2 * torch.randn(shape, generator=generator, dtype=torch.float64)
    value.view(-1)[0] = 0.0  # a value that has no sign
    return value, 0.2 + float(torch.rand((), generator=generator))


def _shrunk_one_by_one(value: Tensor, threshold: float) -> Tensor:
    """Where ½ (w - v)² + threshold |w| has slope 0 on either side of 0; else its corner at 0 is lowest."""
    found = []
    for v in value.flatten().tolist():
        if v > threshold:
            found.append(v - threshold)
        elif v < -threshold:
            found.append(v + threshold)
        else:
            found.append(0.0)
    return torch.tensor(found, dtype=torch.float64).reshape(value.shape)


def _takes_a_single_number(answer, generator) -> str | None:
    """As the coordinate step uses it: a tensor without axes."""
    try:
        found = [float(answer(torch.tensor(v, dtype=torch.float64), 1.0)) for v in (3.0, -3.0, 0.5)]
    except Exception:  # whatever an answer does with a shape that it was not written for
        found = None
    if found is not None and all(abs(a - b) < 1e-4 for a, b in zip(found, (2, -2, 0), strict=True)):
        return None
    return "fails for a tensor that holds a single number, shape (), which the coordinate step needs. Use no index."


SOFT_THRESHOLD = Exercise(
    id="4.3",
    title="the soft threshold",
    reference=soft_threshold,
    independent=_shrunk_one_by_one,
    draw=_draw_values,
    properties=(_takes_a_single_number,),
    mistakes=(
        Mistake(
            "hard threshold",
            lambda v, t: v * (v.abs() > t),
            "keeps large values as they are: that is the hard threshold. The soft one also pulls them towards 0 by the "
            "threshold, because every unit of |w| costs.",
        ),
        Mistake(
            "sign lost",
            lambda v, t: (v.abs() - t).clamp(min=0),
            "makes every value positive: multiply by the sign of the value at the end.",
        ),
        Mistake(
            "one-sided",
            lambda v, t: (v - t).clamp(min=0),
            "erases all negative values. Shrink the size |v|, not v itself, then give back the sign.",
        ),
        Mistake(
            "shrunk past zero",
            lambda v, t: v - t * v.sign(),
            "pushes small values past 0 to the other side. Shrinking stops at 0: clamp |v| - threshold at 0.",
        ),
        Mistake(
            "what is taken away",
            lambda v, t: v.clamp(-t, t),
            "returns what is cut off, between -threshold and threshold. Wanted is the rest: the value minus this.",
        ),
        Mistake(
            "divided by its own size",
            lambda v, t: v / v.abs() * (v.abs() - t).clamp(min=0),
            "divides 0 by 0 where the value is 0, and gets NaN: torch.sign(0) is 0, value / value.abs() is not.",
        ),
    ),
    hints=(
        "Three cases: v above the threshold, v below -threshold, and all in between. What becomes of each?",
        "The size |v| shrinks by the threshold but not below 0: (value.abs() - threshold).clamp(min=0).",
        "Multiply that size by value.sign().",
    ),
)

# --- 4.4 how far from optimal --------------------------------------------------------------------------------------


def _draw_lasso(generator: torch.Generator) -> tuple[Tensor, Tensor, float, Tensor]:
    n, d = int(torch.randint(4, 9, (), generator=generator)), int(torch.randint(3, 7, (), generator=generator))
    X = torch.randn((n, d), generator=generator, dtype=torch.float64)
    y = torch.randn((n,), generator=generator, dtype=torch.float64)
    penalty = 0.5 + float(torch.rand((), generator=generator))
    w = torch.randn((d,), generator=generator, dtype=torch.float64)
    w[torch.rand((d,), generator=generator) < 0.5] = 0.0
    if torch.rand((), generator=generator) < 0.2:  # all 0 under a penalty so large that this is optimal
        w, penalty = torch.zeros_like(w), 1.5 * float((X.T @ y).abs().max())
    return X, y, penalty, w


def _steepest_axis(X: Tensor, y: Tensor, penalty: float, w: Tensor) -> float:
    """The fastest fall along any axis, upwards or downwards: automatic slope of the smooth part, plus |w_i|'s own."""
    w = w.double().clone().requires_grad_()
    (0.5 * (y.double() - X.double() @ w).pow(2).sum()).backward()
    worst = 0.0
    for slope, value in zip(w.grad.tolist(), w.detach().tolist(), strict=True):
        up = penalty if value >= 0 else -penalty  # what |w_i| costs per unit on the way up, and on the way down
        down = penalty if value <= 0 else -penalty
        worst = max(worst, -(slope + up), -(-slope + down))
    return worst


def _parts(X: Tensor, y: Tensor, penalty: float, w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    gradient = X.T @ (X @ w - y)
    return gradient, (gradient + penalty * w.sign()).abs(), (gradient.abs() - penalty).clamp(min=0)


LASSO_RESIDUAL = Exercise(
    id="4.4",
    title="how far from optimal",
    reference=lasso_residual,
    independent=_steepest_axis,
    draw=_draw_lasso,
    mistakes=(
        Mistake(
            "plain gradient",
            lambda X, y, p, w: float(_parts(X, y, p, w)[0].abs().max()),
            "is the gradient of the smooth part alone, which is not 0 at the minimum: the penalty must balance it.",
        ),
        Mistake(
            "zeros treated like the rest",
            lambda X, y, p, w: float(_parts(X, y, p, w)[1].max()),
            "uses sign(w_i) = 0 at the corner. Where w_i = 0, any slope of |w_i| between -penalty and penalty will do: "
            "only what |s_i| has beyond the penalty counts.",
        ),
        Mistake(
            "sign of the penalty",
            lambda X, y, p, w: float(
                torch.where(w == 0, _parts(X, y, p, w)[2], (_parts(X, y, p, w)[0] - p * w.sign()).abs()).max()
            ),
            "has the two slopes against each other. They belong to one sum, smooth part plus penalty: add "
            "penalty · sign(w_i) to the gradient, which is Xᵀ(X w - y) and not its negative.",
        ),
        Mistake(
            "penalty forgotten where w is not 0",
            lambda X, y, p, w: float(torch.where(w == 0, _parts(X, y, p, w)[2], _parts(X, y, p, w)[0].abs()).max()),
            "asks for gradient 0 where w_i is not 0. There the penalty has the slope penalty · sign(w_i): add it.",
        ),
        Mistake(
            "zeros left out",
            lambda X, y, p, w: float(torch.where(w == 0, torch.zeros_like(w), _parts(X, y, p, w)[1]).max()),
            "looks at the coefficients that are not 0 only. A zero can be wrong too: when |s_i| exceeds the penalty, "
            "w_i should leave 0.",
        ),
        Mistake(
            "not stopped at 0",
            lambda X, y, p, w: float(torch.where(w == 0, _parts(X, y, p, w)[0].abs() - p, _parts(X, y, p, w)[1]).max()),
            "turns negative where |s_i| stays below the penalty. Nothing is wrong there, so it counts as 0: clamp.",
        ),
        Mistake(
            "sum over all coordinates",
            lambda X, y, p, w: float(torch.where(w == 0, _parts(X, y, p, w)[2], _parts(X, y, p, w)[1]).sum()),
            "adds the violations up. The largest one is wanted: .max().",
        ),
    ),
    hints=(
        "Start with the gradient of the smooth part: s = X.T @ (X @ w - y), one number per coefficient.",
        "Two cases. w_i not 0: |s_i + penalty · sign(w_i)|. w_i = 0: |s_i| - penalty, but at least 0.",
        "torch.where(w == 0, one case, the other case), and the largest entry of that.",
    ),
)
