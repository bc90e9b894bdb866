"""Moments: weighted averages of powers, which say where a distribution lies and how wide it is.

All are signed, E[(X - c)^k] and never E[|X - c|^k]: so odd moments can vanish and a covariance can be negative.
Samples count 1/n each (no n - 1 anywhere); `weights` are masses or probabilities, and are divided by their sum.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float64, Real
from torch import Tensor

from course_lib.foundations._checks import not_negative, real, same_length, whole


def raw_moment(x: Real[Tensor, "n"], k: int, weights: Real[Tensor, "n"] | None = None) -> Float64[Tensor, ""]:
    """E[X^k], the k-th moment about 0, in (unit of x)^k; k = 1 is the mean, and k = 0 gives 1."""
    return moment_about(x, k, 0.0, weights)


def central_moment(x: Real[Tensor, "n"], k: int, weights: Real[Tensor, "n"] | None = None) -> Float64[Tensor, ""]:
    """E[(X - E X)^k], the k-th moment about the mean, in (unit of x)^k; k = 2 is the variance."""
    return moment_about(x, k, raw_moment(x, 1, weights), weights)


def moment_about(
    x: Real[Tensor, "n"], k: int, c: float | int | Real[Tensor, ""], weights: Real[Tensor, "n"] | None = None
) -> Float64[Tensor, ""]:
    """E[(X - c)^k], the k-th moment about the point c, in (unit of x)^k."""
    x, k, c = real(x, "x", ("n",)), whole(k, "k", least=0), real(c, "c", ())
    return _shares(x, weights) @ (x - c) ** k


def mixed_moment(
    x: Real[Tensor, "n"],
    y: Real[Tensor, "n"],
    p: int,
    q: int,
    weights: Real[Tensor, "n"] | None = None,
    *,
    central: bool = True,
) -> Float64[Tensor, ""]:
    """E[(X - E X)^p (Y - E Y)^q], or E[X^p Y^q] with central=False. p = q = 1, central, is the covariance.

    x, y: (n,) pairs, drawn or weighted together.
    """
    x, y = real(x, "x", ("n",)), real(y, "y", ("n",))
    p, q = whole(p, "p", least=0), whole(q, "q", least=0)
    same_length(x=x, y=y)
    shares = _shares(x, weights)
    x_0, y_0 = (shares @ x, shares @ y) if central else (0.0, 0.0)
    return shares @ ((x - x_0) ** p * (y - y_0) ** q)


class MassMoments(NamedTuple):
    """Moments of point masses on a line, each a float64 number."""

    m0: Float64[Tensor, ""]  # total mass Σ m
    m1: Float64[Tensor, ""]  # first moment Σ m x: mass times length, not yet a place
    centroid: Float64[Tensor, ""]  # m1 / m0: the point of balance, a length
    m2: Float64[Tensor, ""]  # Σ m x²: moment of inertia about 0
    central_m2: Float64[Tensor, ""]  # Σ m (x - centroid)²: moment of inertia about the centroid, the smallest there is
    variance: Float64[Tensor, ""]  # central_m2 / m0: what is left once the masses are made probabilities


def mass_moments(positions: Real[Tensor, "n"], masses: Real[Tensor, "n"]) -> MassMoments:
    """The physical reading of moments 0, 1 and 2: masses (n,), at least 0 and not all 0, at positions (n,)."""
    positions = real(positions, "positions", ("n",))
    m0 = _mass(positions, masses, "positions", "masses").sum()
    masses = real(masses, "masses")
    m1, m2 = masses @ positions, masses @ positions**2
    centroid = m1 / m0
    central_m2 = masses @ (positions - centroid) ** 2
    return MassMoments(m0, m1, centroid, m2, central_m2, central_m2 / m0)


def _shares(x: Tensor, weights: Tensor | None) -> Tensor:
    if weights is None:
        if not len(x):
            raise ValueError("x must hold at least one value, got none")
        return torch.full_like(x, 1 / len(x))
    weights = _mass(x, weights, "x", "weights")
    return weights / weights.sum()


def _mass(x: Tensor, mass: Tensor, x_name: str, name: str) -> Tensor:
    mass = not_negative(mass, name, ("n",))
    same_length(**{x_name: x, name: mass})
    if not mass.any():
        raise ValueError(f"{name} must not all be 0: without mass there is no average")
    return mass
