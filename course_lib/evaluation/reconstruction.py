"""How close a picture is to the one it was made from."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def psnr(
    found: Float[Tensor, "n channel height width"], truth: Float[Tensor, "n channel height width"]
) -> Float[Tensor, " n"]:
    """Peak signal-to-noise ratio of each picture in decibels: 10 log₁₀(range² / mean squared error), range 2.

    Pictures lie in [-1, 1]. Infinite where they are equal; 6 more halve the error. Raises ValueError for other shapes.
    """
    if found.shape != truth.shape:
        raise ValueError(f"found has shape {tuple(found.shape)}, truth {tuple(truth.shape)}; compare like with like")
    error = (found.double() - truth.double()).square().flatten(1).mean(dim=1)
    return (10 * torch.log10(4 / error)).float()
