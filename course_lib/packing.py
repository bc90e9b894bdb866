"""Weights in eight bits: whole numbers from -127 to 127, times one float per row. A quarter of float32's size.

What is packed is what is shipped, and every number on a card was measured after unpacking.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

LARGEST = 127
SCALE = ".row_scale"
SMALLEST = 1024  # tensors with fewer numbers, and vectors, are left as they are


def pack(tensors: Mapping[str, Tensor], exact: Collection[str] = (), largest: int = LARGEST) -> dict[str, Tensor]:
    """Each large float tensor as int8 plus its rows' scales under its name + `SCALE`; others unchanged, as are `exact`.

    `largest`: 127 uses all of eight bits; 31 says nearly the same in six, and `squeezing` then saves two. Raises
    ValueError for numbers that are not finite, a name in `exact` that no tensor has, and a `largest` outside 1 to 127.
    """
    if not 1 <= largest <= LARGEST:
        raise ValueError(f"largest={largest} must lie between 1 and {LARGEST}")
    if unknown := sorted(set(exact) - set(tensors)):
        raise ValueError(f"exact names tensors that are not there: {', '.join(unknown)}; use names of the given ones")
    packed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name in exact or not tensor.is_floating_point() or tensor.ndim < 2 or tensor.numel() < SMALLEST:
            packed[name] = tensor
            continue
        rows = tensor.detach().float().flatten(1)
        if not torch.isfinite(rows).all():
            raise ValueError(f"tensors[{name!r}] holds numbers that are not finite; they cannot be packed")
        longest = rows.abs().amax(dim=1)
        scale = (longest / largest).half()  # as it is stored; one step up where rounding would cut the largest number
        short = scale.float() * largest < longest
        scale = torch.where(short, scale.view(torch.int16) + 1, scale.view(torch.int16)).view(torch.half)
        scale = scale.float().clamp(min=2.0**-24)
        packed[name] = (rows / scale[:, None]).round().clamp(-largest, largest).to(torch.int8).reshape(tensor.shape)
        packed[name + SCALE] = scale
    return packed


def unpack(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `pack`, up to rounding (half a scale per number); float32 where something was packed."""
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name.endswith(SCALE):
            continue
        scale = tensors.get(name + SCALE)
        if scale is None:
            found[name] = tensor
        else:
            found[name] = (tensor.flatten(1).float() * scale.float()[:, None]).reshape(tensor.shape)
    return found
