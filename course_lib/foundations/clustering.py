"""k-means: coordinate descent with two blocks of unknowns, the centres and who belongs to which of them.

Lloyd 1982, Least squares quantization in PCM. The value never rises, but it is not convex: where it ends depends on
where it starts.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float64, Int64, Real
from torch import Tensor

from course_lib.foundations._checks import real, whole


class Clusters(NamedTuple):
    """Where k-means stands after one half step."""

    moved: str  # "assignment" or "centres": the block that has just been improved
    centres: Float64[Tensor, "k d"]
    assignment: Int64[Tensor, "n"]  # the number of each point's centre, from 0
    value: float  # sum of squared distances, each point to its centre


def nearest_centre(points: Real[Tensor, "n d"], centres: Real[Tensor, "k d"]) -> Int64[Tensor, "n"]:
    """The number of the nearest centre, for every point; the first one where several are equally near."""
    points, centres = _points(points, "points"), _points(centres, "centres")
    if points.shape[1] != centres.shape[1]:
        raise ValueError(f"centres must have {points.shape[1]} numbers each, as points have, got {centres.shape[1]}")
    return (points[:, None] - centres).square().sum(dim=2).argmin(dim=1)


def kmeans(points: Real[Tensor, "n d"], centres: Real[Tensor, "k d"], max_rounds: int = 100) -> Iterator[Clusters]:
    """Yield the state after each half step, from the given centres until no point changes its centre.

    Half a step gives each point to its nearest centre; the other half moves each centre to the mean of its points.
    A centre without points stays where it is. Stops after `max_rounds` rounds in any case.
    """
    points, centres = _points(points, "points"), _points(centres, "centres").clone()
    before = None
    for _ in range(whole(max_rounds, "max_rounds", least=1)):
        assignment = nearest_centre(points, centres)
        yield Clusters("assignment", centres.clone(), assignment, _value(points, centres, assignment))
        if before is not None and torch.equal(before, assignment):
            return
        for k in assignment.unique():
            centres[k] = points[assignment == k].mean(dim=0)
        yield Clusters("centres", centres.clone(), assignment, _value(points, centres, assignment))
        before = assignment


def _value(points: Tensor, centres: Tensor, assignment: Tensor) -> float:
    return float((points - centres[assignment]).square().sum())


def _points(value: Tensor, name: str) -> Tensor:
    value = real(value, name, ("n", "d"))
    if len(value) == 0:
        raise ValueError(f"{name} must hold at least one point, got shape {tuple(value.shape)}")
    return value
