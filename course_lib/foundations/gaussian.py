"""One-dimensional Gaussians N(mean, variance): density, completing the square, affine maps, sums and products.

Every second parameter is a variance, never a standard deviation. Source: Bishop 2006, Pattern Recognition and Machine
Learning, sections 1.2.4 and 2.3; the product rule is what section 2.3.3 does with precisions.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float64, Real
from torch import Tensor

from course_lib.foundations._checks import broadcast, not_negative, positive, real, refuse


def normal_log_density(
    x: float | int | Real[Tensor, "*#shape"],
    mean: float | int | Real[Tensor, "*#shape"],
    variance: float | int | Real[Tensor, "*#shape"],
) -> Float64[Tensor, "..."]:
    """ln of the density of N(mean, variance) at x: -½ (ln 2πσ² + (x - μ)² / σ²). Shapes broadcast.

    Raises ValueError for a variance of 0: a point mass has no density.
    """
    x, mean, variance = broadcast(x=real(x, "x"), mean=real(mean, "mean"), variance=positive(variance, "variance"))
    return -0.5 * (torch.log(2 * math.pi * variance) + (x - mean) ** 2 / variance)


def normal_density(
    x: float | int | Real[Tensor, "*#shape"],
    mean: float | int | Real[Tensor, "*#shape"],
    variance: float | int | Real[Tensor, "*#shape"],
) -> Float64[Tensor, "..."]:
    """Density of N(mean, variance) at x, per unit of x (it may exceed 1). Shapes broadcast."""
    return torch.exp(normal_log_density(x, mean, variance))


def complete_square(
    a: float | int | Real[Tensor, "*#shape"], b: float | int | Real[Tensor, "*#shape"]
) -> tuple[Float64[Tensor, "..."], Float64[Tensor, "..."]]:
    """Mean -b/2a and variance 1/2a of the Gaussian whose density is proportional to exp(-(a x² + b x)).

    So a x² + b x = (x - mean)² / (2 variance) + a number without x. Raises ValueError unless a > 0: otherwise the
    curve does not fall off on both sides, and no density is proportional to it.
    """
    a, b = broadcast(a=real(a, "a"), b=real(b, "b"))
    refuse(a <= 0, a, "a", "be positive, or exp(-(a x² + b x)) has no finite area")
    return -b / (2 * a), 1 / (2 * a)


def affine_normal(
    mean: float | int | Real[Tensor, "*#shape"],
    variance: float | int | Real[Tensor, "*#shape"],
    scale: float | int | Real[Tensor, "*#shape"],
    shift: float | int | Real[Tensor, "*#shape"] = 0.0,
) -> tuple[Float64[Tensor, "..."], Float64[Tensor, "..."]]:
    """Mean and variance of scale · X + shift for X ~ N(mean, variance): the variance takes the square of the scale."""
    mean, variance, scale, shift = broadcast(
        mean=real(mean, "mean"),
        variance=not_negative(variance, "variance"),
        scale=real(scale, "scale"),
        shift=real(shift, "shift"),
    )
    return scale * mean + shift, scale**2 * variance


def sum_normal(
    mean_x: float | int | Real[Tensor, "*#shape"],
    var_x: float | int | Real[Tensor, "*#shape"],
    mean_y: float | int | Real[Tensor, "*#shape"],
    var_y: float | int | Real[Tensor, "*#shape"],
    a: float | int | Real[Tensor, "*#shape"] = 1.0,
    b: float | int | Real[Tensor, "*#shape"] = 1.0,
    covariance: float | int | Real[Tensor, "*#shape"] = 0.0,
) -> tuple[Float64[Tensor, "..."], Float64[Tensor, "..."]]:
    """Mean and variance of aX + bY: variances add as a² σ_x² + b² σ_y² + 2ab Cov[X, Y].

    covariance: 0, the default, is what independence gives. The sum is Gaussian if X and Y are jointly Gaussian, as
    independent Gaussians are; zero covariance alone promises the variance, not the shape.
    Raises ValueError for a covariance that exceeds √(var_x var_y) in size: no two variables have it.
    """
    mean_x, var_x, mean_y, var_y, a, b, covariance = broadcast(
        mean_x=real(mean_x, "mean_x"),
        var_x=not_negative(var_x, "var_x"),
        mean_y=real(mean_y, "mean_y"),
        var_y=not_negative(var_y, "var_y"),
        a=real(a, "a"),
        b=real(b, "b"),
        covariance=real(covariance, "covariance"),
    )
    largest = torch.sqrt(var_x) * torch.sqrt(var_y)
    refuse(covariance.abs() > largest * (1 + 1e-9), covariance, "covariance", "not exceed √(var_x var_y)")
    variance = a**2 * var_x + b**2 * var_y + 2 * a * b * covariance
    return a * mean_x + b * mean_y, variance.clamp(min=0)  # X - X: rounding must not leave a variance of -1e-17


def product_normal(
    mean_1: float | int | Real[Tensor, "*#shape"],
    var_1: float | int | Real[Tensor, "*#shape"],
    mean_2: float | int | Real[Tensor, "*#shape"],
    var_2: float | int | Real[Tensor, "*#shape"],
) -> tuple[Float64[Tensor, "..."], Float64[Tensor, "..."], Float64[Tensor, "..."]]:
    """Mean, variance and ln Z of the product of two densities: N(x; μ₁, σ₁²) N(x; μ₂, σ₂²) = Z N(x; mean, variance).

    Precisions (1/variance) add up. Z = N(μ₁; μ₂, σ₁² + σ₂²) is a density, returned as its logarithm, in nats. This is
    the product of two curves (Bayes' rule), not of two random variables, whose product is no Gaussian.
    """
    mean_1, var_1, mean_2, var_2 = broadcast(
        mean_1=real(mean_1, "mean_1"),
        var_1=positive(var_1, "var_1"),
        mean_2=real(mean_2, "mean_2"),
        var_2=positive(var_2, "var_2"),
    )
    variance = 1 / (1 / var_1 + 1 / var_2)
    mean = variance * (mean_1 / var_1 + mean_2 / var_2)
    return mean, variance, normal_log_density(mean_1, mean_2, var_1 + var_2)


def expect_normal(
    function: Callable[[Float64[Tensor, "*shape nodes"]], Float64[Tensor, "*shape nodes"]],
    mean: float | int | Real[Tensor, "*#shape"],
    variance: float | int | Real[Tensor, "*#shape"],
) -> Float64[Tensor, "..."]:
    """E[function(X)] for X ~ N(mean, variance), by the trapezoid rule on 1001 nodes between ±10 standard deviations.

    `function` works element by element on float64. Exact to about 1e-10 where it is smooth over a tenth of a standard
    deviation; a kink or a jump costs more.
    """
    mean, variance = broadcast(mean=real(mean, "mean"), variance=not_negative(variance, "variance"))
    z = torch.linspace(-10, 10, 1001, dtype=torch.float64, device=mean.device)
    weights = torch.softmax(-0.5 * z**2, dim=0)
    return (function(mean[..., None] + torch.sqrt(variance)[..., None] * z) * weights).sum(-1)
