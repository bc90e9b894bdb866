"""The one pair of functions between the numbers a model sees and the bytes people look at.

A model sees float32 in [-1, 1]; a picture is bytes 0…255. Nothing else in the course rescales images.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, UInt8
from torch import Tensor


def from_uint8(pixels: UInt8[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Bytes 0…255 to float32 in [-1, 1]: 0 becomes -1 exactly, 255 becomes 1 exactly.

    Raises TypeError for anything but uint8: floats may already be scaled, and scaling twice is a silent bug.
    """
    if not isinstance(pixels, Tensor) or pixels.dtype != torch.uint8:
        kind = pixels.dtype if isinstance(pixels, Tensor) else type(pixels).__name__
        raise TypeError(f"pixels must be a uint8 tensor (0…255), got {kind}; images in [-1, 1] need no conversion")
    return pixels.to(torch.float32) / 127.5 - 1


def to_uint8(images: Float[Tensor, "..."]) -> UInt8[Tensor, "..."]:
    """Images in [-1, 1] to bytes 0…255, rounded to the nearest; the exact inverse of `from_uint8`.

    Values outside [-1, 1] (noisy images have them) are shown as black or white. The range is fixed: an image
    is never stretched to its own minimum and maximum, which would make weak noise and strong noise look alike.
    Raises TypeError for integers and ValueError for NaN.
    """
    if not isinstance(images, Tensor) or not images.is_floating_point():
        kind = images.dtype if isinstance(images, Tensor) else type(images).__name__
        raise TypeError(f"images must be a float tensor in [-1, 1], got {kind}; bytes need no conversion")
    if torch.isnan(images).any():
        raise ValueError("images contain NaN: look for 0/0 or an overflow before drawing them")
    return ((images.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
