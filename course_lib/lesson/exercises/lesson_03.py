"""Lesson 03, KL divergence: exercises 3.1 to 3.4. The first two, on the divergence itself, stand in `divergences`."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from course_lib.foundations import Mixture, fit_forward, reparameterise
from course_lib.lesson.exercises.divergences import KL_DISCRETE, KL_NORMAL
from course_lib.lesson.tasks import Exercise, Mistake

# --- 3.3 one Gaussian for several humps ----------------------------------------------------------------------------


def _draw_mixture(generator: torch.Generator) -> tuple[Mixture]:
    K = int(torch.randint(2, 5, (), generator=generator))
    weights = torch.rand(K, generator=generator, dtype=torch.float64) + 0.1
    means = 2 * torch.randn(K, generator=generator, dtype=torch.float64)
    variances = torch.rand(K, generator=generator, dtype=torch.float64) + 0.1
    return (Mixture(weights / weights.sum(), means, variances),)


def _moments_on_a_grid(data: Mixture) -> tuple[Tensor, Tensor]:
    """Mean and variance read off the density itself, as sums over 4001 thin slices."""
    x = torch.linspace(-30, 30, 4001, dtype=torch.float64)
    mass = torch.zeros_like(x)
    for w, m, v in zip(data.weights.tolist(), data.means.tolist(), data.variances.tolist(), strict=True):
        mass += w / math.sqrt(v) * torch.exp(-((x - m) ** 2) / (2 * v))
    mass /= mass.sum()
    mean = (mass * x).sum()
    return mean, (mass * (x - mean) ** 2).sum()


def _largest(data: Mixture) -> int:
    return int(data.weights.argmax())


def _mean(data: Mixture) -> Tensor:
    return data.weights @ data.means


FIT_FORWARD = Exercise(
    id="3.3",
    title="the Gaussian with the least forward KL",
    reference=fit_forward,
    independent=_moments_on_a_grid,
    draw=_draw_mixture,
    mistakes=(
        Mistake(
            "spread of the means forgotten",
            lambda data: (_mean(data), data.weights @ data.variances),
            "averages the variances of the humps but forgets that the humps lie apart: add the spread of their means, "
            "the average of (data.means - mean)².",
        ),
        Mistake(
            "only the spread of the means",
            lambda data: (_mean(data), data.weights @ (data.means - _mean(data)) ** 2),
            "counts how far the humps lie apart, but not that each has a width of its own: add data.variances.",
        ),
        Mistake(
            "one hump alone",
            lambda data: (data.means[_largest(data)], data.variances[_largest(data)]),
            "returns the largest hump. That is what the reverse KL likes; the forward KL must cover all of the data.",
        ),
        Mistake(
            "standard deviations averaged",
            lambda data: (_mean(data), (data.weights @ data.variances.sqrt()) ** 2),
            "averages standard deviations. Squares are what averages well: average the variances, and add the spread "
            "of the means.",
        ),
        Mistake(
            "square of the mean not subtracted",
            lambda data: (_mean(data), data.weights @ (data.variances + data.means**2)),
            "measures the spread about 0. A variance is measured about the mean: (data.means - mean)².",
        ),
        Mistake(
            "weights forgotten",
            lambda data: (
                data.means.mean(),
                data.variances.mean() + ((data.means - data.means.mean()) ** 2).mean(),
            ),
            "treats all humps alike. Weigh each by its share of the data: data.weights @ … in place of .mean().",
        ),
        Mistake(
            "variance of a sum",
            lambda data: (_mean(data), data.weights**2 @ data.variances),
            "squares the weights, as for a weighted sum of independent numbers. A mixture draws from one hump at a "
            "time: weigh with the weights themselves, and add the spread of the means.",
        ),
        Mistake(
            "standard deviation returned",
            lambda data: (_mean(data), (data.weights @ (data.variances + (data.means - _mean(data)) ** 2)).sqrt()),
            "returns a standard deviation. The course gives Gaussians by their variance: leave the root out.",
        ),
    ),
    hints=(
        "The best mean and the best variance are those of the data as a whole.",
        "The mean is the weighted average of the humps' means: data.weights @ data.means.",
        "A draw deviates from the mean because its hump lies off (data.means - mean) and because it lies off its "
        "hump's middle (data.variances). Squared, the two add up; then average with the weights.",
    ),
)

# --- 3.4 a draw that lets gradients through ------------------------------------------------------------------------


def _draw_parameters(generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    n, d = torch.randint(2, 6, (2,), generator=generator).tolist()
    mean, log_var, noise = torch.randn(3, n, d, generator=generator, dtype=torch.float64)
    return mean, log_var, noise


def _number_by_number(mean: Tensor, log_var: Tensor, noise: Tensor) -> Tensor:
    z = []
    for m, s, e in zip(mean.flatten().tolist(), log_var.flatten().tolist(), noise.flatten().tolist(), strict=True):
        z.append(m + math.sqrt(math.exp(s)) * e)
    return torch.tensor(z, dtype=torch.float64).reshape(mean.shape)


def _gradients_get_through(answer, generator) -> str | None:
    mean, log_var, noise = _draw_parameters(generator)
    mean.requires_grad_()
    log_var.requires_grad_()
    z = answer(mean, log_var, noise)
    reached = z.requires_grad and torch.autograd.grad(z.sum(), (mean, log_var), allow_unused=True)
    if not reached or any(g is None for g in reached):
        return (
            "has the right values, but no gradient gets back to mean and log_var: keep .item(), .detach(), "
            "torch.tensor(…) and torch.no_grad() out of it."
        )
    wanted = torch.ones_like(mean), 0.5 * noise * torch.exp(log_var / 2)
    if all(torch.allclose(g, w, rtol=1e-4, atol=1e-5) for g, w in zip(reached, wanted, strict=True)):
        return None
    return "has the right values but wrong gradients: both mean and log_var must stay part of the computation."


def _one_number_for_many_draws(answer, generator) -> str | None:
    noise = torch.randn(5, generator=generator, dtype=torch.float64)
    mean, log_var = torch.tensor([1.0, 0.6], dtype=torch.float64)
    try:
        found = answer(mean, log_var, noise)
        right = found.shape == noise.shape and torch.allclose(found.double(), 1 + math.exp(0.3) * noise, atol=1e-4)
    except Exception:  # whatever an answer does with shapes that it was not written for
        right = False
    return None if right else "fails for one mean and one log_var with many noises; plain arithmetic fits every shape."


REPARAMETERISE = Exercise(
    id="3.4",
    title="a draw that lets gradients through",
    reference=reparameterise,
    independent=_number_by_number,
    draw=_draw_parameters,
    properties=(_gradients_get_through, _one_number_for_many_draws),
    mistakes=(
        Mistake(
            "variance for standard deviation",
            lambda m, s, e: m + s.exp() * e,
            "multiplies the noise by exp(log_var), the variance. Noise takes the standard deviation, its root: "
            "exp(½ log_var).",
        ),
        Mistake(
            "log-variance taken for the standard deviation",
            lambda m, s, e: m + s * e,
            "multiplies the noise by log_var itself, which may even be negative. The standard deviation is "
            "exp(½ log_var).",
        ),
        Mistake(
            "noise forgotten",
            lambda m, s, e: m + torch.exp(0.5 * s),
            "adds the standard deviation without noise: always the same point, one step right of the mean. Multiply "
            "it by the noise.",
        ),
        Mistake(
            "½ outside the exponential",
            lambda m, s, e: m + 0.5 * s.exp() * e,
            "halves the variance. The root of exp(log_var) is exp(½ log_var): the ½ belongs into the exponent.",
        ),
        Mistake(
            "mean scaled too",
            lambda m, s, e: (m + e) * torch.exp(0.5 * s),
            "multiplies the mean by the standard deviation as well. Scale the noise first, then shift it.",
        ),
        Mistake(
            "noise not scaled",
            lambda m, s, e: m + e,
            "leaves log_var out: every draw would have variance 1. Multiply the noise by exp(½ log_var).",
        ),
        Mistake(
            "sign of log_var",
            lambda m, s, e: m + torch.exp(-0.5 * s) * e,
            "has a minus in the exponent: that is one over the standard deviation. A large log_var means wide noise.",
        ),
        Mistake(
            "root of the logarithm",
            lambda m, s, e: m + s.sqrt() * e,
            "takes the root of log_var, which is NaN where log_var is negative. First the exponential, then the root: "
            "exp(½ log_var).",
        ),
    ),
    hints=(
        "Shift and scale: a draw from N(0, 1), times the standard deviation, plus the mean.",
        "The variance is exp(log_var). What is its square root, as a single exponential?",
        "mean + std * noise with std = torch.exp(0.5 * log_var). The noise is handed in: draw none yourself.",
    ),
)

EXERCISES = (KL_DISCRETE, KL_NORMAL, FIT_FORWARD, REPARAMETERISE)
