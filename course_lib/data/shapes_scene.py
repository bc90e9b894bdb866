"""What a scene is, in words: the vocabulary, one object, one scene, and how to draw scenes at random.

No pixels here: `shapes_captions` turns a scene into a sentence, `shapes_geometry` into coordinates.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Literal

import torch

from course_lib.data._random import as_generator, integers, uniform

SHAPES = ("circle", "square", "triangle", "cross", "star", "ring")
COLORS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple")
SIZES = ("small", "large")
POSITIONS = ("left", "right", "top", "bottom", "center")
RELATIONS = ("left of", "right of", "above", "below")
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
HELD_OUT = (  # one color for each shape that the course's text models are never trained on
    ("cyan", "circle"), ("yellow", "square"), ("purple", "triangle"), ("orange", "cross"), ("red", "star"),
    ("blue", "ring"),
)  # fmt: skip

Kind = Literal["any", "one", "two"]


def _check(argument: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{argument}={value!r} is not known; use one of: {', '.join(allowed)}")


@dataclass(frozen=True)
class Thing:
    """One object. Raises ValueError for a word outside `SIZES`, `COLORS`, `SHAPES`."""

    size: str
    color: str
    shape: str

    def __post_init__(self) -> None:
        _check("size", self.size, SIZES)
        _check("color", self.color, COLORS)
        _check("shape", self.shape, SHAPES)

    def __str__(self) -> str:
        return f"{self.size} {self.color} {self.shape}"


@dataclass(frozen=True)
class Scene:
    """One object at a position (`place` in `POSITIONS`), or `first` related to `second` (`place` in `RELATIONS`).

    `Scene(a, "left")` shows a at the left; `Scene(a, "left of", b)` shows a to the left of b.
    Raises ValueError when place and number of objects do not go together.
    """

    first: Thing
    place: str
    second: Thing | None = None

    def __post_init__(self) -> None:
        if self.second is None:
            _check("place", self.place, POSITIONS)
        else:
            _check("place", self.place, RELATIONS)

    @property
    def things(self) -> tuple[Thing, ...]:
        """The objects: one or two."""
        return (self.first,) if self.second is None else (self.first, self.second)

    @property
    def canonical(self) -> Scene:
        """The one of all scenes with this meaning that names "left of" or "above": equal for equal meanings."""
        if self.place in ("right of", "below") and self.second is not None:
            return Scene(self.second, OPPOSITE[self.place], self.first)
        return self

    @property
    def held_out(self) -> bool:
        """Whether an object has one of the pairs of color and shape in `HELD_OUT`."""
        return any((thing.color, thing.shape) in HELD_OUT for thing in self.things)


ALL_THINGS = tuple(Thing(size, color, shape) for shape, color, size in product(SHAPES, COLORS, SIZES))


def random_scenes(
    n: int, *, generator: torch.Generator | None = None, seed: int | None = None, kind: Kind = "any"
) -> list[Scene]:
    """Draw n scenes: every word equally likely, one or two objects with equal chance (`kind="any"`).

    The two objects of a random scene always differ in color, so that a sentence without an order of drawing is
    still decidable; a `Scene` written by hand may repeat a color. Raises ValueError for n < 0 or an unknown kind.
    """
    if isinstance(n, bool) or not isinstance(n, int) or n < 0:
        raise ValueError(f"n={n!r} must be a whole number of at least 0")
    _check("kind", kind, ("any", "one", "two"))
    rng = as_generator(generator, seed)
    # Everything is drawn whatever the kind, so that the stream of random numbers has one length per scene.
    two = (uniform(rng, n) < 0.5).tolist() if kind == "any" else [kind == "two"] * n
    shapes, sizes = integers(rng, len(SHAPES), n, 2), integers(rng, len(SIZES), n, 2)
    first_color, step = integers(rng, len(COLORS), n), integers(rng, len(COLORS) - 1, n)
    colors = torch.stack([first_color, (first_color + 1 + step) % len(COLORS)], dim=1)
    thing = ((shapes * len(COLORS) + colors) * len(SIZES) + sizes).tolist()
    position, relation = integers(rng, len(POSITIONS), n).tolist(), integers(rng, len(RELATIONS), n).tolist()
    return [
        Scene(ALL_THINGS[a], RELATIONS[relation[i]], ALL_THINGS[b])
        if two[i]
        else Scene(ALL_THINGS[a], POSITIONS[position[i]])
        for i, (a, b) in enumerate(thing)
    ]
