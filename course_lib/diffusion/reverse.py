"""The way back: the posterior q(x_{t-1} | x_t, x_start), and the variance of a reverse step.

The posterior says where x_t came from, if the clean image is known. It is Gaussian.

Source: Ho et al. 2020 (arXiv 2006.11239), section 3.2 and equations 6, 7 and 11.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from course_lib.diffusion.prediction import same_shape
from course_lib.diffusion.schedule import Schedule, gather


def posterior(
    schedule: Schedule,
    x_start: Float[Tensor, "batch *shape"],
    x_t: Float[Tensor, "batch *shape"],
    t: Int[Tensor, "..."] | int,
) -> tuple[Float[Tensor, "batch *shape"], Float[Tensor, "..."]]:
    """Mean (like x_t) and variance (batch, 1, 1…) of x_{t-1} given x_t and x_start (Ho et al. 2020, eqs. 6-7).

    t: (batch,) or one whole number, 0…T-1. At t = 0 the mean is x_start itself and the variance 0.
    """
    same_shape(x_t, x_start=x_start)
    mean = gather(schedule.posterior_coef_x_start, t, x_t) * x_start + gather(schedule.posterior_coef_x_t, t, x_t) * x_t
    return mean, gather(schedule.posterior_variance, t, x_t)


def posterior_mean_from_noise(
    schedule: Schedule,
    x_t: Float[Tensor, "batch *shape"],
    t: Int[Tensor, "..."] | int,
    noise: Float[Tensor, "batch *shape"],
) -> Float[Tensor, "batch *shape"]:
    """The same mean, from the noise in x_t: (x_t - β_t / √(1-ᾱ_t) noise) / √α_t (Ho et al. 2020, eq. 11)."""
    same_shape(x_t, noise=noise)
    share = gather(schedule.betas / schedule.noise_std, t, x_t)
    return (x_t - share * noise) / gather(schedule.alphas.sqrt(), t, x_t)


def reverse_variance(schedule: Schedule, variance: str = "small") -> Float64[Tensor, "T"]:
    """The variance that a model without learned variances gives its reverse steps (Ho et al. 2020, section 3.2).

    "small": β̃_t, exact for data that is a single point. "large": β_t, exact for data from N(0, I). β̃ is 0 at the
    first index, where a bound would be infinite: as in the published code, the value after it stands in there.
    """
    check_variance(variance)
    if variance == "large":
        return schedule.betas
    if schedule.T == 1:
        raise ValueError("a schedule of one step has no posterior variance to speak of; use variance='large'")
    return torch.cat([schedule.posterior_variance[1:2], schedule.posterior_variance[1:]])


def check_variance(variance: object) -> None:
    """ValueError unless it is one of the two."""
    if variance not in ("small", "large"):
        raise ValueError(
            f"variance must be 'small' (the posterior's, β̃) or 'large' (the forward step's, β), got {variance!r}"
        )
