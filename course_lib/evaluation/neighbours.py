"""Is it new? The nearest training picture of each sample, beside what is usual for pictures never trained on."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from course_lib.pixels import to_uint8


class Neighbours(NamedTuple):
    """For each picture, where its nearest one stands in the training set, and how far away it is."""

    index: Int[Tensor, " n"]
    distance: Float[Tensor, " n"]  # root mean squared difference per value, in the units of [-1, 1]


def nearest(
    images: Float[Tensor, "n channel height width"], train: UInt8[Tensor, "m channel height width"], block: int = 5_000
) -> Neighbours:
    """The nearest of the training pictures (bytes) to each image in [-1, 1], by squared difference over all values."""
    x = to_uint8(images).flatten(1).float()
    best = torch.full((len(x),), torch.inf)
    index = torch.zeros(len(x), dtype=torch.long)
    for first in range(0, len(train), block):
        y = train[first : first + block].flatten(1).float()
        squared = x.square().sum(1, keepdim=True) - 2 * x @ y.T + y.square().sum(1)
        value, place = squared.min(dim=1)
        index = torch.where(value < best, place + first, index)
        best = torch.minimum(value, best)
    # The difference of two large sums is not exact: measure the winner once more.
    gaps = (x - train[index].flatten(1).float()).square().mean(dim=1).sqrt()
    return Neighbours(index, gaps / 127.5)
