"""A scene as numbers: where each object stands, how big and bright it is, and who is in front.

Coordinates are pixels, x to the right and y down; the pixel in row i, column j has its centre at (x=j, y=i),
so the middle of the 32×32 picture is (15.5, 15.5).
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from jaxtyping import Bool, Float, Int
from torch import Tensor

SIDE = 32
MIDDLE = (SIDE - 1) / 2
REACH = 1.07  # the widest shape (the star) reaches this many radii from its centre
GAP = 1.5  # pixels of background around the object in front: no two colors ever mix in one pixel


@dataclass(frozen=True)
class Geometry:
    """n scenes as numbers; column 1 of an `n 2` field is the second object, meaningless where `present` is False."""

    present: Bool[Tensor, "n 2"]
    shape: Int[Tensor, "n 2"]
    color: Int[Tensor, "n 2"]
    x: Float[Tensor, "n 2"]
    y: Float[Tensor, "n 2"]
    radius: Float[Tensor, "n 2"]
    brightness: Float[Tensor, "n 2"]
    background: Float[Tensor, " n"]
    front: Int[Tensor, " n"]  # 0 or 1: which object hides the other where they overlap

    def __getitem__(self, index: slice | Tensor) -> Geometry:
        return Geometry(**{field.name: getattr(self, field.name)[index] for field in fields(self)})

    def __len__(self) -> int:
        return len(self.background)
