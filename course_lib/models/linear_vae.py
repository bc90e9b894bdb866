"""The VAE in which everything is known: a linear decoder with Gaussian noise, so that p(x) and p(z|x) are Gaussians.

p(z) = N(0, I), p(x|z) = N(weight z + bias, noise_variance I). Whatever Gaussian q one proposes for z, its ELBO is a
closed form, and so is what it misses: ln p(x) - ELBO = KL(q ‖ p(z|x)). Tipping & Bishop 1999 (probabilistic PCA);
Lucas et al. 2019, arXiv:1911.02469, section 4. Everything in float64.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float64, Real
from torch import Tensor

from course_lib.foundations import kl_multivariate


class LinearVAE:
    """z ~ N(0, I) of d latents; x = weight z + bias + noise, noise ~ N(0, noise_variance I) of n values.

    `weight` is (n, d), `bias` (n,) or one number for all. Raises ValueError for shapes that don't fit and for a
    noise_variance that is not positive.
    """

    def __init__(
        self,
        weight: Real[Tensor, "n d"],
        bias: Real[Tensor, " n"] | float | int = 0.0,
        noise_variance: float | int = 1.0,
    ) -> None:
        if weight.ndim != 2 or not weight.numel():
            raise ValueError(f"weight must have shape (values of x, values of z), got {tuple(weight.shape)}")
        bias = torch.as_tensor(bias, dtype=torch.float64)
        if bias.ndim > 1 or (bias.ndim == 1 and len(bias) != len(weight)):
            raise ValueError(
                f"bias has shape {tuple(bias.shape)}; with this weight it needs {len(weight)} entries, or one"
            )
        if not (0 < noise_variance < math.inf):
            raise ValueError(f"noise_variance={noise_variance} must be positive and finite")
        self.weight: Float64[Tensor, "n d"] = weight.double()
        self.bias: Float64[Tensor, " n"] = bias.expand(len(weight)).clone()
        self.noise_variance = float(noise_variance)

    @property
    def covariance(self) -> Float64[Tensor, "n n"]:
        """Of x: weight weightᵀ + noise_variance I."""
        return self.weight @ self.weight.T + self.noise_variance * torch.eye(len(self.weight), dtype=torch.float64)

    def log_evidence(self, x: Real[Tensor, "batch n"]) -> Float64[Tensor, " batch"]:
        """ln p(x), exactly, in nats: what every ELBO stays below."""
        x = self._examples(x)
        return torch.distributions.MultivariateNormal(self.bias, self.covariance).log_prob(x)

    def posterior(self, x: Real[Tensor, "batch n"]) -> tuple[Float64[Tensor, "batch d"], Float64[Tensor, "d d"]]:
        """Mean, for each x, and covariance, the same for all, of the true p(z|x) (Bishop 2006, eq. 2.116)."""
        x = self._examples(x)
        precision = (
            torch.eye(self.weight.shape[1], dtype=torch.float64) + self.weight.T @ self.weight / self.noise_variance
        )
        covariance = torch.linalg.inv(precision)
        covariance = (covariance + covariance.T) / 2  # rounding must not make it lopsided
        return (x - self.bias) @ self.weight @ covariance / self.noise_variance, covariance

    def terms(
        self, x: Real[Tensor, "batch n"], mean: Real[Tensor, "batch d"], covariance: Real[Tensor, "d d"]
    ) -> tuple[Float64[Tensor, " batch"], Float64[Tensor, " batch"]]:
        """The two parts of the bound at q(z|x) = N(mean, covariance), exactly: E_q ln p(x|z), and KL(q ‖ p(z)).

        E_q ‖x - weight z - bias‖² is the squared distance at the mean, plus tr(weight covariance weightᵀ): the spread
        of q costs reconstruction. Raises ValueError for a covariance that is none.
        """
        x, mean, covariance = self._examples(x), mean.double(), covariance.double()
        n, d = self.weight.shape
        if mean.shape != (len(x), d) or covariance.shape != (d, d):
            raise ValueError(
                f"mean and covariance have shapes {tuple(mean.shape)} and {tuple(covariance.shape)}; "
                f"for these x they must be ({len(x)}, {d}) and ({d}, {d})"
            )
        off = (x - self.bias - mean @ self.weight.T).square().sum(dim=1)
        spread = ((self.weight @ covariance) * self.weight).sum()
        reconstruction = -0.5 * (n * math.log(2 * math.pi * self.noise_variance) + (off + spread) / self.noise_variance)
        prior = torch.zeros(d, dtype=torch.float64), torch.eye(d, dtype=torch.float64)
        kl = torch.stack([kl_multivariate(each, covariance, *prior) for each in mean])
        return reconstruction, kl

    def elbo(
        self, x: Real[Tensor, "batch n"], mean: Real[Tensor, "batch d"], covariance: Real[Tensor, "d d"]
    ) -> Float64[Tensor, " batch"]:
        """The bound at q = N(mean, covariance), in nats: ln p(x) - KL(q ‖ p(z|x))."""
        reconstruction, kl = self.terms(x, mean, covariance)
        return reconstruction - kl

    def sample(self, n: int, generator: torch.Generator | None = None) -> Float64[Tensor, "batch n"]:
        """n examples x with their noise."""
        z = torch.randn(n, self.weight.shape[1], generator=generator, dtype=torch.float64)
        noise = torch.randn(n, len(self.weight), generator=generator, dtype=torch.float64)
        return z @ self.weight.T + self.bias + self.noise_variance**0.5 * noise

    def _examples(self, x: Tensor) -> Tensor:
        if x.ndim != 2 or x.shape[1] != len(self.weight):
            raise ValueError(f"x must have shape (batch, {len(self.weight)}), got {tuple(x.shape)}")
        return x.double()
