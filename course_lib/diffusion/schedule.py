"""Noise schedules: how much noise each step of the forward process adds.

Mathematics counts t = 1…T; every table here is indexed 0…T-1, so `alpha_bars[0]` is the ᾱ₁ of the papers.
Tables are float64 on the CPU and are cast when `gather` hands them out. `*_variance` is a variance, `*_std` its root.
"""

from __future__ import annotations

import math
import warnings
from functools import cached_property

import torch
from jaxtyping import Float, Float64, Int, Int64
from torch import Tensor

LARGEST_BETA = 0.999  # cosine's last step would otherwise be 1: x_T would keep nothing of x_{T-1} (Nichol & Dhariwal)
NOT_NOISE = 0.01  # an ᾱ_T above this leaves more than 10% of the image's amplitude in x_T


class Schedule:
    """The variances `betas` of a forward process with T steps, and everything that follows from them.

    Build one with `Schedule.linear(T)`, `.cosine(T)`, `.scaled_linear(T)`, or from your own betas (T,).

    Raises ValueError unless every beta lies strictly between 0 and 1, and warns when ᾱ_T is so large that
    x_T is not noise: sampling starts from N(0, I), so what is left of the image there is lost.
    Source: Ho et al. 2020 (arXiv 2006.11239), section 2.
    """

    def __init__(self, betas: Float[Tensor, "T"], name: str = "custom"):
        self.betas: Float64[Tensor, "T"] = _checked(betas)
        self.name = name
        remaining = float(self.alpha_bars[-1])
        if remaining > NOT_NOISE:
            warnings.warn(
                f"x_T is not noise: alpha_bars[-1] = {remaining:.3g} leaves {math.sqrt(remaining):.0%} of the image's "
                f"amplitude after T = {self.T} steps, yet sampling starts from pure noise. Use more steps or larger "
                "betas (Schedule.linear rescales them by 1000/T unless rescale=False).",
                stacklevel=2 if name == "custom" else 3,
            )

    def __repr__(self) -> str:
        return f"Schedule.{self.name}(T={self.T}): alpha_bars {self.alpha_bars[0]:.6g} … {self.alpha_bars[-1]:.3g}"

    @property
    def T(self) -> int:
        """Number of steps."""
        return len(self.betas)

    # --- the three schedules of the literature ---------------------------------------------------------------------

    @classmethod
    def linear(cls, T: int, beta_start: float = 1e-4, beta_end: float = 0.02, *, rescale: bool = True) -> Schedule:
        """Betas on a straight line (Ho et al. 2020, section 4), times 1000/T so that ᾱ_T hardly depends on T.

        `rescale=False` keeps the two ends as they are: right for T = 1000 only.
        """
        factor = 1000 / _checked_length(T) if rescale else 1.0
        last = max(beta_start, beta_end) * factor
        if last >= 1:
            raise ValueError(
                f"T={T} is too small for a linear schedule up to beta_end={beta_end}: its last beta would be "
                f"{last:.3g}, and a share of variance must stay below 1. Use T > {math.floor(beta_end * 1000)}, "
                "a smaller beta_end, or Schedule.cosine(T)."
            )
        return cls(torch.linspace(beta_start, beta_end, _checked_length(T), dtype=torch.float64) * factor, "linear")

    @classmethod
    def cosine(cls, T: int, s: float = 0.008) -> Schedule:
        """ᾱ falls along a squared cosine, so small images are not destroyed early (arXiv 2102.09672, eq. 17)."""
        return cls(cosine_betas(_checked_length(T), s), "cosine")

    @classmethod
    def scaled_linear(cls, T: int, beta_start: float = 0.00085, beta_end: float = 0.012) -> Schedule:
        """Square roots of the betas on a straight line: Stable Diffusion's schedule, made for T = 1000."""
        roots = torch.linspace(beta_start**0.5, beta_end**0.5, _checked_length(T), dtype=torch.float64)
        return cls(roots**2, "scaled_linear")

    # --- tables, each (T,) float64 ---------------------------------------------------------------------------------

    @cached_property
    def alphas(self) -> Float64[Tensor, "T"]:
        """α_t = 1 - β_t: the share of variance that one step keeps."""
        return 1 - self.betas

    @cached_property
    def alpha_bars(self) -> Float64[Tensor, "T"]:
        """ᾱ_t = α₁ α₂ … α_t: the share of the image's variance left after t steps."""
        return torch.cumprod(self.alphas, dim=0)

    @cached_property
    def alpha_bars_prev(self) -> Float64[Tensor, "T"]:
        """ᾱ_{t-1}, with ᾱ₀ = 1: before the first step the image is whole."""
        return torch.cat([torch.ones(1, dtype=torch.float64), self.alpha_bars[:-1]])

    @cached_property
    def sqrt_alpha_bars(self) -> Float64[Tensor, "T"]:
        """√ᾱ_t: what multiplies the image."""
        return self.alpha_bars.sqrt()

    @cached_property
    def noise_std(self) -> Float64[Tensor, "T"]:
        """√(1 - ᾱ_t): what multiplies the noise, a standard deviation."""
        return (1 - self.alpha_bars).sqrt()

    @cached_property
    def log_snr(self) -> Float64[Tensor, "T"]:
        """ln(ᾱ_t / (1 - ᾱ_t)): signal-to-noise ratio of variances, in nats."""
        return log_snr(self.alpha_bars)

    @cached_property
    def recip_sqrt_alpha_bars(self) -> Float64[Tensor, "T"]:
        """1/√ᾱ_t: multiplies x_t where x_start is read off x_t and the noise."""
        return 1 / self.sqrt_alpha_bars

    @cached_property
    def recipm1_sqrt_alpha_bars(self) -> Float64[Tensor, "T"]:
        """√(1/ᾱ_t - 1): multiplies the noise where x_start is read off x_t and the noise."""
        return self.noise_std / self.sqrt_alpha_bars

    @cached_property
    def posterior_variance(self) -> Float64[Tensor, "T"]:
        """β̃_t = β_t (1 - ᾱ_{t-1}) / (1 - ᾱ_t): variance of x_{t-1} given x_t and x_start (Ho et al., eq. 7)."""
        return self.betas * (1 - self.alpha_bars_prev) / (1 - self.alpha_bars)

    @cached_property
    def posterior_std(self) -> Float64[Tensor, "T"]:
        """√β̃_t: the standard deviation to multiply noise with, never `posterior_variance` itself."""
        return self.posterior_variance.sqrt()

    @cached_property
    def posterior_coef_x_start(self) -> Float64[Tensor, "T"]:
        """Weight of x_start in the posterior mean (Ho et al., eq. 7)."""
        return self.alpha_bars_prev.sqrt() * self.betas / (1 - self.alpha_bars)

    @cached_property
    def posterior_coef_x_t(self) -> Float64[Tensor, "T"]:
        """Weight of x_t in the posterior mean (Ho et al., eq. 7)."""
        return self.alphas.sqrt() * (1 - self.alpha_bars_prev) / (1 - self.alpha_bars)


