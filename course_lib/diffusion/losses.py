"""What a denoising network is trained on: the simple loss, its weighted versions, and the best that a model can do."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from course_lib.diffusion.forward import q_sample
from course_lib.diffusion.prediction import check_kind, convert, prediction_kind, same_shape
from course_lib.diffusion.reverse import reverse_variance
from course_lib.diffusion.schedule import Schedule, gather


def target(
    schedule: Schedule,
    x_start: Float[Tensor, "batch *shape"],
    t: Int[Tensor, "..."] | int,
    noise: Float[Tensor, "batch *shape"],
    kind: str,
) -> Float[Tensor, "batch *shape"]:
    """What a network of this `kind` should answer for the x_t made of x_start and noise."""
    x_t = q_sample(schedule, x_start, t, noise)
    return x_start if kind == "x_start" else convert(schedule, x_t, t, noise, "noise", kind)


def diffusion_loss(
    model: Callable,
    schedule: Schedule,
    x_start: Float[Tensor, "batch ..."],
    t: Int[Tensor, "batch"],
    noise: Float[Tensor, "batch ..."],
    cond: object = None,
    *,
    kind: str | None = None,
    weights: Float64[Tensor, "T"] | None = None,
) -> Float[Tensor, "batch"]:
    """Mean squared error of the model's prediction, one number per image (Ho et al. 2020, eq. 14 and algorithm 1).

    Noises x_start to step t with `noise`, asks the model, and compares with `target`. kind: what the model predicts,
    by default its attribute `prediction`. weights: one factor per step, such as `bound_weights`; None is L_simple.
    """
    kind = prediction_kind(model, kind)
    prediction = model(q_sample(schedule, x_start, t, noise), t, cond)
    same_shape(x_start, prediction=prediction)
    errors = (prediction - target(schedule, x_start, t, noise, kind)) ** 2
    errors = errors.flatten(1).mean(dim=1) if errors.ndim > 1 else errors
    return errors if weights is None else gather(weights, t, errors) * errors


def bound_weights(schedule: Schedule, variance: str = "large") -> Float64[Tensor, "T"]:
    """β² / (2σ² α (1-ᾱ)): the weight of the squared error of the noise in the variational bound (Ho et al., eq. 12).

    Nats per squared unit, for the *sum* over an image's values. variance: σ², see `reverse_variance`.
    """
    sigma2 = reverse_variance(schedule, variance)
    return schedule.betas**2 / (2 * sigma2 * schedule.alphas * (1 - schedule.alpha_bars))


def min_snr_weights(schedule: Schedule, kind: str = "noise", gamma: float | int = 5.0) -> Float64[Tensor, "T"]:
    """Weights that stop the nearly clean steps from dominating: min(SNR, γ) on x_start (Hang et al. 2023, eq. 8).

    The same weighting looks different on each kind of prediction, since ‖ε - ε̂‖² = SNR ‖x_start - x̂_start‖² and
    ‖v - v̂‖² = (SNR + 1) ‖x_start - x̂_start‖².
    """
    check_kind(kind, "kind")
    if not gamma > 0:
        raise ValueError(f"gamma must be positive, got {gamma}; the paper uses 5")
    snr = schedule.log_snr.exp()
    return snr.clamp(max=gamma) / {"noise": snr, "x_start": torch.ones_like(snr), "v": snr + 1}[kind]


def optimal_loss(
    schedule: Schedule, data_variance: Float[Tensor, "d"] | float | int, kind: str = "noise"
) -> Float64[Tensor, "T"]:
    """Lowest mean squared error at each step that any model can reach on Gaussian data: not 0, for x_t is not x_start.

    data_variance: that of each coordinate (d,), or one number. For noise it is ᾱs² / (ᾱs² + 1-ᾱ), averaged over the
    coordinates: near 1 in an almost clean image, where the noise can't be seen, and near 0 in pure noise.
    """
    check_kind(kind, "kind")
    s2 = checked_variance(data_variance)
    bar = schedule.alpha_bars[:, None]
    best = {"noise": bar * s2, "x_start": (1 - bar) * s2, "v": s2.expand(schedule.T, -1)}[kind]
    return (best / (bar * s2 + 1 - bar)).mean(dim=1)


def checked_variance(data_variance: Float[Tensor, "d"] | float | int) -> Float64[Tensor, "d"]:
    """Variances of the data's coordinates as float64 (d,). Raises ValueError unless they are positive."""
    s2 = torch.as_tensor(data_variance, dtype=torch.float64).cpu().reshape(-1)
    if not (s2 > 0).all() or not len(s2):
        raise ValueError(f"data_variance must be positive: a variance, not a standard deviation; got {s2.tolist()}")
    return s2
