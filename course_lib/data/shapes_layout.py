"""From words to coordinates: draws a place, a size and a brightness that the words allow."""

from __future__ import annotations

import torch
from torch import Tensor

from course_lib.data._random import uniform
from course_lib.data.shapes_geometry import GAP, MIDDLE, REACH, SIDE, Geometry
from course_lib.data.shapes_render import visible_share
from course_lib.data.shapes_scene import COLORS, SHAPES, SIZES, Scene

RADIUS = {"small": (3.8, 4.6), "large": (6.2, 7.0)}  # pixels, half the width of the box around a shape
LEAST_VISIBLE = 0.7  # share of the object behind that must stay visible (0.6 is promised)
BACKGROUND = (-1.0, -0.8)  # a dark grey
BRIGHTNESS = (0.88, 1.0)  # 1 is the palette's color, 0 the background

_STEP = {"left": (-1, 0), "right": (1, 0), "top": (0, -1), "bottom": (0, 1), "center": (0, 0)}
_RELATION_STEP = {"left of": (1, 0), "right of": (-1, 0), "above": (0, 1), "below": (0, -1)}  # from first to second


def _between(low: Tensor | float, high: Tensor | float, share: Tensor) -> Tensor:
    return low + (high - low) * share


def _columns(scenes: list[Scene]) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The words as numbers: present, shape, color, size (each n×2) and the unit step that `place` stands for (n×2)."""
    number = {word: i for words in (SHAPES, COLORS, SIZES) for i, word in enumerate(words)}
    rows, present, steps = [], [], []
    for scene in scenes:
        a, b = scene.first, scene.second or scene.first
        rows.append([number[w] for w in (a.shape, b.shape, a.color, b.color, a.size, b.size)])
        present.append([True, scene.second is not None])
        steps.append(_STEP[scene.place] if scene.second is None else _RELATION_STEP[scene.place])
    words = torch.tensor(rows, dtype=torch.int64).reshape(-1, 6)
    step = torch.tensor(steps, dtype=torch.float32).reshape(-1, 2)
    return torch.tensor(present, dtype=torch.bool).reshape(-1, 2), words[:, :2], words[:, 2:4], words[:, 4:], step


def _one_object(radius: Tensor, step: Tensor, share: Tensor) -> Tensor:
    """Centres (n 2, as x y) for scenes of one object: 6.5 to 9.5 px from the middle, or within 2 px of it."""
    along = _between(6.5, (MIDDLE + 0.3 - REACH * radius).clamp(max=9.5), share[:, 0])[:, None]
    jitter = _between(-2.0, 2.0, share[:, 1:3])
    return MIDDLE + torch.where(step != 0, step * along, jitter)


def _two_objects(
    radius: Tensor, step: Tensor, share: Tensor, same_color: Tensor, apart: Tensor
) -> tuple[Tensor, Tensor]:
    """Centres of both objects (each n 2, as x y). `apart` marks the pairs that must not overlap.

    Along the relation the centres are `distance` apart; across it at most 0.3 of that, so the relation is clear.
    """
    both, smaller = radius.sum(1), radius.amin(1)
    widest = SIDE - 0.4 - REACH * both
    nearest = torch.where(same_color | apart, REACH * both + GAP, both - 0.5 * smaller)
    # Objects of one color stay well apart: nothing but the space between them tells them apart.
    nearest = torch.where(same_color, nearest + 1.0, nearest).minimum(widest)
    distance = _between(nearest, (both + 5.0).clamp(min=nearest).minimum(widest), share[:, 0])
    across = _between(-0.3, 0.3, share[:, 1]) * distance
    towards = step + across[:, None] / distance[:, None] * step.flip(1)  # the step, leaning a little
    offset = towards * distance[:, None]
    # The pair as a whole may stand anywhere that keeps both objects inside the picture.
    reach = REACH * radius[:, :, None]
    low = torch.maximum(reach[:, 0], reach[:, 1] - offset) - 0.3
    high = SIDE - 0.7 - torch.maximum(reach[:, 0], reach[:, 1] + offset)
    first = _between(low, high, share[:, 2:4])
    return first, first + offset


def lay_out(scenes: list[Scene], generator: torch.Generator) -> Geometry:
    """Draw positions, sizes, brightness, background and order of drawing for `scenes`.

    Where the object in front would leave less than 60 % of the other visible, the two move apart.
    """
    present, shape, color, size, step = _columns(scenes)
    n = len(scenes)
    low, high = torch.tensor([RADIUS[s] for s in SIZES]).T
    radius = _between(low[size], high[size], uniform(generator, n, 2))
    brightness = _between(*BRIGHTNESS, uniform(generator, n, 2))
    background = _between(*BACKGROUND, uniform(generator, n))
    front = (uniform(generator, n) < 0.5).long()
    share = uniform(generator, n, 4)
    two = present[:, 1:]

    def centres(apart: Tensor) -> tuple[Tensor, Tensor]:
        first, second = _two_objects(radius, step, share, color[:, 0] == color[:, 1], apart)
        alone = _one_object(radius[:, 0], step, share)
        first, second = torch.where(two, first, alone), torch.where(two, second, alone)
        return torch.stack([first[:, 0], second[:, 0]], 1), torch.stack([first[:, 1], second[:, 1]], 1)

    x, y = centres(torch.zeros(n, dtype=torch.bool))
    close = present[:, 1] & (torch.stack([x.diff(dim=1), y.diff(dim=1)]).abs().amax(0)[:, 0]
                             < REACH * radius.sum(1) + GAP + 1)  # fmt: skip
    geometry = Geometry(present, shape, color, x, y, radius, brightness, background, front)
    hidden = torch.zeros(n, dtype=torch.bool)
    hidden[close] = visible_share(geometry[close]).amin(1) < LEAST_VISIBLE
    x, y = centres(hidden)
    return Geometry(present, shape, color, x, y, radius, brightness, background, front)
