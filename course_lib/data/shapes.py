"""Captioned pictures made by code: unlimited, offline, and checkable.

A scene is one object at a position ("a small red circle at the left") or two related objects ("a large blue square
above a small green star"). `make` draws scenes with captions, masks, edges, depth and keypoints; `score` is the
oracle that looks at pictures, drawn or generated, and says which words of a prompt they obey.

    from course_lib.data import shapes

    scenes = shapes.make(64, seed=0)
    scenes.images                                     # (64, 3, 32, 32) float32 in [-1, 1]
    shapes.score(scenes.images, scenes.captions).correct.float().mean()

The parts, in reading order: `shapes_scene` (words), `shapes_captions` (sentences), `shapes_geometry` and
`shapes_layout` (coordinates),
`shapes_render` (pixels), `shapes_oracle` (from pixels back to words).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from course_lib.data._random import as_generator
from course_lib.data.shapes_captions import caption, captions, parse_caption, plain, prompts, wordings
from course_lib.data.shapes_geometry import Geometry
from course_lib.data.shapes_layout import lay_out
from course_lib.data.shapes_oracle import Reading, Score, read, score
from course_lib.data.shapes_render import PALETTE, depth_map, draw, edge_map, keypoints
from course_lib.data.shapes_scene import (
    COLORS,
    HELD_OUT,
    POSITIONS,
    RELATIONS,
    SHAPES,
    SIZES,
    Kind,
    Scene,
    Thing,
    random_scenes,
)

__all__ = [
    "COLORS",
    "HELD_OUT",
    "PALETTE",
    "POSITIONS",
    "RELATIONS",
    "SHAPES",
    "SIZES",
    "Reading",
    "Scene",
    "Scenes",
    "Score",
    "Thing",
    "caption",
    "captions",
    "edge_map",
    "make",
    "parse_caption",
    "plain",
    "prompts",
    "random_scenes",
    "read",
    "render",
    "score",
    "wordings",
]


@dataclass(frozen=True, eq=False)
class Scenes:
    """n drawn scenes. The maps are computed when first asked for."""

    images: Float[Tensor, "n 3 32 32"]  # float32 in [-1, 1]
    captions: list[str]
    specs: list[Scene]
    masks: Bool[Tensor, "n 2 32 32"]  # pixels that show the first and the second object
    geometry: Geometry

    def __len__(self) -> int:
        return len(self.specs)

    @cached_property
    def edges(self) -> Float[Tensor, "n 1 32 32"]:
        """1 on the contours of the visible objects, 0 elsewhere (`edge_map` of the images)."""
        return edge_map(self.images)

    @cached_property
    def depth(self) -> Float[Tensor, "n 1 32 32"]:
        """1/3 where the object in front (or the only one) is seen, 2/3 the one behind it, 1 the background."""
        return depth_map(self.geometry, self.masks)

    @cached_property
    def keypoints(self) -> Float[Tensor, "n 2 5 2"]:
        """Centre, top, right, bottom, left of each object as (x, y) in pixels; NaN where there is no second object."""
        return keypoints(self.geometry)


def render(specs: Sequence[Scene], generator: torch.Generator | None = None, *, seed: int | None = None) -> Scenes:
    """Draw the given scenes: place, size, brightness and wording vary at random within what the words allow.

    Raises TypeError when an element of `specs` is no `Scene` (turn sentences into scenes with `parse_caption`).
    """
    specs = list(specs)
    for i, spec in enumerate(specs):
        if not isinstance(spec, Scene):
            raise TypeError(f"specs[{i}] must be a Scene, not {type(spec).__name__}; parse_caption(text) makes one")
    rng = as_generator(generator, seed)
    geometry = lay_out(specs, rng)
    images, masks = draw(geometry)
    return Scenes(images, captions(specs, generator=rng), specs, masks, geometry)


def make(n: int, *, generator: torch.Generator | None = None, seed: int | None = None, kind: Kind = "any") -> Scenes:
    """Draw n random scenes of one object (`kind="one"`), two (`"two"`) or either (`"any"`), on the CPU.

    The same seed gives bit-identical scenes. Raises ValueError for a bad n or kind, and unless exactly one of
    `generator` and `seed` is given.
    """
    rng = as_generator(generator, seed)
    return render(random_scenes(n, generator=rng, kind=kind), rng)
