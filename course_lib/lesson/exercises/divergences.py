"""Exercises on KL divergence: between two lists of probabilities, and between two Gaussians."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from course_lib.foundations import kl_discrete, kl_normal
from course_lib.lesson.tasks import Exercise, Mistake

# --- 3.1 two lists of probabilities --------------------------------------------------------------------------------


def _draw_probabilities(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    n = int(torch.randint(3, 9, (), generator=generator))
    p, q = torch.rand(2, n, generator=generator, dtype=torch.float64) + 0.05
    return p / p.sum(), q / q.sum()


def _extra_code_length(p: Tensor, q: Tensor) -> Tensor:
    extra = [a * (math.log2(a) - math.log2(b)) for a, b in zip(p.tolist(), q.tolist(), strict=True)]
    return torch.tensor(math.fsum(extra) * math.log(2), dtype=torch.float64)  # bits to nats


def _zeros_in_p_cost_nothing(answer, generator) -> str | None:
    half, spread = [0.5, 0.5, 0.0], [0.25, 0.25, 0.5]
    for q, wanted in ((spread, math.log(2)), (half, 0.0)):
        found = float(answer(torch.tensor(half, dtype=torch.float64), torch.tensor(q, dtype=torch.float64)))
        if math.isnan(found):
            return (
                "gives NaN where p holds a 0, because 0 · ln 0 is computed as 0 · (-∞). What never happens costs "
                "nothing: torch.xlogy(p, p) is 0 there, and so is torch.xlogy(p, q)."
            )
        if not abs(found - wanted) < 1e-5:
            return f"gives {found:.4g} for p = (½, ½, 0), q = {tuple(q)}, where {wanted:.4g} is right."
    return None


def _zeros_in_q_cost_everything(answer, generator) -> str | None:
    p, q = torch.tensor([[0.25, 0.25, 0.5], [0.5, 0.5, 0.0]], dtype=torch.float64)
    found = float(answer(p, q))
    if found == math.inf:
        return None
    if math.isnan(found):
        return "gives NaN where q is 0 and p is not. The answer there is ∞: no code has a word for that outcome."
    return (
        f"gives {found:.4g} nats where q calls an outcome impossible that p has. The right answer is ∞. An epsilon, a "
        "clamp or a mask hides it, and makes up a number instead: leave it out."
    )


def _rows_are_distributions(answer, generator) -> str | None:
    pairs = [_draw_probabilities(generator) for _ in range(20)]
    p, q = zip(*[pair for pair in pairs if len(pair[0]) == len(pairs[0][0])], strict=True)
    try:
        found, wanted = answer(torch.stack(p), torch.stack(q)), torch.stack([*map(_extra_code_length, p, q)])
        right = found.shape == wanted.shape and torch.allclose(found.double(), wanted, rtol=1e-4, atol=1e-5)
    except Exception:  # whatever an answer does with a table that it was not written for
        right = False
    message = "is right for one pair, but not for a table with one pair per row: sum over the last axis, .sum(-1)."
    return None if right else message


KL_DISCRETE = Exercise(
    id="3.1",
    title="KL of two lists of probabilities",
    reference=kl_discrete,
    independent=_extra_code_length,
    draw=_draw_probabilities,
    properties=(_zeros_in_p_cost_nothing, _zeros_in_q_cost_everything, _rows_are_distributions),
    mistakes=(
        Mistake(
            "reversed",
            lambda p, q: (q * (q / p).log()).sum(-1),
            "computes KL(q ‖ p). The first distribution is the one that the draws come from: weigh by p, and divide p "
            "by q.",
        ),
        Mistake(
            "cross-entropy",
            lambda p, q: -(p * q.log()).sum(-1),
            "is the cross-entropy, all the nats per draw. KL counts only the extra ones: subtract the entropy of p.",
        ),
        Mistake(
            "bits",
            lambda p, q: (p * (p / q).log2()).sum(-1),
            "uses the logarithm to base 2, which gives bits. The course measures in nats: torch.log.",
        ),
        Mistake(
            "mean instead of sum",
            lambda p, q: (p * (p / q).log()).mean(-1),
            "divides by the number of outcomes. The weights p are the average already, because they sum to 1: sum.",
        ),
        Mistake(
            "absolute values",
            lambda p, q: (p * (p / q).log()).abs().sum(-1),
            "takes absolute values. Single contributions may be negative, where q is larger than p: only their sum "
            "may not.",
        ),
        Mistake(
            "weight forgotten",
            lambda p, q: (p / q).log().sum(-1),
            "adds up ln(p / q) as if all outcomes were equally frequent. Weigh each by p, how often it happens.",
        ),
        Mistake(
            "weighted by q",
            lambda p, q: (q * (p / q).log()).sum(-1),
            "weighs by q. The outcomes come from p, so p says how often each ln(p / q) is met.",
        ),
        Mistake(
            "both directions added",
            lambda p, q: ((p - q) * (p / q).log()).sum(-1),
            "adds KL(p ‖ q) and KL(q ‖ p). That is symmetric, but it is not the number wanted: weigh by p alone.",
        ),
        Mistake(
            "sign",
            lambda p, q: (p * (q / p).log()).sum(-1),
            "has the wrong sign: ln(p / q), not ln(q / p). Extra nats are never negative.",
        ),
    ),
    hints=(
        "Each outcome contributes p ln(p / q). Sum over the last axis.",
        "With ln(p / q) = ln p - ln q there are two sums, and each of them must survive p = 0.",
        "torch.xlogy(a, b) is a · ln b, and 0 where a is 0. Take xlogy(p, p) - xlogy(p, q), then .sum(-1).",
    ),
)

# --- 3.2 two Gaussians ---------------------------------------------------------------------------------------------


def _draw_gaussians(generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    n, m = torch.randint(2, 5, (2,), generator=generator).tolist()
    mean_p, var_p = torch.randn(2, n, 1, generator=generator, dtype=torch.float64)
    mean_q, var_q = torch.randn(2, m, generator=generator, dtype=torch.float64)
    return mean_p, 0.2 + var_p**2, mean_q, 0.2 + var_q**2


def _three_points(mean_p: Tensor, var_p: Tensor, mean_q: Tensor, var_q: Tensor) -> Tensor:
    """ln(p / q) is a parabola, and the average of a parabola under p is exact on three points (Gauss and Hermite)."""

    def log_density(x: float, mean: float, variance: float) -> float:
        return -math.log(math.sqrt(2 * math.pi * variance)) - (x - mean) ** 2 / (2 * variance)

    rows = []
    for a, v in zip(mean_p.flatten().tolist(), var_p.flatten().tolist(), strict=True):
        points = ((a, 2 / 3), (a - math.sqrt(3 * v), 1 / 6), (a + math.sqrt(3 * v), 1 / 6))
        row = []
        for b, w in zip(mean_q.tolist(), var_q.tolist(), strict=True):
            row.append(math.fsum(s * (log_density(x, a, v) - log_density(x, b, w)) for x, s in points))
        rows.append(row)
    return torch.tensor(rows, dtype=torch.float64)


def _nothing_between_equals(answer, generator) -> str | None:
    mean, variance, _, _ = _draw_gaussians(generator)
    found = float(answer(mean, variance, mean, variance).abs().max())
    return None if found < 1e-5 else f"gives {found:.3g} between a Gaussian and itself, where 0 is right."


KL_NORMAL = Exercise(
    id="3.2",
    title="KL of two Gaussians",
    reference=kl_normal,
    independent=_three_points,
    draw=_draw_gaussians,
    properties=(_nothing_between_equals,),
    mistakes=(
        Mistake(
            "variance read as standard deviation",
            lambda m, v, n, w: 0.5 * (2 * (w / v).log() + (v**2 + (m - n) ** 2) / w**2 - 1),
            "squares var_p and var_q, as if they were standard deviations. They are variances already: σ² is var.",
        ),
        Mistake(
            "reversed",
            lambda m, v, n, w: 0.5 * ((v / w).log() + (w + (m - n) ** 2) / v - 1),
            "computes KL(q ‖ p). The draws come from p, so q's variance goes into the denominator and p's on top.",
        ),
        Mistake(
            "wrong denominator",
            lambda m, v, n, w: 0.5 * ((w / v).log() + (v + (m - n) ** 2) / v - 1),
            "divides by var_p. The deviation is measured in units of the model q: divide by var_q. (One of the "
            "course's sources has a wrong index in this very place.)",
        ),
        Mistake(
            "difference of the means not squared",
            lambda m, v, n, w: 0.5 * ((w / v).log() + (v + (m - n)) / w - 1),
            "adds the difference of the means without squaring it, so the sign of the shift would matter: square it.",
        ),
        Mistake(
            "½ lost",
            lambda m, v, n, w: (w / v).log() + (v + (m - n) ** 2) / w - 1,
            "is twice what is wanted: the ½ of the Gaussian's exponent stands in front of the whole bracket.",
        ),
        Mistake(
            "½ on one term only",
            lambda m, v, n, w: 0.5 * (w / v).log() + (v + (m - n) ** 2) / w - 0.5,
            "halves the logarithm but not the quotient. The ½ stands in front of the whole bracket.",
        ),
        Mistake(
            "logarithms swapped",
            lambda m, v, n, w: 0.5 * ((v / w).log() + (v + (m - n) ** 2) / w - 1),
            "has ln var_p - ln var_q. The wider q is, the thinner its density, and the more it costs: + ln var_q.",
        ),
        Mistake(
            "-1 forgotten",
            lambda m, v, n, w: 0.5 * ((w / v).log() + (v + (m - n) ** 2) / w),
            "forgets the -1, so that a Gaussian would be ½ nat away from itself.",
        ),
        Mistake(
            "standard deviations in the logarithm",
            lambda m, v, n, w: 0.5 * (0.5 * (w / v).log() + (v + (m - n) ** 2) / w - 1),
            "takes logarithms of standard deviations inside the ½. Variances stand there: ln var_q - ln var_p.",
        ),
        Mistake(
            "width of p forgotten",
            lambda m, v, n, w: 0.5 * ((w / v).log() + (m - n) ** 2 / w - 1),
            "leaves var_p out of the quotient. A draw misses q's mean by the shift of the means and by its own "
            "spread: var_p + (mean_p - mean_q)².",
        ),
    ),
    hints=(
        "Four terms in a bracket, with ½ in front: two logarithms of variances, one quotient, and -1.",
        "The quotient is the mean squared distance of a draw from q's mean, divided by q's variance: equation 3.9.",
        "0.5 * (torch.log(var_q) - torch.log(var_p) + (… + (mean_p - mean_q) ** 2) / var_q - 1)",
    ),
)
