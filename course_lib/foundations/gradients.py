"""Two ways to differentiate an average over random draws: through the draw, or through its probability.

Both estimate the gradient of E f(Z), Z ~ N(mean, std²), with respect to (mean, std), and both are right on average;
the first has far less noise. Source: Kingma & Welling 2013 (arXiv 1312.6114), section 2.4; Williams 1992 (REINFORCE).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Float64, Real
from torch import Tensor

from course_lib.foundations._checks import broadcast, positive, real, whole


def reparameterise(
    mean: Float[Tensor, "*#shape"], log_var: Float[Tensor, "*#shape"], noise: Float[Tensor, "*#shape"]
) -> Float[Tensor, "..."]:
    """A draw z = mean + std ε from N(mean, exp(log_var)) that gradients pass through; shapes broadcast.

    log_var is the ln of the variance, so std = exp(½ log_var); noise holds the ε ~ N(0, 1). The dtype stays as it is:
    networks draw with it. Source: Kingma & Welling 2013 (arXiv 1312.6114), section 2.4.
    """
    mean, log_var, noise = broadcast(mean=mean, log_var=log_var, noise=noise)
    std = torch.exp(0.5 * log_var)
    return mean + std * noise


def reparameterised_gradients(
    function: Callable[[Float64[Tensor, "n"]], Float64[Tensor, "n"]],
    mean: float | int | Real[Tensor, ""],
    std: float | int | Real[Tensor, ""],
    n: int,
    generator: torch.Generator | None = None,
) -> Float64[Tensor, "n 2"]:
    """n estimates of d E f(Z) / d(mean, std), one per draw: (f'(z), f'(z) ε) with z = mean + std ε, ε ~ N(0, 1).

    `function` works element by element and must be differentiable. std is a standard deviation, above 0. Average the
    rows for the estimate; their spread is its noise.
    """
    mean, std, noise = _draw(mean, std, n, generator)
    with torch.enable_grad():
        z = (mean + std * noise).requires_grad_()
        (slope,) = torch.autograd.grad(_values(function, z).sum(), z)
    return torch.stack([slope, slope * noise], dim=1)


def score_function_gradients(
    function: Callable[[Float64[Tensor, "n"]], Float64[Tensor, "n"]],
    mean: float | int | Real[Tensor, ""],
    std: float | int | Real[Tensor, ""],
    n: int,
    generator: torch.Generator | None = None,
    *,
    baseline: float = 0.0,
) -> Float64[Tensor, "n 2"]:
    """n estimates of d E f(Z) / d(mean, std), one per draw: (f(z) - baseline) · d ln N(z; mean, std²) / d(mean, std).

    The two derivatives are ε / std and (ε² - 1) / std. `function` needs no derivative: it may even jump. A constant
    baseline changes the noise, never the mean.
    """
    mean, std, noise = _draw(mean, std, n, generator)
    with torch.no_grad():
        value = _values(function, mean + std * noise) - baseline
    return torch.stack([value * noise / std, value * (noise**2 - 1) / std], dim=1)


def _draw(mean: object, std: object, n: int, generator: torch.Generator | None) -> tuple[Tensor, Tensor, Tensor]:
    mean, std = real(mean, "mean", ()).detach(), positive(std, "std", ()).detach()
    noise = torch.randn(whole(n, "n", least=1), generator=generator, dtype=torch.float64)
    return mean, std, noise


def _values(function: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    values = function(z)
    if not isinstance(values, Tensor) or values.shape != z.shape:
        given = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise ValueError(f"function must give one value per draw, shape {tuple(z.shape)}, got {given}")
    return values
