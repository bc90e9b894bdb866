"""One reverse step of each sampler, as a pure function: x at t and a prediction in, x at t_prev out.

`t` and `t_prev` are indices of the schedule, (batch,) or one whole number; t_prev < t may skip steps, and
t_prev = -1 is the clean image, where ᾱ = 1 and no noise is left. Every step returns x_prev and the x_start that it
aimed at. Coefficients are computed in float64 and cast once. ᾱ is `bar` below, ᾱ at t_prev `bar_prev`.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from course_lib.diffusion.prediction import Clip, same_shape, x_start_and_noise
from course_lib.diffusion.reverse import check_variance
from course_lib.diffusion.schedule import Schedule, alpha_bar_at, per_image, step_indices

Images = Float[Tensor, "batch *shape"]
Steps = Int[Tensor, "..."] | int


def ddpm_step(
    schedule: Schedule,
    x_t: Images,
    prediction: Images,
    t: Steps,
    t_prev: Steps,
    noise: Images | None,
    *,
    kind: str = "noise",
    variance: str = "small",
    clip: Clip = None,
) -> tuple[Images, Images]:
    """Ancestral sampling: a draw from q(x_prev | x_t, x_start) with the predicted x_start (Ho et al. 2020, alg. 2).

    variance: "small", that of the posterior, β̃, or "large", β, that of the forward jump; a jump over several steps
    has β = 1 - ᾱ_t/ᾱ_prev. noise ~ N(0, I); none is added at the last step, where it may be None.
    """
    check_variance(variance)
    bar, bar_prev = _alpha_bars(schedule, t, t_prev, x_t)
    x_start, _ = x_start_and_noise(schedule, x_t, t, prediction, kind, clip)
    alpha = bar / bar_prev
    beta = 1 - alpha
    small = beta * (1 - bar_prev) / (1 - bar)
    chosen = small if variance == "small" else torch.where(bar_prev < 1, beta, 0.0)
    mean = (
        per_image(bar_prev.sqrt() * beta / (1 - bar), x_t) * x_start
        + per_image(alpha.sqrt() * (1 - bar_prev) / (1 - bar), x_t) * x_t
    )
    return _add_noise(mean, chosen.sqrt(), noise), x_start


def ddim_step(
    schedule: Schedule,
    x_t: Images,
    prediction: Images,
    t: Steps,
    t_prev: Steps,
    noise: Images | None = None,
    *,
    kind: str = "noise",
    eta: float | int = 0.0,
    clip: Clip = None,
) -> tuple[Images, Images]:
    """DDIM: noise the predicted x_start anew, mostly with the predicted noise (Song et al. 2021, eqs. 12 and 16).

    eta 0 is deterministic and needs no noise; eta 1 has the posterior's variance and is `ddpm_step` exactly.
    """
    check_eta(eta)
    bar, bar_prev = _alpha_bars(schedule, t, t_prev, x_t)
    x_start, predicted_noise = x_start_and_noise(schedule, x_t, t, prediction, kind, clip)
    fresh_variance = eta**2 * (1 - bar_prev) / (1 - bar) * (1 - bar / bar_prev)
    kept_std = (1 - bar_prev - fresh_variance).clamp(min=0).sqrt()  # rounding may leave -1e-17
    mean = per_image(bar_prev.sqrt(), x_t) * x_start + per_image(kept_std, x_t) * predicted_noise
    return _add_noise(mean, fresh_variance.sqrt(), noise), x_start


def dpm_solver_pp_2m_step(
    schedule: Schedule,
    x_t: Images,
    prediction: Images,
    t: Steps,
    t_prev: Steps,
    before: tuple[Images, Steps] | None = None,
    *,
    kind: str = "noise",
    clip: Clip = None,
) -> tuple[Images, Images]:
    """DPM-Solver++(2M): solve for x exactly as if x_start moved on a line in λ (Lu et al. 2022, alg. 2).

    λ = ln(√ᾱ/√(1-ᾱ)), half the log signal-to-noise ratio. before: the (x_start, t) of the step before this one.
    Without it, and at the last step, where λ is infinite, the step is of first order, and equal to `ddim_step`.
    """
    bar, bar_prev = _alpha_bars(schedule, t, t_prev, x_t)
    x_start, _ = x_start_and_noise(schedule, x_t, t, prediction, kind, clip)
    shrink = ((1 - bar_prev) / (1 - bar)).sqrt()  # the noise that is left: σ_prev / σ_t
    target = bar_prev.sqrt() - shrink * bar.sqrt()  # = -√ᾱ_prev (e^(-h) - 1), h = λ_prev - λ_t
    aim = x_start
    if before is not None:
        earlier, t_before = before
        same_shape(x_t, before=earlier)
        bar_before, _ = _alpha_bars(schedule, t_before, t, x_t)
        h_before, h = _half_log_snr(bar) - _half_log_snr(bar_before), _half_log_snr(bar_prev) - _half_log_snr(bar)
        ahead = torch.where(bar_prev < 1, h / (2 * h_before), 0.0)
        aim = x_start + per_image(ahead, x_t) * (x_start - earlier)
    return per_image(shrink, x_t) * x_t + per_image(target, x_t) * aim, x_start


def euler_step(
    schedule: Schedule,
    x_t: Images,
    prediction: Images,
    t: Steps,
    t_prev: Steps,
    *,
    kind: str = "noise",
    clip: Clip = None,
) -> tuple[Images, Images]:
    """Euler on the probability-flow ODE dx̄/dσ = noise, x̄ = x/√ᾱ, σ = √(1/ᾱ - 1) (Karras et al. 2022, section 3).

    In these coordinates the step is a straight line, and equal to `ddim_step` with eta = 0.
    """
    bar, bar_prev = _alpha_bars(schedule, t, t_prev, x_t)
    x_start, slope = x_start_and_noise(schedule, x_t, t, prediction, kind, clip)
    return _along(x_t, slope, bar, bar_prev), x_start


def heun_step(
    schedule: Schedule,
    x_t: Images,
    prediction: Images,
    t: Steps,
    t_prev: Steps,
    x_ahead: Images,
    prediction_ahead: Images,
    *,
    kind: str = "noise",
    clip: Clip = None,
) -> tuple[Images, Images]:
    """Heun's second-order step on the same ODE: the mean of the slopes at both ends (Karras et al. 2022, alg. 1).

    x_ahead: where `euler_step` arrives; prediction_ahead: the model's prediction there, at t_prev, which must not be
    -1: the last step, to ᾱ = 1, has no second end to ask and stays Euler's.
    """
    bar, bar_prev = _alpha_bars(schedule, t, t_prev, x_t)
    _, slope = x_start_and_noise(schedule, x_t, t, prediction, kind, clip)
    _, slope_ahead = x_start_and_noise(schedule, x_ahead, t_prev, prediction_ahead, kind, clip)
    slope = (slope + slope_ahead) / 2
    return _along(x_t, slope, bar, bar_prev), _along(x_t, slope, bar, torch.ones_like(bar))


def check_eta(eta: object) -> None:
    """ValueError unless eta lies in [0, 1]."""
    if not isinstance(eta, int | float) or isinstance(eta, bool) or not 0 <= eta <= 1:
        raise ValueError(f"eta must lie between 0 (deterministic) and 1 (DDPM's noise), got {eta!r}")


def _along(x_t: Tensor, slope: Tensor, bar: Tensor, bar_prev: Tensor) -> Tensor:
    """Follow dx̄/dσ = slope from σ_t to σ_prev, in x = √ᾱ x̄."""
    sigma, sigma_prev = (1 / bar - 1).sqrt(), (1 / bar_prev - 1).sqrt()
    return (
        per_image((bar_prev / bar).sqrt(), x_t) * x_t + per_image(bar_prev.sqrt() * (sigma_prev - sigma), x_t) * slope
    )


def _half_log_snr(bar: Float64[Tensor, "n"]) -> Float64[Tensor, "n"]:
    """λ = ½ ln(ᾱ / (1-ᾱ)), infinite at ᾱ = 1."""
    return (torch.log(bar) - torch.log1p(-bar)) / 2


def _alpha_bars(schedule: Schedule, t: Steps, t_prev: Steps, x_t: Tensor) -> tuple[Tensor, Tensor]:
    """ᾱ_t and ᾱ_prev. Raises unless 0 ≤ t < T and -1 ≤ t_prev < t."""
    same_shape(x_t)
    steps = step_indices(t, schedule.T, len(x_t))
    steps_prev = step_indices(t_prev, schedule.T, len(x_t), "t_prev", lowest=-1)
    if (steps_prev >= steps).any():
        raise ValueError(f"t_prev must be below t: a reverse step removes noise; got t={t}, t_prev={t_prev}")
    return alpha_bar_at(schedule, steps, len(x_t)), alpha_bar_at(schedule, steps_prev, len(x_t), "t_prev")


def _add_noise(mean: Tensor, std: Float64[Tensor, "n"], noise: Tensor | None) -> Tensor:
    if noise is None:
        if (std > 0).any():
            raise ValueError("noise is None, but this step adds noise: pass a tensor of N(0, 1) numbers like x_t")
        return mean
    same_shape(mean, noise=noise)
    return mean + per_image(std, mean) * noise
