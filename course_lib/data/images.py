"""Small helpers on pictures: padding 28×28 sets to 32×32, moving, and one photograph that is always there."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from course_lib.pixels import from_uint8, to_uint8

__all__ = ["from_uint8", "moved", "pad_to_32", "photograph", "to_uint8"]


def pad_to_32(images: Shaped[Tensor, "*batch 28 28"]) -> Shaped[Tensor, "*batch 32 32"]:
    """Two pixels of background on every side: byte 0 for uint8, −1 for floats. Nothing is resized or rescaled.

    Raises TypeError for another dtype, ValueError for another size.
    """
    if not isinstance(images, Tensor) or not (images.dtype == torch.uint8 or images.is_floating_point()):
        kind = images.dtype if isinstance(images, Tensor) else type(images).__name__
        raise TypeError(f"images must be a tensor of uint8 pixels or of floats in [-1, 1], not {kind}")
    if tuple(images.shape[-2:]) != (28, 28):
        raise ValueError(f"images must end in 28×28 pixels, not in shape {tuple(images.shape[-2:])}")
    return F.pad(images, (2, 2, 2, 2), value=0 if images.dtype == torch.uint8 else -1)


def moved(
    images: Float[Tensor, "n channel height width"], shift: Int[Tensor, "n 2"]
) -> Float[Tensor, "n channel height width"]:
    """Each picture moved by `shift` (down, right) whole pixels; what leaves it is lost, -1 (black) comes in."""
    height, width = images.shape[2:]
    rows = torch.arange(height, device=images.device) - shift[:, 0, None]  # (n, height): where each row comes from
    columns = torch.arange(width, device=images.device) - shift[:, 1, None]
    inside = ((rows >= 0) & (rows < height))[:, None, :, None] & ((columns >= 0) & (columns < width))[:, None, None]
    index = torch.arange(len(images), device=images.device)[:, None, None]
    found = images.permute(0, 2, 3, 1)[
        index, rows.clamp(0, height - 1)[:, :, None], columns.clamp(0, width - 1)[:, None]
    ]
    return torch.where(inside, found.permute(0, 3, 1, 2), -1.0)


def photograph(size: int | None = None) -> Float[Tensor, "1 3 height width"]:
    """The portrait of Grace Hopper that comes with matplotlib (600×512): float32 RGB in [-1, 1], no download.

    With `size`: the largest square in the middle, resized to size×size pixels with antialiasing.
    Raises ValueError unless `size` is a whole number of at least 1.
    """
    if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 1):
        raise ValueError(f"size={size!r} must be a whole number of pixels, at least 1, or None for the full picture")
    import numpy as np
    from matplotlib.cbook import get_sample_data
    from PIL import Image

    with get_sample_data("grace_hopper.jpg") as file, Image.open(file) as picture:
        pixels = torch.from_numpy(np.array(picture.convert("RGB")))
    image = from_uint8(pixels.permute(2, 0, 1)[None].contiguous())
    if size is None:
        return image
    height, width = image.shape[-2:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = image[..., top : top + side, left : left + side]
    return F.interpolate(square, size=(size, size), mode="bilinear", antialias=True, align_corners=False)
