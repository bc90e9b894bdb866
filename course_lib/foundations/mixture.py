"""One-dimensional Gaussian mixtures: toy data whose every density is known exactly."""

from __future__ import annotations

import torch
from jaxtyping import Float, Float64
from torch import Tensor


class Mixture:
    """K Gaussians on a line with `weights`, `means` and `variances` (variances, not standard deviations), each (K,).

    Raises ValueError unless the weights are positive and sum to 1 and the variances are positive.
    """

    def __init__(self, weights: Float[Tensor, "K"], means: Float[Tensor, "K"], variances: Float[Tensor, "K"]):
        self.weights: Float64[Tensor, "K"] = weights.double()
        self.means: Float64[Tensor, "K"] = means.double()
        self.variances: Float64[Tensor, "K"] = variances.double()
        if not (self.weights.shape == self.means.shape == self.variances.shape and self.means.ndim == 1):
            shapes = [tuple(v.shape) for v in (weights, means, variances)]
            raise ValueError(f"weights, means and variances must share one shape (K,), got {shapes}")
        if (self.weights <= 0).any() or abs(float(self.weights.sum()) - 1) > 1e-6:
            raise ValueError(f"weights must be positive and sum to 1, got {weights.tolist()}")
        if not (self.variances > 0).all():
            raise ValueError(f"variances must be positive, got {variances.tolist()}")
        self.weights = self.weights / self.weights.sum()  # float32 weights miss 1 in the eighth digit

    @property
    def mean(self) -> float:
        """The mixture's mean."""
        return float(self.weights @ self.means)

    @property
    def variance(self) -> float:
        """The mixture's variance: the mean of the variances plus the variance of the means."""
        return float(self.weights @ (self.variances + self.means**2)) - self.mean**2

    def sample(self, n: int, generator: torch.Generator | None = None) -> Float64[Tensor, "n"]:
        """n independent draws."""
        which = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        noise = torch.randn(n, generator=generator, dtype=torch.float64)
        return self.means[which] + self.variances[which].sqrt() * noise

    def log_density(self, x: Float[Tensor, "*shape"]) -> Float64[Tensor, "*shape"]:
        """ln p(x): finite even where p(x) itself is too small for a number."""
        parts = torch.distributions.Normal(self.means, self.variances.sqrt()).log_prob(x.double()[..., None])
        return torch.logsumexp(parts + self.weights.log(), dim=-1)

    def density(self, x: Float[Tensor, "*shape"]) -> Float64[Tensor, "*shape"]:
        """p(x), per unit of x."""
        parts = torch.distributions.Normal(self.means, self.variances.sqrt()).log_prob(x.double()[..., None])
        return torch.exp(parts) @ self.weights

    def cdf(self, x: Float[Tensor, "*shape"]) -> Float64[Tensor, "*shape"]:
        """P(X ≤ x)."""
        return torch.distributions.Normal(self.means, self.variances.sqrt()).cdf(x.double()[..., None]) @ self.weights

    def noised(self, alpha_bar: float) -> Mixture:
        """The exact distribution of √ᾱ x + √(1 - ᾱ) ε: every Gaussian shrinks towards 0 and widens."""
        if not 0 <= alpha_bar <= 1:
            raise ValueError(f"alpha_bar must lie in [0, 1], got {alpha_bar}")
        return Mixture(self.weights, alpha_bar**0.5 * self.means, alpha_bar * self.variances + (1 - alpha_bar))