def cosine_betas(T: int, s: float = 0.008) -> Float64[Tensor, "T"]:
    """Variances of the cosine schedule, one per step t = 1…T (Nichol & Dhariwal 2021, eq. 17).

    f(t) = cos²((t/T + s)/(1 + s) · π/2); ᾱ_t = f(t)/f(0); β_t = 1 - f(t)/f(t-1), at most 0.999.
    """
    if not 0 <= s < 1:
        raise ValueError(f"s must lie in [0, 1), got {s}: it is a small offset, 0.008 in the paper")
    t = torch.arange(T + 1, dtype=torch.float64)
    f = torch.cos((t / T + s) / (1 + s) * math.pi / 2) ** 2
    return (1 - f[1:] / f[:-1]).clamp(max=LARGEST_BETA)


def log_snr(alpha_bars: Float[Tensor, "*T"]) -> Float[Tensor, "*T"]:
    """Log signal-to-noise ratio ln(ᾱ / (1 - ᾱ)) in nats: 0 where image and noise have equal variance shares."""
    return torch.log(alpha_bars) - torch.log1p(-alpha_bars)


def gather(table: Float64[Tensor, "T"], t: Int[Tensor, "..."] | int, like: Float[Tensor, "batch ..."]) -> Tensor:
    """`table[t]` in the dtype and on the device of `like`, shaped to multiply it: (batch, 1, 1…) or (1, 1, 1…).

    t: whole numbers 0…T-1, one per image (batch,), or one for all. Raises TypeError or ValueError otherwise:
    a negative index would silently read the table from its end.
    """
    return per_image(table[step_indices(t, len(table), len(like))], like)


