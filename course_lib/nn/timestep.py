"""Telling a network the time: sinusoidal embeddings of t, tables of them, and the small MLP that follows.

Two conventions are in use, and published weights fit only the one they were trained with:

* `"cos_sin"`: cosines first, frequencies max_period^(-i/half). Dhariwal & Nichol 2021, Stable Diffusion.
* `"sin_cos"`: sines first, frequencies max_period^(-i/(half - 1)). Ho et al. 2020, after the original transformer code.

In both, half = dim // 2, and an odd dim gets one column of zeros.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Literal

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

Convention = Literal["cos_sin", "sin_cos"]
_LAST = {"cos_sin": 0, "sin_cos": 1}  # what is subtracted from half in the denominator of the exponent


def timestep_embedding(
    t: Shaped[Tensor, " batch"],
    dim: int,
    convention: Convention = "cos_sin",
    max_period: float = 10_000.0,
) -> Float[Tensor, "batch dim"]:
    """Sines and cosines of t at dim // 2 frequencies from 1 down to about 1 / max_period; float32.

    `t` may be whole or fractional, and is used as it is: for models trained on 0…T-1 give 0…T-1, not t / T.
    Raises ValueError for an unknown convention or a dim too small for it. Vaswani et al. 2017, section 3.5.
    """
    if convention not in _LAST:
        raise ValueError(f"convention={convention!r} is not known; use one of: {', '.join(_LAST)}")
    half, smallest = dim // 2, 2 * (1 + _LAST[convention])
    if dim < smallest:
        raise ValueError(f"dim={dim} is too small; convention {convention!r} needs at least {smallest}")
    exponents = torch.arange(half, dtype=torch.float32, device=t.device) / (half - _LAST[convention])
    angles = t.float()[:, None] * torch.exp(-math.log(max_period) * exponents)
    parts = (angles.cos(), angles.sin()) if convention == "cos_sin" else (angles.sin(), angles.cos())
    return torch.cat([*parts, angles.new_zeros(len(t), dim % 2)], dim=1)


def sinusoidal_table(length: int, dim: int, max_period: float = 10_000.0) -> Float[Tensor, "length dim"]:
    """The embeddings of 0…length-1 with sines in the even and cosines in the odd columns (exponent 2i / dim).

    The numbers are those of `timestep_embedding(…, "cos_sin")`, columns in another order. Vaswani et al. 2017.
    """
    half = (dim + 1) // 2
    exponents = 2 * torch.arange(half, dtype=torch.float64) / dim
    angles = torch.arange(length, dtype=torch.float64)[:, None] * max_period**-exponents
    table = torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)
    return table[:, :dim].float()


class SinusoidalTable(nn.Module):
    """The embeddings of all T steps, computed once and looked up: a buffer, so stored with the model, never trained."""

    def __init__(self, T: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("table", sinusoidal_table(T, dim))

    def forward(self, t: Int[Tensor, " batch"]) -> Float[Tensor, "batch dim"]:
        """Rows t of the table. IndexError for a t outside 0…T-1."""
        return self.table[t]


class TimeMLP(nn.Sequential):
    """Linear, SiLU, Linear: from the embedding of t (batch, dim_in) to what all blocks are told (batch, dim_out)."""

    def __init__(self, dim_in: int, dim_out: int) -> None:
        super().__init__(nn.Linear(dim_in, dim_out), nn.SiLU(), nn.Linear(dim_out, dim_out))


def unsqueeze_to(embedding: Shaped[Tensor, "batch channel"], features: Shaped[Tensor, "..."]) -> Tensor:
    """`embedding` with axes of length 1 appended until it has as many as `features`, so that the two broadcast."""
    return embedding.reshape(*embedding.shape, *([1] * (features.ndim - embedding.ndim)))


class TimestepBlock(nn.Module):
    """A module whose forward takes the embedding of t as its second argument."""

    @abstractmethod
    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Features (batch, channel, …) and embedding (batch, dim) to features."""


class TimestepSequential(nn.Sequential, TimestepBlock):
    """Layers one after the other; those that take the embedding get it, the others don't."""

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        for layer in self:
            x = layer(x, embedding) if isinstance(layer, TimestepBlock) else layer(x)
        return x
