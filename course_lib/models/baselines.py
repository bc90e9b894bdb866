"""Two small denoisers to compare the U-Net with: two convolutions with a shortcut, and a U-Net of 600,000 weights.

Both are the sources' networks with their faults mended: the first now knows the time, and no size is printed.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from course_lib.nn import SinusoidalTable, TimeMLP, timestep_embedding, unsqueeze_to


class TwoConvResNet(nn.Module):
    """x + two 3×3 convolutions, told the time by one number per channel: what a denoiser can do with nearly nothing.

    With one channel and no time these are 20 numbers to learn. Each pixel sees 5×5 pixels, so no shape.
    """

    prediction = "noise"

    def __init__(self, channels: int = 1, width: int = 1, time_dim: int = 32) -> None:
        super().__init__()
        self.time_dim = time_dim
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, channels, 3, padding=1)
        self.time = nn.Linear(time_dim, width)

    def forward(
        self, x_t: Float[Tensor, "batch channel height width"], t: Int[Tensor, " batch"], cond: None = None
    ) -> Float[Tensor, "batch channel height width"]:
        """Predicted noise, shaped like x_t."""
        h = self.conv1(F.leaky_relu(x_t, 0.3))
        h = h + unsqueeze_to(self.time(timestep_embedding(t, self.time_dim)), h)
        return x_t + self.conv2(F.leaky_relu(h, 0.3))


class LayerNormBlock(nn.Module):
    """LayerNorm over (channel, height, width), then conv, SiLU, conv, SiLU. The norm ties it to one size of picture.

    What a block is `told` is added after the norm: before it, a number added to a picture of one channel would be taken
    away again with the mean.
    """

    def __init__(self, size: int, channels: int, out: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm((channels, size, size))
        self.conv1 = nn.Conv2d(channels, out, 3, padding=1)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1)

    def forward(
        self, x: Float[Tensor, "batch channel size size"], told: Float[Tensor, "batch channel"] | None = None
    ) -> Float[Tensor, "batch out size size"]:
        h = self.norm(x)
        h = h if told is None else h + unsqueeze_to(told, h)
        return F.silu(self.conv2(F.silu(self.conv1(h))))


def _blocks(size: int, *widths: int) -> nn.Sequential:
    """Blocks that lead from each of the widths to the next."""
    return nn.Sequential(*(LayerNormBlock(size, a, b) for a, b in pairwise(widths)))


class MyUNet(nn.Module):
    """A U-Net for 28×28 grey pictures (28 → 14 → 7 → 3 and back) with 10, 20, 40 channels: 606,852 numbers.

    100,000 of them, for T = 1000, are a fixed table of sines. Each level is told the time through its own small MLP.
    (In the source the first of these MLPs has no effect, see LayerNormBlock, and the last norm is built but not used.)
    Raises ValueError for pictures of another size.
    """

    prediction = "noise"

    def __init__(self, T: int = 1000, time_dim: int = 100) -> None:
        super().__init__()
        self.table = SinusoidalTable(T, time_dim)
        # (what it is told through, the blocks), from the picture down and up again
        told = (1, 10, 20, 40, 80, 40, 20)
        self.time = nn.ModuleList(TimeMLP(time_dim, channels) for channels in told)
        self.levels = nn.ModuleList(
            [
                _blocks(28, 1, 10, 10, 10),
                _blocks(14, 10, 20, 20, 20),
                _blocks(7, 20, 40, 40, 40),
                _blocks(3, 40, 20, 20, 40),
                _blocks(7, 80, 40, 20, 20),
                _blocks(14, 40, 20, 10, 10),
                _blocks(28, 20, 10, 10, 10),
            ]
        )
        self.down = nn.ModuleList(
            [
                nn.Conv2d(10, 10, 4, 2, 1),
                nn.Conv2d(20, 20, 4, 2, 1),
                nn.Sequential(nn.Conv2d(40, 40, 2, 1), nn.SiLU(), nn.Conv2d(40, 40, 4, 2, 1)),  # 7 → 6 → 3
            ]
        )
        self.up = nn.ModuleList(
            [
                nn.Sequential(nn.ConvTranspose2d(40, 40, 4, 2, 1), nn.SiLU(), nn.ConvTranspose2d(40, 40, 2, 1)),
                nn.ConvTranspose2d(20, 20, 4, 2, 1),
                nn.ConvTranspose2d(10, 10, 4, 2, 1),
            ]
        )
        self.conv_out = nn.Conv2d(10, 1, 3, padding=1)

    def forward(
        self, x_t: Float[Tensor, "batch 1 height width"], t: Int[Tensor, " batch"], cond: None = None
    ) -> Float[Tensor, "batch 1 height width"]:
        """Predicted noise, shaped like x_t."""
        if x_t.shape[1:] != (1, 28, 28):
            raise ValueError(f"x_t has shape {tuple(x_t.shape)}; MyUNet takes (batch, 1, 28, 28) only")
        rows = self.table(t)
        h, skips = x_t, []
        for k in range(4):
            h = self.down[k - 1](h) if k else h
            h = self._level(k, h, rows)
            skips.append(h)
        h = skips.pop()
        for k in range(4, 7):
            h = torch.cat([skips.pop(), self.up[k - 4](h)], dim=1)
            h = self._level(k, h, rows)
        return self.conv_out(h)

    def _level(self, k: int, h: Tensor, rows: Tensor) -> Tensor:
        first, *others = self.levels[k]
        return nn.Sequential(*others)(first(h, self.time[k](rows)))
