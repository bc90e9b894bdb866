"""Gaussians in d dimensions, N(mean, covariance): marginals, conditionals, affine maps, and their principal axes.

Covariances may be singular: then the distribution lives on a flat of fewer dimensions. Source: Bishop 2006, Pattern
Recognition and Machine Learning, section 2.3, eqs. 2.81-2.82 and 2.98.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float64, Real
from torch import Tensor

from course_lib.foundations._checks import not_negative, real


class Axes(NamedTuple):
    """A covariance as root rootᵀ with root = scale · directions · √variances: rank r of d dimensions.

    The scale makes every variable's own variance 1 (or leaves it 0), so that units do not matter to the rank.
    """

    scale: Float64[Tensor, "d"]  # standard deviation of each variable, or 1 where it is 0
    directions: Float64[Tensor, "d r"]
    variances: Float64[Tensor, "r"]

    @property
    def root(self) -> Float64[Tensor, "d r"]:
        """(d, r): root rootᵀ is the covariance."""
        return self.scale[:, None] * self.directions * self.variances.sqrt()

    def coordinates(self, vectors: Float64[Tensor, "d k"]) -> tuple[Float64[Tensor, "r k"], Float64[Tensor, "d k"]]:
        """The vectors in units of `root`'s columns, and, in scaled variables, what those columns cannot reach."""
        scaled = vectors / self.scale[:, None]
        inside = self.directions.T @ scaled
        return inside / self.variances.sqrt()[:, None], scaled - self.directions @ inside


def principal_axes(covariance: Real[Tensor, "d d"], name: str = "covariance") -> Axes:
    """Directions in which the distribution varies; those whose variance is 0, to rounding, are left out.

    Raises ValueError unless the matrix is symmetric and has no negative eigenvalue: then it is no covariance.
    """
    covariance, rounding = checked_covariance(covariance, name)
    std = covariance.diagonal().sqrt()
    scale = torch.where(std > 0, std, 1.0)
    variances, directions = torch.linalg.eigh(covariance / scale[:, None] / scale)
    if variances[0] < -rounding:
        raise ValueError(
            f"{name} must have no negative eigenvalue, got {float(variances[0]):.3g} after scaling its diagonal to 1: "
            "along that direction the variance would be negative"
        )
    varies = variances > rounding
    return Axes(scale, directions[:, varies], variances[varies])


def marginal_normal(
    mean: Real[Tensor, "d"], covariance: Real[Tensor, "d d"], keep: Sequence[int]
) -> tuple[Float64[Tensor, "k"], Float64[Tensor, "k k"]]:
    """Mean and covariance of the variables `keep`, in that order: the others are simply crossed out."""
    mean, covariance = _checked(mean, covariance)
    keep = _indices(keep, len(mean), "keep")
    return mean[keep], covariance[keep][:, keep]


def conditional_normal(
    mean: Real[Tensor, "d"], covariance: Real[Tensor, "d d"], given: Sequence[int], values: Real[Tensor, "g"]
) -> tuple[Float64[Tensor, "k"], Float64[Tensor, "k k"]]:
    """Mean and covariance of the remaining variables, in their old order, once the `given` ones have `values`.

    μ_a + Σ_ab Σ_bb⁻¹ (x_b - μ_b) and Σ_aa - Σ_ab Σ_bb⁻¹ Σ_ba: the covariance does not depend on the values.
    Raises ValueError for values that a singular Σ_bb makes impossible.
    """
    mean, covariance = _checked(mean, covariance)
    given, values = _indices(given, len(mean), "given"), real(values, "values", ("g",))
    if len(values) != len(given):
        raise ValueError(f"values must hold one value per given variable, {len(given)}, got {len(values)}")
    rest = [i for i in range(len(mean)) if i not in given]
    if not rest:
        raise ValueError(f"given names all {len(mean)} variables, so nothing is left to have a distribution")
    axes = principal_axes(covariance[given][:, given])
    shift, missed = axes.coordinates((values - mean[given])[:, None])
    if missed.norm() > 1e-9 * ((values.abs() + mean[given].abs()) / axes.scale).norm():
        raise ValueError(f"values {values.tolist()} are impossible: the given variables' covariance is singular")
    gain, _ = axes.coordinates(covariance[given][:, rest])  # Σ_bb^(-½) Σ_ba
    left = covariance[rest][:, rest] - gain.T @ gain
    certain = left.diagonal() <= 1e-14 * covariance.diagonal()[rest]  # a variance of 0, to rounding
    left[certain], left[:, certain] = 0.0, 0.0
    return mean[rest] + (gain.T @ shift)[:, 0], (left + left.T) / 2


def affine_multivariate(
    mean: Real[Tensor, "d"], covariance: Real[Tensor, "d d"], matrix: Real[Tensor, "k d"], shift: Real[Tensor, "k"]
) -> tuple[Float64[Tensor, "k"], Float64[Tensor, "k k"]]:
    """Mean and covariance of matrix · X + shift: A μ + b and A Σ Aᵀ."""
    mean, covariance = _checked(mean, covariance)
    matrix, shift = real(matrix, "matrix", ("k", "d")), real(shift, "shift", ("k",))
    if matrix.shape != (len(shift), len(mean)):
        raise ValueError(f"matrix must have shape ({len(shift)}, {len(mean)}), got {tuple(matrix.shape)}")
    moved = matrix @ covariance @ matrix.T
    return matrix @ mean + shift, (moved + moved.T) / 2


def checked_covariance(covariance: Real[Tensor, "d d"], name: str = "covariance") -> tuple[Tensor, float]:
    """The matrix in float64, and how large a relative variance rounding (in its old dtype) makes of a true 0."""
    exact = real(covariance, name, ("d", "d"))
    size = exact.shape[0]
    if exact.shape[1] != size or size == 0:
        raise ValueError(f"{name} must be square, got {tuple(exact.shape)}")
    not_negative(exact.diagonal(), f"the diagonal of {name}")
    dtype = covariance.dtype if covariance.is_floating_point() else torch.float64
    rounding = 8 * size * torch.finfo(dtype).eps
    std = exact.diagonal().sqrt()
    limit = std[:, None] * std
    if ((exact - exact.T).abs() > rounding * limit).any():
        raise ValueError(f"{name} must be symmetric; ({name} + {name}.T) / 2 is, if only rounding is to blame")
    if (exact.abs() > limit * (1 + rounding)).any():
        raise ValueError(f"{name} holds a covariance larger than the root of the two variances: no variables have it")
    return exact, rounding


def _checked(mean: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor]:
    mean, (exact, _) = real(mean, "mean", ("d",)), checked_covariance(covariance)
    if len(mean) != len(exact):
        raise ValueError(f"mean (d,) and covariance (d, d) must share d, got {len(mean)} and {tuple(exact.shape)}")
    return mean, exact


def _indices(indices: Sequence[int], size: int, name: str) -> list[int]:
    indices = list(indices)
    if any(not isinstance(i, int) or not 0 <= i < size for i in indices) or len(set(indices)) < len(indices):
        raise ValueError(f"{name} must name different variables 0…{size - 1}, got {indices}")
    return indices
