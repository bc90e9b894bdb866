"""A density fitted to latents after training: where the encoder puts real pictures is rarely quite N(0, I).

Ghosh, Sajjadi, Vergari, Black, Schölkopf 2020, arXiv:1903.12436, section 4 ("ex-post density estimation").
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from course_lib.foundations import kmeans, nearest_centre


@dataclass(frozen=True, eq=False)
class GaussianMixture:
    """K Gaussians with full covariances in d dimensions: `weights` (K,), `means` (K, d), `roots` (K, d, d).

    A root is the lower triangle L of a covariance L Lᵀ, as Cholesky gives it.
    """

    weights: Float64[Tensor, " K"]
    means: Float64[Tensor, "K d"]
    roots: Float64[Tensor, "K d d"]

    def log_density(self, z: Float[Tensor, "n d"]) -> Float64[Tensor, " n"]:
        """ln of the density at each z, in nats."""
        return torch.logsumexp(self._joint(z.double()), dim=1)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Float[Tensor, "n d"]:
        """n draws, float32, on the CPU."""
        place = torch.rand(n, generator=generator, dtype=torch.float64)
        which = torch.searchsorted(self.weights.cumsum(0), place).clamp(max=len(self.weights) - 1)
        noise = torch.randn(n, self.means.shape[1], generator=generator, dtype=torch.float64)
        return (self.means[which] + torch.einsum("nij,nj->ni", self.roots[which], noise)).float()

    def _joint(self, z: Tensor) -> Float64[Tensor, "n K"]:
        """ln (weight · density) of each component at each z."""
        columns = []
        for weight, mean, root in zip(self.weights, self.means, self.roots, strict=True):
            white = torch.linalg.solve_triangular(root, (z - mean).T, upper=False)
            columns.append(weight.log() - 0.5 * white.square().sum(0) - root.diagonal().log().sum())
        return torch.stack(columns, dim=1) - 0.5 * z.shape[1] * math.log(2 * math.pi)


def fit_mixture(
    z: Float[Tensor, "n d"], components: int, *, rounds: int = 50, ridge: float | int = 1e-4, seed: int = 0
) -> GaussianMixture:
    """The mixture of K = `components` Gaussians that EM reaches from the clusters of k-means, in float64.

    Each round computes how much of each point every component claims (E), then the weighted means and covariances (M);
    the likelihood never falls. `ridge` is added to the covariances' diagonals. Dempster, Laird, Rubin 1977.
    Raises ValueError for no components or fewer than d + 1 points for each.
    """
    n, d = z.shape
    if components < 1 or n < components * (d + 1):
        raise ValueError(
            f"components={components} must be at least 1, and needs {d + 1} points for each in {d} dimensions; there "
            f"are {n}"
        )
    if not torch.isfinite(z).all():
        raise ValueError("z holds values that are not finite; look at the encoder they came from")
    z = z.detach().double().cpu()
    some = z[torch.randperm(n, generator=torch.Generator().manual_seed(seed))[: 200 * components]]
    *_, clusters = kmeans(some, some[:components], max_rounds=20)
    labels = torch.cat([nearest_centre(part, clusters.centres) for part in z.split(5_000)])
    claims = torch.nn.functional.one_hot(labels, components).double()
    for _ in range(rounds):
        found = _maximise(z, claims, ridge)
        claims = found._joint(z).softmax(dim=1)
    return _maximise(z, claims, ridge)


def _maximise(z: Tensor, claims: Tensor, ridge: float | int) -> GaussianMixture:
    """The M step: weights, means and covariances of the points that each component claims."""
    mass = claims.sum(dim=0).clamp(min=1e-9)
    means = claims.T @ z / mass[:, None]
    eye = torch.eye(z.shape[1], dtype=z.dtype)
    roots = []
    for k, mean in enumerate(means):
        centred = z - mean
        covariance = (claims[:, k, None] * centred).T @ centred / mass[k]
        roots.append(torch.linalg.cholesky(covariance + ridge * eye))
    return GaussianMixture(mass / mass.sum(), means, torch.stack(roots))
