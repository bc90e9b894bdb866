"""Eight narrow Gaussians on a ring: points in the plane that no generative model may cover by halves.

    from course_lib.data import ring
    points = ring.sample(1000, seed=0)
    ring.count_modes(points).modes  # 8

The usual test for lost modes (Metz et al. 2017, arXiv:1611.02163, section 3.1), here on a circle of radius 1, so that
a coordinate's variance, (RADIUS² / 2) + STD², is about a half. GAN, VAE and DDPM share it.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from course_lib.data._random import as_generator, integers

MODES = 8  # equally likely
RADIUS = 1.0  # of the circle that their means lie on
STD = 0.05  # of each coordinate around its mode's mean; neighbouring means are 0.77, or 15 of these, apart


class Coverage(NamedTuple):
    """What a set of points covers of the ring."""

    modes: int  # of the eight, those with at least `least` of all points near them
    near: float  # share of all points that lie near some mode
    shares: Float[Tensor, " modes"]  # share of all points that lie near each mode


def means() -> Float[Tensor, "modes 2"]:
    """The modes' means, anticlockwise from (RADIUS, 0)."""
    angle = torch.arange(MODES) * (2 * math.pi / MODES)
    return RADIUS * torch.stack([angle.cos(), angle.sin()], dim=1)


def labelled(
    n: int, *, generator: torch.Generator | None = None, seed: int | None = None
) -> tuple[Float[Tensor, "n 2"], Int[Tensor, " n"]]:
    """n random points and the mode (0 … 7) that each belongs to. Give either `generator` or `seed`.

    Raises ValueError for n below 1, and unless exactly one of the two is given.
    """
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise ValueError(f"n={n} must be a whole number of at least 1")
    generator = as_generator(generator, seed)
    label = integers(generator, MODES, n)
    noise = torch.randn(n, 2, generator=generator, device=generator.device).cpu()
    return means()[label] + STD * noise, label


def sample(n: int, *, generator: torch.Generator | None = None, seed: int | None = None) -> Float[Tensor, "n 2"]:
    """n random points of the ring, float32 on the CPU. Give either `generator` or `seed`; ValueError as `labelled`."""
    return labelled(n, generator=generator, seed=seed)[0]


def log_density(points: Float[Tensor, "n 2"]) -> Float[Tensor, " n"]:
    """ln of the ring's density at each point, in nats. Raises ValueError for another shape."""
    squared = _squared_distances(points)
    normal = -squared / (2 * STD**2) - math.log(2 * math.pi * STD**2)
    return normal.logsumexp(dim=1) - math.log(MODES)


def count_modes(points: Float[Tensor, "n 2"], least: float | int = 0.025, within: float | int = 3.0) -> Coverage:
    """How many of the eight modes these points cover, and which share of them lies near a mode.

    A point is near a mode when it is at most `within` standard deviations (0.15 with the default 3) from its mean: so
    are 98.9% of the ring's own points. A mode is covered when at least `least` of all points are near it; the default,
    0.025, is a fifth of the fair share of 1/8. A point that is not finite is near none. Raises ValueError for another
    shape or no points at all, `least` outside (0, 1/8] and `within` not positive or so large that modes overlap.
    """
    if not 0 < least <= 1 / MODES:
        raise ValueError(f"least={least} must be above 0 and at most 1/{MODES}, the fair share of a mode")
    widest = RADIUS * math.sin(math.pi / MODES) / STD
    if not 0 < within < widest:
        raise ValueError(f"within={within} must be above 0 and below {widest:.1f}, where neighbouring modes would meet")
    near = _squared_distances(points) <= (within * STD) ** 2  # False for NaN
    if len(near) == 0:
        raise ValueError("points is empty; give at least one point, better hundreds")
    shares = near.float().mean(dim=0).cpu()
    return Coverage(int((shares >= least).sum()), near.any(dim=1).float().mean().item(), shares)


def _squared_distances(points: Tensor) -> Float[Tensor, "n modes"]:
    """Of each point to each mode's mean."""
    if points.ndim != 2 or points.shape[1] != 2:
        raise ValueError(f"points has shape {tuple(points.shape)}; it should be (n, 2)")
    return (points[:, None] - means().to(points)).square().sum(dim=2)
