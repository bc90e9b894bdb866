"""The first U-Net: segmentation of cell images, no padding anywhere.

Ronneberger, Fischer, Brox 2015, arXiv:1505.04597, figure 1. Every 3×3 convolution takes a border of one pixel away, so
the map of classes is smaller than the picture (572 → 388), and each of its pixels was computed from real pixels only.
Large pictures are therefore predicted tile by tile, and the tiles fit together without a seam.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


def output_size(size: int, depth: int = 4) -> int:
    """Side of the map that `UNet2015` gives for a picture of side `size`: size - 12 · 2^depth + 8.

    Raises ValueError unless all maps that are pooled have an even side; the nearest sizes that fit are named.
    """
    side, even = size, True
    for _ in range(depth):
        side -= 4  # two 3×3 convolutions
        even = even and side % 2 == 0
        side //= 2  # pooling
    side -= 4  # the bottom
    for _ in range(depth):
        side = 2 * side - 4  # doubled; two more convolutions
    if not even or side < 1:
        smallest = smallest_size(depth)
        lower = size - (size + 4) % 2**depth
        fits = f"{lower}, {lower + 2**depth} would do" if lower >= smallest else f"the smallest is {smallest}"
        raise ValueError(
            f"size={size} does not fit a network of depth {depth}: each of its {depth} poolings must halve an even "
            f"number, and something must be left; {fits}"
        )
    return side


def smallest_size(depth: int = 4) -> int:
    """Smallest side of a picture that gives at least one pixel; the others lie every 2^depth pixels above it."""
    return 12 * 2**depth - 8 + (4 % 2**depth or 2**depth)


def crop_to(x: Float[Tensor, "batch channel big_h big_w"], size: tuple[int, int]) -> Float[Tensor, "batch channel h w"]:
    """The middle of x, `size` high and wide."""
    top, left = (x.shape[2] - size[0]) // 2, (x.shape[3] - size[1]) // 2
    return x[:, :, top : top + size[0], left : left + size[1]]


def _double_conv(channels: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, out, 3), nn.ReLU(), nn.Conv2d(out, out, 3), nn.ReLU())


class UNet2015(nn.Module):
    """Picture (batch, channels, s, s) to class scores (batch, classes, output_size(s), output_size(s)).

    As published (1 channel, 2 classes, width 64, depth 4): 23 convolutions, 31,030,658 parameters, 1024 channels at the
    bottom. Convolutions start as He et al. 2015 propose, as in section 3. Raises ValueError for sizes that don't fit.
    """

    def __init__(self, channels: int = 1, classes: int = 2, width: int = 64, depth: int = 4) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(depth + 1)]
        self.channels, self.depth = channels, depth
        self.down = nn.ModuleList(_double_conv(a, b) for a, b in zip([channels, *widths], widths, strict=False))
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * w, w, 2, stride=2) for w in reversed(widths[:-1]))
        self.merge = nn.ModuleList(_double_conv(2 * w, w) for w in reversed(widths[:-1]))
        self.head = nn.Conv2d(width, classes, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias)

    def forward(self, x: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch class out_h out_w"]:
        """Scores (logits) of each class at each pixel of the middle of x."""
        for side in x.shape[2:]:
            output_size(side, self.depth)
        skips = []
        for level, convs in enumerate(self.down):
            x = convs(F.max_pool2d(x, 2) if level else x)
            skips.append(x)
        x = skips.pop()
        for up, merge in zip(self.up, self.merge, strict=True):
            x = up(x)
            x = merge(torch.cat([crop_to(skips.pop(), x.shape[2:]), x], dim=1))
        return self.head(x)


@torch.no_grad()
def predict_tiled(
    model: UNet2015, image: Float[Tensor, "batch channel height width"], tile: int
) -> Float[Tensor, "batch class height width"]:
    """Scores for every pixel of an image of any size, tile by tile ("overlap-tile", figure 2 of the paper).

    Beyond the border the image is mirrored. `tile` is the side of the pieces the network sees; the scores are those of
    one pass over the whole mirrored image, as long as the tiles start on multiples of 2^depth, which they do here.
    Raises ValueError for a tile that does not fit, or an image too small to be mirrored that far.
    """
    inside = output_size(tile, model.depth)
    step = inside - inside % 2**model.depth
    if step < 1:
        raise ValueError(f"tile={tile} is too small: it gives {inside} pixels, fewer than 2^depth = {2**model.depth}")
    border = (tile - inside) // 2
    height, width = image.shape[2:]
    rows, columns = -(-height // step), -(-width // step)
    bottom, right = ((n - 1) * step + tile - border - side for n, side in ((rows, height), (columns, width)))
    padded = _mirrored(image, (border, right, border, bottom))
    scores = []
    for i in range(rows):
        line = [
            model(padded[:, :, i * step : i * step + tile, j * step : j * step + tile])[:, :, :step, :step]
            for j in range(columns)
        ]
        scores.append(torch.cat(line, dim=3))
    return torch.cat(scores, dim=2)[:, :, :height, :width]


def _mirrored(image: Tensor, pads: tuple[int, int, int, int]) -> Tensor:
    """`image` continued beyond its border by mirroring, as often as needed. pads: left, right, top, bottom."""
    for axis, (before, after) in ((3, pads[:2]), (2, pads[2:])):
        side = image.shape[axis]
        if side < 2:
            raise ValueError(f"an image of {side} pixel cannot be mirrored; give at least 2×2")
        places = torch.arange(-before, side + after, device=image.device).remainder(2 * (side - 1))
        image = image.index_select(axis, torch.minimum(places, 2 * (side - 1) - places))
    return image
