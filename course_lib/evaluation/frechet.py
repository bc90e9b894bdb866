"""The Fréchet distance of two sets of pictures, seen through a network's features, and its floor."""

from __future__ import annotations

import warnings

import torch
from jaxtyping import Float, Float64, Int, Real
from torch import Tensor


def moments(features: Float[Tensor, "n d"]) -> tuple[Float64[Tensor, " d"], Float64[Tensor, "d d"]]:
    """Mean and covariance (divided by n - 1) of n feature vectors, in float64.

    With n ≤ d the covariance is singular and the distance mostly measures n: a warning says so, with a number. Raises
    ValueError for fewer than two vectors and for values that are not finite.
    """
    x = _checked(features)
    _warn_of_few(x)
    return _moments(x)


def _checked(features: Float[Tensor, "n d"]) -> Float64[Tensor, "n d"]:
    if features.ndim != 2 or features.shape[0] < 2 or features.shape[1] < 1:
        raise ValueError(f"features must have shape (n, d) with n ≥ 2 and d ≥ 1, not {tuple(features.shape)}")
    if not torch.isfinite(features).all():
        raise ValueError("features holds values that are not finite; look at the pictures they came from")
    return features.detach().cpu().double()


def _warn_of_few(x: Float64[Tensor, "n d"]) -> None:
    """Where n ≤ d: a warning with a number to think about, the distance between the set's own halves."""
    n, d = x.shape
    if n > d:
        return
    apart = ""
    if n >= 4:
        order = torch.randperm(n, generator=torch.Generator().manual_seed(0))
        first, second = (_moments(x[part]) for part in order.chunk(2))
        apart = f": its own two halves are {frechet_distance(*first, *second):.3g} apart"
    warnings.warn(
        f"features has n={n} rows and d={d} columns; with n ≤ d a distance mostly measures n{apart}. Take more than d, "
        "better 10 d, and compare at equal n",
        stacklevel=3,
    )


def _moments(x: Float64[Tensor, "n d"]) -> tuple[Float64[Tensor, " d"], Float64[Tensor, "d d"]]:
    return x.mean(dim=0), torch.cov(x.T).reshape(x.shape[1], x.shape[1])


def frechet_distance(
    mean_a: Real[Tensor, " d"], cov_a: Real[Tensor, "d d"], mean_b: Real[Tensor, " d"], cov_b: Real[Tensor, "d d"]
) -> float:
    """‖mean_a - mean_b‖² + tr(A + B - 2 (A^½ B A^½)^½) for the covariances A and B: squared feature units.

    The distance (squared) of two Gaussians in the sense of Wasserstein: 0 if they are equal. Computed from roots of
    symmetric matrices, so it never turns complex. Dowson & Landau 1982; Heusel et al. 2017, arXiv:1706.08500, eq. 6.
    Raises ValueError for shapes that differ, values that are not finite, and matrices that are no covariances.
    """
    mean_a, cov_a, mean_b, cov_b = _checked_moments(mean_a=mean_a, cov_a=cov_a, mean_b=mean_b, cov_b=cov_b)
    # The eigenvalues of A^½ B A^½ are the squared singular values of root_aᵀ root_b, for any roots of A and B.
    overlap = torch.linalg.svdvals(_root(cov_a).T @ _root(cov_b)).sum()
    distance = (mean_a - mean_b).square().sum() + cov_a.trace() + cov_b.trace() - 2 * overlap
    return max(distance.item(), 0.0)


def _checked_moments(**given: Tensor) -> list[Float64[Tensor, "..."]]:
    """The means and covariances in float64; TypeError or ValueError, which names the first that is none."""
    exact, d = [], None
    for name, value in given.items():
        value = torch.as_tensor(value)
        if value.is_complex():
            raise TypeError(f"{name} is complex, but means and covariances of features are real")
        if d is None and (value.ndim != 1 or not len(value)):
            raise ValueError(f"{name} must have shape (d,) with d ≥ 1, not {tuple(value.shape)}")
        d = len(value) if d is None else d
        wanted = (d, d) if name.startswith("cov") else (d,)
        if value.shape != wanted:
            raise ValueError(
                f"{name} has shape {tuple(value.shape)}, but the first mean has {d} entries: {wanted} fits"
            )
        exact.append(_checked_covariance(value, name) if name.startswith("cov") else _finite(value, name))
    return exact


def _finite(value: Tensor, name: str) -> Float64[Tensor, "..."]:
    if not torch.isfinite(value).all():
        raise ValueError(f"{name} holds values that are not finite; look at the features it came from")
    return value.detach().cpu().double()