def alpha_bar_at(schedule: Schedule, t: Int[Tensor, "..."] | int, batch: int, name: str = "t") -> Float64[Tensor, "n"]:
    """ᾱ at step index t, float64 on the CPU, (batch,) or (1,). Here t may be -1: the clean image, where ᾱ = 1."""
    steps = step_indices(t, schedule.T, batch, name, lowest=-1)
    return torch.where(steps < 0, 1.0, schedule.alpha_bars[steps.clamp(min=0)])


def per_image(values: Float64[Tensor, "n"], like: Float[Tensor, "batch ..."]) -> Tensor:
    """Numbers (batch,) or (1,) in the dtype and on the device of `like`, shaped (n, 1, 1…) to multiply it."""
    return values.to(like.dtype).to(like.device).reshape(-1, *[1] * (like.ndim - 1))


def step_indices(
    t: Int[Tensor, "..."] | int, T: int, batch: int, name: str = "t", lowest: int = 0
) -> Int64[Tensor, "n"]:
    """`t` as int64 on the CPU, (batch,) or (1,). Raises TypeError unless whole, ValueError unless in lowest…T-1."""
    if isinstance(t, int) and not isinstance(t, bool):
        t = torch.tensor(t)
    if not isinstance(t, Tensor) or t.is_floating_point() or t.is_complex() or t.dtype == torch.bool:
        kind = t.dtype if isinstance(t, Tensor) else type(t).__name__
        raise TypeError(f"{name} must be a whole number or an integer tensor of shape (batch,), got {kind}")
    if t.ndim > 1 or (t.ndim == 1 and len(t) not in (1, batch)):
        raise ValueError(
            f"{name} must hold one step per image, shape ({batch},), or a single one; got {tuple(t.shape)}"
        )
    t = t.to("cpu", torch.int64).reshape(-1)
    if t.numel() and (t.min() < lowest or t.max() >= T):
        raise ValueError(f"{name} must lie in {lowest}…{T - 1} (step t of the papers is index t-1), got {t.tolist()}")
    return t


def _checked_length(T: int) -> int:
    if not isinstance(T, int) or isinstance(T, bool) or T < 1:
        raise ValueError(f"T must be a whole number of steps, at least 1, got {T!r}")
    return T


def _checked(betas: Float[Tensor, "T"]) -> Float64[Tensor, "T"]:
    if not isinstance(betas, Tensor) or betas.ndim != 1 or len(betas) == 0:
        given = f"shape {tuple(betas.shape)}" if isinstance(betas, Tensor) else type(betas).__name__
        raise ValueError(f"betas must be a tensor of shape (T,), got {given}")
    betas = betas.detach().to("cpu", torch.float64).clone()
    wrong = ~((betas > 0) & (betas < 1))  # written so that NaN is wrong too
    if wrong.any():
        first = int(wrong.nonzero()[0])
        raise ValueError(
            f"betas must lie strictly between 0 and 1: betas[{first}] = {betas[first]:.4g} ({int(wrong.sum())} of "
            f"{len(betas)} are wrong). 0 adds no noise, 1 erases the image, anything else has no square root."
        )
    return betas
