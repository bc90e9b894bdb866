"""A Gaussian with independent coordinates, given by a network: what an encoder says about each picture's latent."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

LOG_VAR_RANGE = (-30.0, 20.0)  # as in Stable Diffusion's autoencoder: exp of it neither vanishes nor overflows


def kl_to_standard(
    mean: Float[Tensor, "batch *latent"], log_var: Float[Tensor, "batch *latent"]
) -> Float[Tensor, " batch"]:
    """KL(N(mean, exp(log_var)) ‖ N(0, I)) in nats, summed over the coordinates of each example.

    ½ Σ (σ² + μ² - 1 - ln σ²), with log_var = ln σ². In the dtype of the network; `foundations.kl_diagonal` is the
    general formula in float64. Kingma & Welling 2013, arXiv:1312.6114, appendix B.
    """
    # expm1: for a variance near 1 the difference exp(log_var) - 1 - log_var would lose its digits
    return 0.5 * (torch.expm1(log_var) - log_var + mean.square()).flatten(1).sum(dim=1)


class DiagonalGaussian:
    """N(mean, exp(log_var)) for each example of a batch; log_var is the ln of the variance, clamped to [-30, 20].

    diffusers calls it DiagonalGaussianDistribution. Raises ValueError where the two shapes differ.
    """

    def __init__(self, mean: Float[Tensor, "batch *latent"], log_var: Float[Tensor, "batch ..."]) -> None:
        if mean.shape != log_var.shape:
            raise ValueError(f"log_var has shape {tuple(log_var.shape)}, but mean {tuple(mean.shape)}; give one each")
        self.mean: Tensor = mean
        self.log_var: Tensor = log_var.clamp(*LOG_VAR_RANGE)

    @property
    def variance(self) -> Float[Tensor, "batch *latent"]:
        """The variance of each coordinate."""
        return self.log_var.exp()

    @property
    def std(self) -> Float[Tensor, "batch *latent"]:
        """The standard deviation of each coordinate."""
        return torch.exp(0.5 * self.log_var)

    @property
    def mode(self) -> Float[Tensor, "batch *latent"]:
        """The most probable point, which for a Gaussian is its mean."""
        return self.mean

    def sample(
        self, noise: Float[Tensor, "batch *latent"] | None = None, generator: torch.Generator | None = None
    ) -> Float[Tensor, "batch *latent"]:
        """mean + std · noise, which gradients pass through; the noise is drawn where none is given.

        The same noise gives the same draw. Raises ValueError for noise of another shape, which would be broadcast.
        """
        if noise is None:
            where = generator.device if generator is not None else self.mean.device
            noise = torch.randn(self.mean.shape, generator=generator, device=where)
        if noise.shape != self.mean.shape:
            raise ValueError(f"noise has shape {tuple(noise.shape)}, but mean {tuple(self.mean.shape)}; draw one each")
        return self.mean + self.std * noise.to(self.mean)

    def kl(self) -> Float[Tensor, " batch"]:
        """KL to N(0, I) in nats, for each example."""
        return kl_to_standard(self.mean, self.log_var)
