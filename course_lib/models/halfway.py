"""A U-Net in two halves: what its encoder and middle make of x_t, and what its decoder makes of that.

Every U-Net of the course that a ControlNet can be put on has `encode(x_t, t, cond, hint=None) -> Halfway` and
`decode(halfway) -> prediction`; its forward is one after the other. `hint` is added to the features behind the first
convolution.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Residuals:
    """What a ControlNet adds to a U-Net halfway: a map for each skip, in the order of the encoder, and the middle's."""

    skips: tuple[Float[Tensor, "batch _ _ _"], ...]
    middle: Float[Tensor, "batch _ _ _"]

    def __add__(self, other: Residuals) -> Residuals:
        pairs = zip(self.skips, other.skips, strict=True)
        return Residuals(tuple(a + b for a, b in pairs), self.middle + other.middle)

    def scaled(self, factors: float | int | Sequence[float]) -> Residuals:
        """Each map times one number, or times its own: those of the skips, then the middle's."""
        each = [factors] * (len(self.skips) + 1) if isinstance(factors, float | int) else list(factors)
        *maps, middle = (f * m for f, m in zip(each, (*self.skips, self.middle), strict=True))
        return Residuals(tuple(maps), middle)


@dataclass(frozen=True, eq=False)
class Halfway:
    """What a U-Net's encoder put aside, in order, what its middle made, and what its decoder must know besides."""

    skips: tuple[Float[Tensor, "batch _ _ _"], ...]
    middle: Float[Tensor, "batch _ _ _"]
    told: tuple[Any, ...]  # the embedding of t, tokens, …

    def plus(self, residuals: Residuals) -> Halfway:
        """The same with residuals added. Nothing given is changed."""
        skips = tuple(own + more for own, more in zip(self.skips, residuals.skips, strict=True))
        return replace(self, skips=skips, middle=self.middle + residuals.middle)


@runtime_checkable
class TwoHalves(Protocol):
    """What a U-Net has that a ControlNet can be put on."""

    decoder_parts: ClassVar[tuple[str, ...]]  # names of the modules that only `decode` uses
    skip_channels: list[int]  # of what the encoder puts aside, in order
    middle_channels: int
    hint_channels: int  # of the features behind the first convolution
    patch: int  # how many times smaller these are than x_t, in height and in width
    prediction: str

    def encode(self, x_t: Tensor, t: Tensor, cond: Any, hint: Tensor | None = None) -> Halfway: ...

    def decode(self, halfway: Halfway) -> Tensor: ...
