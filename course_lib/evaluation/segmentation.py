"""How well classes of pixels are found: the overlap of what was predicted with what is there."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor


def class_iou(
    predicted: Int[Tensor, "*shape"], truth: Int[Tensor, "*shape"], classes: int
) -> Float[Tensor, " classes"]:
    """Intersection over union of each class, over all pixels together: 1 is perfect, 0 is no overlap at all.

    NaN for a class that neither side has. Raises ValueError for a class outside 0…classes-1.
    """
    for name, values in (("predicted", predicted), ("truth", truth)):
        if values.numel() and (values.min() < 0 or values.max() >= classes):
            found = f"{values.min().item()}…{values.max().item()}"
            raise ValueError(f"{name} holds classes {found}; with classes={classes} they must lie in 0…{classes - 1}")
    table = torch.bincount((truth * classes + predicted).flatten(), minlength=classes**2).reshape(classes, classes)
    both = table.diagonal().double()
    return both / (table.sum(0) + table.sum(1) - both)
