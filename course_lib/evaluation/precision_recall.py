"""Are the samples like real pictures, and are all real pictures like some sample? Two numbers in place of one."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

CHUNK = 1_000  # rows of the distance matrix in memory at once


class Overlap(NamedTuple):
    """How far two clouds of points cover each other. The ball of a point reaches to its k-th nearest neighbour."""

    precision: float  # share of the samples within the ball of some real point: quality
    recall: float  # share of the real points within the ball of some sample: variety
    density: float  # number of real balls that a sample lies in, over k: 1 for real against real, and may be more
    coverage: float  # share of the real balls that hold a sample


def neighbour_radius(points: Float[Tensor, "n d"], k: int = 3) -> Float64[Tensor, " n"]:
    """Distance of each point to its k-th nearest neighbour among the others. Raises ValueError unless 1 ≤ k < n."""
    _check("points", points, k)
    x = points.detach().cpu().double()
    # Its distance to itself, 0, stands among the n: the k-th of the others is the (k + 1)-th smallest.
    return torch.cat([_distances(rows, x).kthvalue(k + 1, dim=1).values for rows in x.split(CHUNK)])


def inside_balls(points: Float[Tensor, "n d"], centres: Float[Tensor, "m d"], k: int = 3) -> Bool[Tensor, "n m"]:
    """Whether point i lies in the ball around centre j that reaches to its k-th nearest neighbour (on the rim: yes)."""
    radius = neighbour_radius(centres, k)
    points, centres = points.detach().cpu().double(), centres.detach().cpu().double()
    return torch.cat([_distances(rows, centres) <= radius for rows in points.split(CHUNK)])


def precision(samples: Float[Tensor, "n d"], real: Float[Tensor, "m d"], k: int = 3) -> float:
    """Share of the samples that lie in the ball of at least one real point; with the two swapped it is the recall."""
    _check_pair(samples, real, k)
    return inside_balls(samples, real, k).any(dim=1).double().mean().item()


def precision_recall(samples: Float[Tensor, "n d"], real: Float[Tensor, "m d"], k: int = 3) -> Overlap:
    """Precision, recall, density and coverage of feature vectors of samples, beside those of real pictures.

    All depend on n, m and k: compare at equal ones only, and beside what real pictures get against real ones.
    Kynkäänniemi et al. 2019, arXiv:1904.06991, eqs. 1 and 2 (their k is 3); density and coverage: Naeem et al. 2020,
    arXiv:2002.09797, eqs. 4 and 5 (their k is 5). Raises ValueError for sets that do not fit, or k ≥ n or m.
    """
    _check_pair(samples, real, k)
    inside = inside_balls(samples, real, k)
    return Overlap(
        precision=inside.any(dim=1).double().mean().item(),
        recall=precision(real, samples, k),
        density=inside.sum().item() / (k * len(samples)),
        coverage=inside.any(dim=0).double().mean().item(),
    )


def _distances(x: Tensor, y: Tensor) -> Tensor:
    """Euclidean distances, each from the differences themselves: the same pair gives the same number everywhere."""
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")


def _check_pair(samples: Tensor, real: Tensor, k: int) -> None:
    for name, x in (("samples", samples), ("real", real)):
        _check(name, x, k)
    if samples.shape[1] != real.shape[1]:
        raise ValueError(
            f"samples has {samples.shape[1]} features and real has {real.shape[1]}; take both from the same network"
        )


def _check(name: str, points: Tensor, k: int) -> None:
    if points.ndim != 2 or points.shape[1] < 1:
        raise ValueError(f"{name} must have shape (n, d) with d ≥ 1, not {tuple(points.shape)}")
    if not 1 <= k < len(points):
        raise ValueError(f"k={k} neighbours need more than k points, at least 2, but {name} has n={len(points)}")
    if not torch.isfinite(points).all():
        raise ValueError(f"{name} holds values that are not finite; look at the pictures they came from")
