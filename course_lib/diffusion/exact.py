"""Exact denoisers: the best possible prediction, in closed form, for data whose distribution is known.

Each is a model like any other, `model(x_t, t, cond) -> prediction`, with nothing to train. Whatever is wrong with a
sample drawn with one of them is the sampler's own error. All rest on E[x_start | x_t], the posterior mean.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from course_lib.diffusion.prediction import check_kind, convert
from course_lib.diffusion.schedule import Schedule, alpha_bar_at


class ExactDenoiser:
    """What the three kinds of data share. `prediction`: what a call returns, "noise", "x_start" or "v"."""

    def __init__(self, schedule: Schedule, shape: tuple[int, ...], prediction: str = "noise"):
        self.schedule, self.shape, self.prediction = schedule, shape, check_kind(prediction, "prediction")

    def __call__(
        self, x_t: Float[Tensor, "batch ..."], t: Int[Tensor, "..."] | int, cond: object = None
    ) -> Float[Tensor, "batch ..."]:
        """The least-squares prediction for x_t (batch, *shape) at step t; `cond` is ignored."""
        if tuple(x_t.shape[1:]) != self.shape:
            raise ValueError(f"x_t must have shape (batch, {', '.join(map(str, self.shape))}), got {tuple(x_t.shape)}")
        x = _float64(x_t)
        alpha_bar = alpha_bar_at(self.schedule, t, len(x)).to(x.device)[:, None]
        x_start = self.expected_x_start(x.flatten(1), alpha_bar).reshape(x.shape)
        return convert(self.schedule, x, t, x_start, "x_start", self.prediction).to(x_t.device, x_t.dtype)

    def expected_x_start(self, x: Float64[Tensor, "batch d"], alpha_bar: Float64[Tensor, "n 1"]) -> Tensor:
        """E[x_start | x_t = x] (batch, d); alpha_bar has one value per image or one for all."""
        raise NotImplementedError


class GaussianDenoiser(ExactDenoiser):
    """Data from N(mean, covariance): mean (d,), covariance (d, d), or the d variances of independent coordinates (d,).

    E[x_start | x_t] = mean + √ᾱ Σ (ᾱ Σ + (1-ᾱ) I)⁻¹ (x_t - √ᾱ mean): affine in x_t, so samplers are affine too.
    """

    def __init__(
        self,
        schedule: Schedule,
        mean: Float[Tensor, "d"],
        covariance: Float[Tensor, "d d"] | Float[Tensor, "d"],
        prediction: str = "noise",
    ):
        super().__init__(schedule, tuple(mean.shape), prediction)
        covariance = _float64(covariance)
        covariance = torch.diag(covariance) if covariance.ndim == 1 else covariance
        if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
            raise ValueError(
                f"mean must be (d,) and covariance (d, d) or (d,), got {tuple(mean.shape)}, {tuple(covariance.shape)}"
            )
        self.mean = _float64(mean)
        self.variances, self.axes = torch.linalg.eigh(covariance)  # variance along each principal axis
        if not torch.allclose(covariance, covariance.T) or self.variances[0] < -1e-9:
            raise ValueError("covariance must be symmetric and without negative variance along any direction")
        self.variances = self.variances.clamp(min=0)

    def expected_x_start(self, x: Float64[Tensor, "batch d"], alpha_bar: Float64[Tensor, "n 1"]) -> Tensor:
        mean, axes, variances = (each.to(x.device) for each in (self.mean, self.axes, self.variances))
        gain = alpha_bar.sqrt() * variances / (alpha_bar * variances + 1 - alpha_bar)
        return mean + ((x - alpha_bar.sqrt() * mean) @ axes * gain) @ axes.T


class MixtureDenoiser(ExactDenoiser):
    """Data from a mixture of K round Gaussians: weights (K,), means (K, *shape), variances (K,), 0 for a point.

    E[x_start | x_t] is the mean over components of each one's own estimate, weighted by the probability that x_t
    came from it.
    """

    def __init__(
        self,
        schedule: Schedule,
        weights: Float[Tensor, "K"],
        means: Float[Tensor, "K *shape"],
        variances: Float[Tensor, "K"],
        prediction: str = "noise",
    ):
        super().__init__(schedule, tuple(means.shape[1:]), prediction)
        if weights.shape != (len(means),) or variances.shape != weights.shape:
            raise ValueError(
                f"weights and variances must be (K,) = ({len(means)},), one per mean, got {tuple(weights.shape)} and "
                f"{tuple(variances.shape)}"
            )
        if not (weights > 0).all() or abs(float(weights.sum()) - 1) > 1e-6 or not (variances >= 0).all():
            raise ValueError("weights must be positive and sum to 1, and variances must not be negative")
        self.means = _float64(means).flatten(1)
        self.log_weights, self.variances = _float64(weights).log(), _float64(variances)

    def component_probabilities(self, x: Float64[Tensor, "batch d"], alpha_bar: Float64[Tensor, "n 1"]) -> Tensor:
        """P(component | x_t = x) (batch, K): Bayes' rule with Gaussian likelihoods."""
        means, variances, log_weights = (each.to(x.device) for each in (self.means, self.variances, self.log_weights))
        total = alpha_bar * variances + 1 - alpha_bar  # variance of x_t in each component
        squared = (x**2).sum(dim=1, keepdim=True) - 2 * alpha_bar.sqrt() * (x @ means.T) + alpha_bar * (means**2).sum(1)
        log_likelihoods = -0.5 * squared / total - 0.5 * x.shape[1] * total.log()
        return torch.softmax(log_weights + log_likelihoods, dim=1)

    def expected_x_start(self, x: Float64[Tensor, "batch d"], alpha_bar: Float64[Tensor, "n 1"]) -> Tensor:
        means, variances = self.means.to(x.device), self.variances.to(x.device)
        probabilities = self.component_probabilities(x, alpha_bar)
        gain = alpha_bar.sqrt() * variances / (alpha_bar * variances + 1 - alpha_bar)  # (n, K)
        kept = probabilities * (1 - alpha_bar.sqrt() * gain)
        return kept @ means + (probabilities * gain).sum(dim=1, keepdim=True) * x


class FiniteDenoiser(MixtureDenoiser):
    """Data that is a finite set of points (N, *shape), all equally likely: a training set, learned by heart."""

    def __init__(self, schedule: Schedule, points: Float[Tensor, "N *shape"], prediction: str = "noise"):
        n = len(points)
        if n == 0:
            raise ValueError("points must hold at least one point")
        super().__init__(
            schedule,
            torch.full((n,), 1 / n, dtype=torch.float64),
            points,
            torch.zeros(n, dtype=torch.float64),
            prediction,
        )


def _float64(x: Tensor) -> Tensor:
    """float64 on x's device, or on the CPU where the device has none (Apple's MPS)."""
    return x.to("cpu" if x.device.type == "mps" else x.device, torch.float64)
