"""One Gaussian fitted to what has two humps: by likelihood, by forward KL and by reverse KL.

Maximum likelihood is forward KL with samples in place of the data's density. Forward KL(data ‖ model) covers all the
data; reverse KL(model ‖ data) avoids the gaps between humps and settles on one of them.
Source: Bishop 2006, Pattern Recognition and Machine Learning, sections 1.6.1 and 10.1.2 (figure 10.3).
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float64, Real
from torch import Tensor

from course_lib.foundations._checks import broadcast, positive, real
from course_lib.foundations.gaussian import expect_normal
from course_lib.foundations.mixture import Mixture


def mean_log_likelihood(
    samples: Real[Tensor, "n"],
    mean: float | int | Real[Tensor, "*#shape"],
    variance: float | int | Real[Tensor, "*#shape"],
) -> Float64[Tensor, "..."]:
    """Average of ln N(x; mean, variance) over the samples, in nats per sample, for every candidate (shapes broadcast).

    Candidates may form a grid: mean (M, 1) and variance (V,) give (M, V). Only the samples' mean and spread enter.
    """
    center, spread = fit_likelihood(samples)
    mean, variance = broadcast(mean=real(mean, "mean"), variance=positive(variance, "variance"))
    return -_cross_entropy(center, spread, mean, variance)


def fit_likelihood(samples: Real[Tensor, "n"]) -> tuple[Float64[Tensor, ""], Float64[Tensor, ""]]:
    """Mean and variance (with 1/n) under which the samples are most likely: their own."""
    samples = real(samples, "samples", ("n",))
    if not len(samples):
        raise ValueError("samples must hold at least one value, got none")
    mean = samples.mean()
    return mean, ((samples - mean) ** 2).mean()


def forward_kl(
    data: Mixture, mean: float | int | Real[Tensor, "*#shape"], variance: float | int | Real[Tensor, "*#shape"]
) -> Float64[Tensor, "..."]:
    """KL(data ‖ N(mean, variance)) in nats for every candidate; large where the model misses some of the data."""
    mean, variance = broadcast(mean=real(mean, "mean"), variance=positive(variance, "variance"))
    log_density = expect_normal(data.log_density, data.means, data.variances) @ data.weights  # E ln p: minus entropy
    return log_density + _cross_entropy(data.mean, data.variance, mean, variance)


def reverse_kl(
    data: Mixture, mean: float | int | Real[Tensor, "*#shape"], variance: float | int | Real[Tensor, "*#shape"]
) -> Float64[Tensor, "..."]:
    """KL(N(mean, variance) ‖ data) in nats for every candidate; large where the model puts mass that data lack."""
    mean, variance = broadcast(mean=real(mean, "mean"), variance=positive(variance, "variance"))
    entropy = 0.5 * torch.log(2 * math.pi * math.e * variance)
    return -entropy - expect_normal(data.log_density, mean, variance)


def fit_forward(data: Mixture) -> tuple[Float64[Tensor, ""], Float64[Tensor, ""]]:
    """Mean and variance of the Gaussian with the smallest forward KL: those of the data (moment matching)."""
    mean = data.weights @ data.means
    variance = data.weights @ (data.variances + (data.means - mean) ** 2)  # width of the humps, and their distance
    return mean, variance


def fit_reverse(
    data: Mixture, start: tuple[float, float] | None = None
) -> tuple[Float64[Tensor, ""], Float64[Tensor, ""]]:
    """Mean and variance of a Gaussian at a minimum of the reverse KL, by gradients (L-BFGS on mean and ln variance).

    start: (mean, variance) to walk downhill from. Without it, every hump of the data and their common moments are
    tried and the best end is kept; of equally good ones, the leftmost hump in the order of `data.means`.
    Raises RuntimeError where the walk does not come to rest.
    """
    if start is not None:
        return _downhill(data, real(start[0], "start[0]", ()), positive(start[1], "start[1]", ()))
    starts = [*zip(data.means, data.variances, strict=True), fit_forward(data)]
    ends = [_downhill(data, mean, variance) for mean, variance in starts]
    found = torch.stack([reverse_kl(data, mean, variance) for mean, variance in ends])
    return ends[int((found <= found.min() + 1e-9).nonzero()[0])]


def _downhill(data: Mixture, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    unit = math.sqrt(data.variance)  # the walk measures lengths in this unit, so that it works in any
    place = torch.stack([mean.detach() / unit, variance.detach().log()]).requires_grad_()
    walk = torch.optim.LBFGS(
        [place], max_iter=500, tolerance_grad=1e-9, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def height() -> Tensor:
        walk.zero_grad()
        kl = reverse_kl(data, place[0] * unit, place[1].exp())
        kl.backward()
        return kl

    with torch.enable_grad():
        walk.step(height)
        height()
    if not place.grad.norm() < 1e-6:
        raise RuntimeError(f"no minimum of the reverse KL found from mean {float(mean)}, variance {float(variance)}")
    found = place.detach()
    return found[0] * unit, found[1].exp()


def _cross_entropy(data_mean: float | Tensor, data_var: float | Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """-E ln N(x; mean, variance) over data of which only mean and variance matter, in nats."""
    return 0.5 * (torch.log(2 * math.pi * variance) + (data_var + (data_mean - mean) ** 2) / variance)
