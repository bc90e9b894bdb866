"""The forward process: an image turns into noise, step by step or in one shot. Nothing here is learned.

Source: Ho et al. 2020 (arXiv 2006.11239), section 2, equations 2 and 4.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from course_lib.diffusion.schedule import Schedule, gather


def q_step(
    schedule: Schedule,
    x_prev: Float[Tensor, "batch *shape"],
    t: Int[Tensor, "..."] | int,
    noise: Float[Tensor, "batch *shape"],
) -> Float[Tensor, "batch *shape"]:
    """One noising step: x_t = √(1 - β_t) x_{t-1} + √β_t noise (Ho et al. 2020, eq. 2).

    x_prev, noise: any shape with the batch first; t: (batch,) or one whole number, 0…T-1; noise ~ N(0, I).
    """
    _check_images(x_prev, noise, "x_prev")
    beta = gather(schedule.betas, t, x_prev)
    return torch.sqrt(1 - beta) * x_prev + torch.sqrt(beta) * noise


def q_sample(
    schedule: Schedule,
    x_start: Float[Tensor, "batch *shape"],
    t: Int[Tensor, "..."] | int,
    noise: Float[Tensor, "batch *shape"],
) -> Float[Tensor, "batch *shape"]:
    """The noisy image x_t in one shot: √ᾱ_t x_start + √(1 - ᾱ_t) noise (Ho et al. 2020, eq. 4).

    x_start, noise: any shape with the batch first; t: (batch,) or one whole number, 0…T-1; noise ~ N(0, I).
    """
    _check_images(x_start, noise, "x_start")
    signal = gather(schedule.sqrt_alpha_bars, t, x_start)
    noise_std = gather(schedule.noise_std, t, x_start)
    return signal * x_start + noise_std * noise


def q_mean_variance(
    schedule: Schedule, x_start: Float[Tensor, "batch ..."], t: Int[Tensor, "..."] | int
) -> tuple[Float[Tensor, "batch ..."], Float[Tensor, "..."], Float[Tensor, "..."]]:
    """Mean, variance and log-variance of x_t given x_start; the last two have one value per image (batch, 1, 1…)."""
    variance = gather(1 - schedule.alpha_bars, t, x_start)
    return gather(schedule.sqrt_alpha_bars, t, x_start) * x_start, variance, torch.log(variance)


def q_chain(
    schedule: Schedule, x_start: Float[Tensor, "batch ..."], generator: torch.Generator | None = None
) -> Iterator[Float[Tensor, "batch ..."]]:
    """Yield x_1, x_2, …, x_T: the chain itself, fresh noise at every step."""
    x = x_start
    for t in range(schedule.T):
        noise = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
        x = q_step(schedule, x, t, noise)
        yield x


def unrolled_weights(schedule: Schedule, t: int) -> tuple[Float64[Tensor, ""], Float64[Tensor, "t"]]:
    """Weights of x_start and of each step's noise z_1…z_t in x_t, after unrolling the recursion.

    x_t = √(α_t…α_1) x_start + Σ_s √(α_t…α_{s+1} β_s) z_s. `t` is an index 0…T-1, so t+1 noises are returned.
    """
    if not 0 <= t < schedule.T:
        raise ValueError(f"t must lie in 0…{schedule.T - 1}, got {t}")
    alphas, betas = schedule.alphas[: t + 1], schedule.betas[: t + 1]
    later = torch.cat([alphas[1:].flip(0).cumprod(0).flip(0), torch.ones(1, dtype=torch.float64)])  # α_t … α_{s+1}
    return alphas.prod().sqrt(), (later * betas).sqrt()


def path_log_prob(
    schedule: Schedule, x_start: Float[Tensor, "batch ..."], path: Float[Tensor, "T batch ..."]
) -> Float[Tensor, "batch"]:
    """ln q(x_1, …, x_T | x_start) in nats per image: the sum of T Gaussian log-densities, one per step.

    path: x_1…x_T stacked, as `torch.stack(list(q_chain(…)))` gives it.
    """
    if len(path) != schedule.T:
        raise ValueError(f"path must hold all T = {schedule.T} states, got {len(path)}")
    total = torch.zeros(len(x_start), dtype=path.dtype, device=path.device)
    x_prev = x_start
    for t, x_t in enumerate(path):
        beta = gather(schedule.betas, t, x_prev)
        step = torch.distributions.Normal(torch.sqrt(1 - beta) * x_prev, torch.sqrt(beta).expand_as(x_prev))
        total = total + step.log_prob(x_t).flatten(1).sum(dim=1)
        x_prev = x_t
    return total


def _check_images(x: Tensor, noise: Tensor, name: str) -> None:
    if not isinstance(x, Tensor) or not x.is_floating_point():
        kind = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"{name} must be a float tensor, got {kind}; course_lib.pixels.from_uint8 converts bytes")
    if not isinstance(noise, Tensor) or noise.shape != x.shape:
        given = tuple(noise.shape) if isinstance(noise, Tensor) else type(noise).__name__
        raise ValueError(f"noise must have {name}'s shape {tuple(x.shape)}, got {given}: every pixel has its own noise")
