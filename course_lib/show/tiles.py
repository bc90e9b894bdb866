"""Images laid out on one canvas, pixel for pixel: every image shown, none stretched."""

from __future__ import annotations

import math

import torch
from einops import rearrange, repeat
from jaxtyping import Float, UInt8
from torch import Tensor

from course_lib.pixels import to_uint8

GAP = 2  # screen pixels between images
PAPER, LINE = 255, 224  # white where there is no image; a pale line between images, so that white ones have an edge


def tile(
    images: Float[Tensor, "n channel height width"], columns: int | None = None, scale: int = 1
) -> UInt8[Tensor, "rows cols 3"]:
    """All n images in one RGB picture of bytes, row by row, each pixel drawn as a square of `scale` screen pixels.

    images: float in [-1, 1], 1 channel (grey) or 3 (RGB); values outside are shown as black or white.
    columns: default makes the sheet about square. The last row is filled up with white paper.
    Raises ValueError for any other shape, an empty batch, or columns or scale below 1.
    """
    check_images(images)
    columns = default_columns(len(images)) if columns is None else columns
    if columns < 1 or scale < 1:
        raise ValueError(f"columns and scale must be at least 1, got columns={columns}, scale={scale}")
    n, channels = images.shape[:2]
    rows = math.ceil(n / columns)
    cells = to_uint8(images.detach().cpu())
    if channels == 1:
        cells = repeat(cells, "n 1 h w -> n 3 h w")
    cells = repeat(cells, "n c h w -> n c (h s1) (w s2)", s1=scale, s2=scale)
    cells = torch.nn.functional.pad(cells, (0, GAP, 0, GAP), value=LINE)
    blank = torch.full((rows * columns - n, *cells.shape[1:]), PAPER, dtype=torch.uint8)
    sheet = rearrange(torch.cat([cells, blank]), "(r q) c h w -> (r h) (q w) c", q=columns)
    return sheet[:-GAP, :-GAP].contiguous()


def default_columns(n: int) -> int:
    """Columns of a sheet of n images that is about square, a little wider than high."""
    return math.ceil(math.sqrt(n))


def check_images(images: Tensor) -> None:
    """Raise ValueError or TypeError unless `images` is a float batch (n ≥ 1, 1 or 3 channels, height, width)."""
    if not isinstance(images, Tensor):
        raise TypeError(f"images must be a tensor (n, channel, height, width), got {type(images).__name__}")
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(
            f"images must have shape (n, 1 or 3, height, width), got {tuple(images.shape)}; "
            "a single image needs a batch axis: image[None]"
        )
    if images.numel() == 0:
        raise ValueError("images is empty: there is nothing to show")