def _checked_covariance(given: Tensor, name: str) -> Float64[Tensor, "d d"]:
    """The matrix in float64, made symmetric. ValueError where more than its old dtype's rounding would be mended."""
    cov = _finite(given, name)
    rounding = torch.finfo(given.dtype if given.is_floating_point() else torch.float64).eps
    allowed = min(max(1e-8, 8 * len(cov) * rounding), 0.01) * cov.abs().max()
    if ((cov - cov.T).abs() > allowed).any():
        raise ValueError(f"{name} is not symmetric; give a covariance matrix")
    cov = (cov + cov.T) / 2
    lowest = torch.linalg.eigvalsh(cov)[0]
    if lowest < -allowed:
        raise ValueError(f"{name} has the negative eigenvalue {lowest.item():.3g}; give a covariance matrix")
    return cov


def _root(cov: Float64[Tensor, "d d"]) -> Float64[Tensor, "d k"]:
    """R with R Rᵀ = cov, one column per direction in which it varies at all.

    An eigenvalue that rounding can explain is 0: a zero of 1e-17 would come out of the square root as 3e-9, and
    hundreds of them would be seen in the distance.
    """
    values, vectors = torch.linalg.eigh(cov)  # ascending
    kept = values > len(cov) * torch.finfo(torch.float64).eps * values[-1].clamp(min=0)
    return vectors[:, kept] * values[kept].sqrt()


def expected_floor(covariance: Real[Tensor, "d d"], n: int) -> float:
    """What two sets of n draws each from one Gaussian are apart, on average: it depends on its covariance only.

    (5/2 tr Σ + Σ_ij λ_i λ_j / (λ_i + λ_j)) / n for the eigenvalues λ: the first term of a series in 1/n, for n > d; it
    is d (d + 5) / (2n) for the unit matrix. Raises ValueError for n < 2 or a matrix that is no covariance.
    """
    if n < 2:
        raise ValueError(f"n={n} pictures have no covariance; it takes 2 at least")
    covariance = torch.as_tensor(covariance)
    if covariance.ndim != 2 or covariance.shape[0] != covariance.shape[1]:
        raise ValueError(f"covariance must have shape (d, d), not {tuple(covariance.shape)}")
    spread = _root(_checked_covariance(covariance, "covariance")).square().sum(dim=0)  # the eigenvalues
    pairs = spread[:, None] * spread / (spread[:, None] + spread)
    return ((2.5 * spread.sum() + pairs.sum()) / n).item()


def feature_distance(a: Float[Tensor, "n d"], b: Float[Tensor, "m d"]) -> float:
    """Fréchet distance of two sets of feature vectors. It falls as n and m grow: compare at equal n only."""
    return frechet_distance(*moments(a), *moments(b))


def distance_to_real(
    samples: Float[Tensor, "n d"], real: Float[Tensor, "count d"], seed: int = 0, splits: int = 16
) -> float:
    """Mean Fréchet distance of n samples to `splits` random sets of n real pictures: one set's luck averages out.

    Raises ValueError where there are fewer than n real pictures, or no splits.
    """
    n = len(samples)
    if n > len(real):
        raise ValueError(f"n={n} samples need as many real pictures, but there are {len(real)}")
    if splits < 1:
        raise ValueError(f"splits={splits} must be at least 1")
    ours, theirs = moments(samples), _checked(real)
    orders = _orders(len(real), seed, splits)
    return sum(frechet_distance(*ours, *_moments(theirs[order[:n]])) for order in orders) / splits


def floor(features: Float[Tensor, "count d"], n: int, seed: int = 0, splits: int = 16) -> float:
    """Mean Fréchet distance of two disjoint random sets of n real pictures each: what perfect samples get at this n.

    A single pair of sets says little: for 1,000 pictures it may be off by half. Hence the mean over `splits` of them.
    Raises ValueError where there are fewer than 2n.
    """
    return mean_over_pairs(features, n, _orders(len(features), seed, splits))


def mean_over_pairs(features: Float[Tensor, "count d"], n: int, orders: list[Int[Tensor, " count"]]) -> float:
    """Mean Fréchet distance of the first n features and the next n, in each of these orders (permutations).

    Raises ValueError where there are fewer than 2n features, or no order.
    """
    if n < 2:
        raise ValueError(f"n={n} pictures have no covariance; it takes 2 at least")
    if 2 * n > len(features):
        raise ValueError(f"n={n} needs {2 * n} real pictures for two disjoint sets, but there are {len(features)}")
    if not orders:
        raise ValueError("orders is empty; give at least one permutation")
    x = _checked(features)
    _warn_of_few(x[:n])
    pairs = [(_moments(x[order[:n]]), _moments(x[order[n : 2 * n]])) for order in orders]
    return sum(frechet_distance(*one, *other) for one, other in pairs) / len(pairs)


def _orders(count: int, seed: int, splits: int) -> list[Int[Tensor, " count"]]:
    """As many random permutations of 0…count-1."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randperm(count, generator=generator) for _ in range(splits)]
