"""The Fréchet distance of two sets of pictures, seen through a network's features, and its floor."""

from __future__ import annotations

import torch
from jaxtyping import Float, Float64
from torch import Tensor


def moments(features: Float[Tensor, "n d"]) -> tuple[Float64[Tensor, " d"], Float64[Tensor, "d d"]]:
    """Mean and covariance (divided by n - 1) of n feature vectors, in float64. Raises ValueError for n ≤ d.

    With no more pictures than features the covariance is singular and the distance mostly measures n.
    """
    n, d = features.shape
    if n <= d:
        raise ValueError(f"features has n={n} rows and d={d} columns; the distance needs n > d, better n > 10 d")
    if not torch.isfinite(features).all():
        raise ValueError("features holds values that are not finite; look at the pictures they came from")
    x = features.double().cpu()
    return x.mean(dim=0), torch.cov(x.T).reshape(d, d)


def frechet_distance(
    mean_a: Float[Tensor, " d"], cov_a: Float[Tensor, "d d"], mean_b: Float[Tensor, " d"], cov_b: Float[Tensor, "d d"]
) -> float:
    """‖mean_a - mean_b‖² + tr(A + B - 2 (A^½ B A^½)^½) for the covariances A and B: squared feature units.

    The distance (squared) of two Gaussians in the sense of Wasserstein: 0 if they are equal. Computed from eigenvalues
    of symmetric matrices, so it never turns complex. Dowson & Landau 1982; Heusel et al. 2017, arXiv:1706.08500, eq. 6.
    Raises ValueError for shapes that differ and covariances that are not symmetric or have negative eigenvalues.
    """
    mean_a, cov_a, mean_b, cov_b = (torch.as_tensor(x).double().cpu() for x in (mean_a, cov_a, mean_b, cov_b))
    d = len(mean_a)
    for name, value, shape in (("mean_b", mean_b, (d,)), ("cov_a", cov_a, (d, d)), ("cov_b", cov_b, (d, d))):
        if value.shape != shape:
            raise ValueError(f"{name} has shape {tuple(value.shape)}, but mean_a has {d} entries; it should be {shape}")
    roots = []
    for name, cov in (("cov_a", cov_a), ("cov_b", cov_b)):
        scale = cov.abs().max().clamp(min=1e-300)
        if not torch.allclose(cov, cov.T, rtol=0, atol=1e-8 * scale.item()):
            raise ValueError(f"{name} is not symmetric; give a covariance matrix")
        values, vectors = torch.linalg.eigh((cov + cov.T) / 2)
        if values[0] < -1e-8 * scale:
            raise ValueError(f"{name} has the negative eigenvalue {values[0].item():.3g}; give a covariance matrix")
        roots.append(vectors * values.clamp(min=0).sqrt())  # r with r rᵀ = cov
    # The eigenvalues of A^½ B A^½ are the squared singular values of r_aᵀ r_b.
    overlap = torch.linalg.svdvals(roots[0].T @ roots[1]).sum()
    distance = (mean_a - mean_b).square().sum() + cov_a.trace() + cov_b.trace() - 2 * overlap
    return max(distance.item(), 0.0)


def feature_distance(a: Float[Tensor, "n d"], b: Float[Tensor, "m d"]) -> float:
    """Fréchet distance of two sets of feature vectors. It falls as n and m grow: compare at equal n only."""
    return frechet_distance(*moments(a), *moments(b))


def distance_to_real(
    samples: Float[Tensor, "n d"], real: Float[Tensor, "count d"], seed: int = 0, splits: int = 16
) -> float:
    """Mean Fréchet distance of n samples to `splits` random sets of n real pictures: one set's luck averages out.

    Raises ValueError where there are fewer than n real pictures.
    """
    n = len(samples)
    if n > len(real):
        raise ValueError(f"n={n} samples need as many real pictures, but there are {len(real)}")
    generator = torch.Generator().manual_seed(seed)
    orders = [torch.randperm(len(real), generator=generator) for _ in range(splits)]
    return sum(feature_distance(samples, real[order[:n]]) for order in orders) / splits


def floor(features: Float[Tensor, "count d"], n: int, seed: int = 0, splits: int = 16) -> float:
    """Mean Fréchet distance of two disjoint random sets of n real pictures each: what perfect samples get at this n.

    A single pair of sets says little: for 1,000 pictures it may be off by half. Hence the mean over `splits` of them.
    Raises ValueError where there are fewer than 2n.
    """
    if 2 * n > len(features):
        raise ValueError(f"n={n} needs {2 * n} real pictures for two disjoint sets, but there are {len(features)}")
    generator = torch.Generator().manual_seed(seed)
    orders = [torch.randperm(len(features), generator=generator) for _ in range(splits)]
    return sum(feature_distance(features[o[:n]], features[o[n : 2 * n]]) for o in orders) / splits
