"""Template matching: which shape, size and place explain the evidence for one object best.

Fitting `evidence ≈ strength · template` by least squares, with weights 0 where the other object may hide this one,
leaves `sum(w e²) − (sum(w e t))² / sum(w t²)`; so the best template is the one with the largest
`sum(w e t) / sqrt(sum(w t²))`, a matrix product over a bank of drawn templates. First a coarse bank, whole pixels
apart, around the middle of the object's pixels; then finer ones around the best so far.
"""

from __future__ import annotations

from functools import cache

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from course_lib.data.shapes_render import coverage, signed_distance
from course_lib.data.shapes_scene import SHAPES

LEAST_SEEN = 0.45  # a template of which less is visible explains nothing: anything may hide behind an object
HIDING_COST = 0.1


@cache
def _bank(reach: int, shift: float, step: float, radii: tuple[float, ...]) -> tuple[Tensor, ...]:
    """Templates in a window of 2·reach + 1 pixels: parameters (k 4: shape, dx, dy, radius), coverage (k, pixels)."""
    shifts = torch.arange(-shift, shift + step / 2, step)
    grid = torch.cartesian_prod(torch.arange(float(len(SHAPES))), shifts, shifts, torch.tensor(radii))
    shape, dx, dy, radius = grid.T
    templates = coverage(signed_distance(shape.long(), dx + reach, dy + reach, radius, side=2 * reach + 1)).flatten(1)
    return grid, templates, templates.square(), templates.sum(1)


def _windows(maps: Tensor, column: Tensor, row: Tensor, reach: int) -> Tensor:
    """Cut a window around (column, row) from each map (m side side) -> (m, pixels); outside the map is 0."""
    padded = torch.nn.functional.pad(maps, (reach,) * 4)
    width = padded.shape[-1]
    span = torch.arange(2 * reach + 1)
    index = (row[:, None] + span)[:, :, None] * width + (column[:, None] + span)[:, None, :]
    return padded.flatten(1).gather(1, index.flatten(1))


def _best(evidence: Tensor, weight: Tensor, column: Tensor, row: Tensor, reach: int, bank: tuple) -> tuple[Tensor, ...]:
    grid, templates, squares, areas = bank
    e = _windows(evidence * weight, column, row, reach)
    # Outside the picture nothing can be hidden, so the weight there is 1: cut 1 − weight, whose padding is 0.
    w = 1 - _windows(1 - weight, column, row, reach)
    product, energy = e @ templates.T, w @ squares.T
    merit = product / (energy + 0.5).sqrt()
    seen = w @ templates.T / areas
    # Of two templates that explain the same pixels, the one that hides less: a small triangle, half covered, also
    # fits the tip of a large one.
    merit = torch.where(seen < LEAST_SEEN, -1.0, merit * (1 - HIDING_COST * (1 - seen)))
    best = merit.argmax(1)
    strength = product.gather(1, best[:, None])[:, 0] / energy.gather(1, best[:, None])[:, 0].clamp(min=0.5)
    shape, dx, dy, radius = grid[best].T
    return shape.long(), column + dx, row + dy, radius, strength


def _stages() -> tuple[tuple[int, tuple], ...]:
    """Banks from coarse to fine, each with the reach of its window: shifts, their step, and radii in pixels."""
    return (
        (13, _bank(13, 4.0, 1.0, (4.0, 5.0, 6.6))),
        (11, _bank(11, 1.5, 0.5, (3.6, 4.2, 4.8, 5.6, 6.4, 7.0))),
        (9, _bank(9, 0.75, 0.25, tuple(3.6 + 0.25 * i for i in range(15)))),
    )


def match(
    evidence: Float[Tensor, "m side side"], weight: Float[Tensor, "m side side"], mask: Bool[Tensor, "m side side"]
) -> tuple[Int[Tensor, " m"], Float[Tensor, " m"], Float[Tensor, " m"], Float[Tensor, " m"], Float[Tensor, " m"]]:
    """Shape index, centre x and y, radius (pixels) and strength of the template that explains each object best.

    `evidence` is the share of each pixel that has the object's color, `weight` 0 where it says nothing, `mask`
    the pixels that surely belong to the object (at least one).
    """
    line = torch.arange(float(mask.shape[-1]))
    pixels = mask.sum((1, 2)).clamp(min=1)
    column = ((mask.sum(1) * line).sum(1) / pixels).round().long()
    row = ((mask.sum(2) * line).sum(1) / pixels).round().long()
    for reach, bank in _stages():
        shape, x, y, radius, strength = _best(evidence, weight, column, row, reach, bank)
        # What is no scene may pull the best place out of the picture; the next window must still lie around a pixel.
        column, row = (c.round().long().clamp(0, mask.shape[-1] - 1) for c in (x, y))
    return shape, x, y, radius, strength
