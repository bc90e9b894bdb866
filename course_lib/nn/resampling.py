"""Halving and doubling feature maps: the ways that networks for images use, by name."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class Resize(nn.Module):
    """Resize by a fixed factor without weights; `antialias` averages before it throws pixels away."""

    def __init__(self, factor: float | int, mode: str, antialias: bool = False) -> None:
        super().__init__()
        self.factor, self.mode, self.antialias = factor, mode, antialias

    def forward(self, x: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch channel new_h new_w"]:
        options = {} if self.mode == "nearest" else {"align_corners": False, "antialias": self.antialias}
        return F.interpolate(x, scale_factor=self.factor, mode=self.mode, **options)

    def extra_repr(self) -> str:
        return f"factor={self.factor}, mode={self.mode!r}, antialias={self.antialias}"


DOWN = {
    # learned: 3×3 with stride 2, padded below and at the right only, as DDPM and TensorFlow's SAME do
    "conv": lambda c: nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(c, c, 3, stride=2)),
    "conv4": lambda c: nn.Conv2d(c, c, 4, stride=2, padding=1),  # each pixel is seen equally often
    "max": lambda c: nn.MaxPool2d(2),
    "average": lambda c: nn.AvgPool2d(2),
    "bilinear": lambda c: Resize(0.5, "bilinear", antialias=True),
}
UP = {
    # learned: copy each pixel, then a 3×3 convolution; no checkerboard
    "conv": lambda c: nn.Sequential(Resize(2, "nearest"), nn.Conv2d(c, c, 3, padding=1)),
    "transposed": lambda c: nn.ConvTranspose2d(c, c, 4, stride=2, padding=1),
    "sub_pixel": lambda c: nn.Sequential(nn.Conv2d(c, 4 * c, 3, padding=1), nn.PixelShuffle(2)),
    "nearest": lambda c: Resize(2, "nearest"),
    "bilinear": lambda c: Resize(2, "bilinear"),
    "bicubic": lambda c: Resize(2, "bicubic"),
}


def stamp(
    x: Float[Tensor, "height width"], kernel: Float[Tensor, "k k"], stride: int
) -> Float[Tensor, "new_height new_width"]:
    """Transposed convolution of one map, by hand: every pixel of x stamps x · kernel, `stride` apart; overlaps add."""
    k = len(kernel)
    height, width = x.shape
    out = x.new_zeros((height - 1) * stride + k, (width - 1) * stride + k)
    for i in range(height):
        for j in range(width):
            out[i * stride : i * stride + k, j * stride : j * stride + k] += x[i, j] * kernel
    return out


def _made(table: dict, name: str, channels: int) -> nn.Module:
    if name not in table:
        raise ValueError(f"method={name!r} is not known; use one of: {', '.join(table)}")
    return table[name](channels)


class Downsample(nn.Module):
    """Halve height and width. `method`: "conv" and "conv4" learn; "max", "average" and "bilinear" don't.

    Raises ValueError for an unknown method, and for a feature map whose height or width is odd.
    """

    def __init__(self, channels: int, method: str = "conv") -> None:
        super().__init__()
        self.layer = _made(DOWN, method, channels)

    def forward(
        self, x: Float[Tensor, "batch channel height width"]
    ) -> Float[Tensor, "batch channel half_height half_width"]:
        if x.shape[2] % 2 or x.shape[3] % 2:
            raise ValueError(f"x is {x.shape[2]}×{x.shape[3]}; only an even height and width can be halved")
        return self.layer(x)


class Upsample(nn.Module):
    """Double height and width. `method`: "conv", "transposed" and "sub_pixel" learn; "nearest", … don't.

    Raises ValueError for an unknown method.
    """

    def __init__(self, channels: int, method: str = "conv") -> None:
        super().__init__()
        self.layer = _made(UP, method, channels)

    def forward(
        self, x: Float[Tensor, "batch channel height width"]
    ) -> Float[Tensor, "batch channel twice_height twice_width"]:
        return self.layer(x)
