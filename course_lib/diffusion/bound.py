"""The variational bound on -ln p(x_start), term by term: what a diffusion model's loss is derived from.

-ln p(x_start) ≤ reconstruction + Σ matching + prior, in nats (Ho et al. 2020, eq. 5; Sohl-Dickstein et al. 2015).
For Gaussian data and the exact denoiser every term has a closed form.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from course_lib.diffusion.forward import q_mean_variance
from course_lib.diffusion.losses import checked_variance
from course_lib.diffusion.prediction import same_shape
from course_lib.diffusion.reverse import posterior, reverse_variance
from course_lib.diffusion.schedule import Schedule, per_image, step_indices
from course_lib.foundations import kl_normal


@dataclass(frozen=True)
class Bound:
    """The terms of the bound, in nats, summed over the data's `dimensions` coordinates."""

    reconstruction: float  # -ln p(x_start | x_1), expected: L_0 in Ho et al.
    matching: Float64[Tensor, "steps"]  # KL of each reverse step t = 2…T from the posterior: L_1 … L_{T-1}
    prior: float  # KL(q(x_T | x_start) ‖ N(0, I)): L_T, without parameters
    dimensions: int

    @property
    def nats(self) -> float:
        """The whole bound."""
        return self.reconstruction + float(self.matching.sum()) + self.prior

    @property
    def bits_per_dim(self) -> float:
        """The whole bound, in bits per coordinate."""
        return bits_per_dim(self.nats, self.dimensions)


def bits_per_dim(nats: float, dimensions: int) -> float:
    """Nats for a whole image as bits per coordinate: nats / (dimensions · ln 2)."""
    return nats / (dimensions * math.log(2))


def gaussian_bound(
    schedule: Schedule,
    mean: Float[Tensor, "d"] | float | int,
    data_variance: Float[Tensor, "d"] | float | int,
    variance: str = "small",
) -> Bound:
    """The bound for data from N(mean, data_variance), independent coordinates, denoised exactly.

    variance: of the reverse steps, "small", "large" (see `reverse_variance`) or "optimal", that of x_{t-1} given x_t.
    With "optimal" nothing is lost but KL(q(x_T) ‖ N(0, I)); "large" loses less and less as T grows; "small" loses
    (γ + 1 - ln 2) / 2 = 0.442 nats per coordinate however large T is, γ = 0.5772 being Euler's constant.
    """
    s2 = checked_variance(data_variance)
    m = torch.as_tensor(mean, dtype=torch.float64).cpu().reshape(-1).expand_as(s2)
    bar, exact = schedule.alpha_bars[:, None], schedule.posterior_variance[:, None]
    unknown = s2 * (1 - bar) / (bar * s2 + 1 - bar)  # variance of x_start given x_t: no denoiser can know more
    off = schedule.posterior_coef_x_start[:, None] ** 2 * unknown  # mean squared distance of the two means
    sigma2 = exact + off if variance == "optimal" else reverse_variance(schedule, variance)[:, None]
    matching = 0.5 * ((exact + off)[1:] / sigma2[1:] - 1 + (sigma2[1:] / exact[1:]).log())
    reconstruction = 0.5 * ((2 * math.pi * sigma2[0]).log() + off[0] / sigma2[0])
    prior = 0.5 * (bar[-1] * (s2 + m**2) - bar[-1] - torch.log1p(-bar[-1]))
    return Bound(
        float(reconstruction.expand_as(s2).sum()), matching.expand(-1, len(s2)).sum(1), float(prior.sum()), len(s2)
    )


def bound_term(
    schedule: Schedule,
    x_start: Float[Tensor, "batch ..."],
    x_t: Float[Tensor, "batch ..."],
    t: Int[Tensor, "batch"] | int,
    predicted_x_start: Float[Tensor, "batch ..."],
    variance: str = "small",
) -> Float64[Tensor, "batch"]:
    """The bound's term at step t in nats per image, for any denoiser; T of them and `prior_kl` make up the bound.

    KL(q(x_{t-1} | x_t, x_start) ‖ p(x_{t-1} | x_t)) for t > 0, and -ln p(x_start | x_1), as a density, at t = 0.
    """
    same_shape(x_t, x_start=x_start, predicted_x_start=predicted_x_start)
    x_start, x_t, predicted_x_start = (x.detach().cpu().double() for x in (x_start, x_t, predicted_x_start))
    steps = step_indices(t, schedule.T, len(x_t))
    sigma2 = per_image(reverse_variance(schedule, variance)[steps], x_t)
    true_mean, true_variance = posterior(schedule, x_start, x_t, steps)
    mean, _ = posterior(schedule, predicted_x_start, x_t, steps)
    first = true_variance == 0
    kl = kl_normal(true_mean, torch.where(first, 1.0, true_variance), mean, sigma2)
    log_loss = 0.5 * ((2 * math.pi * sigma2).log() + (x_start - mean) ** 2 / sigma2)
    return torch.where(first, log_loss, kl).flatten(1).sum(dim=1)


def prior_kl(schedule: Schedule, x_start: Float[Tensor, "batch ..."]) -> Float64[Tensor, "batch"]:
    """KL(q(x_T | x_start) ‖ N(0, I)) in nats per image: what x_T still shows of the image. Nothing to learn."""
    mean, variance, _ = q_mean_variance(schedule, x_start.detach().cpu().double(), schedule.T - 1)
    return kl_normal(mean, variance, 0.0, 1.0).flatten(1).sum(dim=1)
