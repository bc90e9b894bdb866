"""The U-Net of DDPM: what predicts the noise in a picture.

Going down, every level has `blocks` residual blocks and then halves the picture; what each of these layers gives is put
aside. In the middle: block, attention, block. Going up, every level has `blocks + 1` residual blocks, one for each
thing put aside on that level, which it gets beside what comes from below; then the picture is doubled.
Ho, Jain, Abbeel 2020, arXiv:2006.11239, appendix B.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from course_lib.models.halfway import Halfway
from course_lib.nn import (
    Downsample,
    ResidualBlock,
    SelfAttention2d,
    TimeMLP,
    TimestepSequential,
    Upsample,
    normalisation,
    timestep_embedding,
    zeroed,
)
from course_lib.nn.timestep import Convention


@dataclass(frozen=True)
class DDPMUNetConfig:
    """What a `DDPMUNet` is made of. A plain `DDPMUNetConfig()` is the course's own network for 32×32 grey pictures."""

    size: int = 32  # height and width of the pictures it is made for
    channels: int = 1  # of the picture: 1 grey, 3 RGB
    width: int = 64  # channels of the first level
    mults: tuple[int, ...] = (1, 2, 2)  # width of each level, in units of `width`
    blocks: int = 2  # residual blocks per level on the way down
    attention: tuple[int, ...] = (16,)  # sizes of feature maps that get attention after each block
    heads: int = 1
    dropout: float = 0.0
    groups: int = 32  # of GroupNorm
    scale_shift: bool = False  # how blocks are told the time, see ResidualBlock
    order: str = "classic"
    norm: str = "group"
    embedding: Convention = "sin_cos"
    prediction: str = "noise"  # what the output means: "noise", "x_start" or "v"
    recompute: bool = False  # less memory for more time, see ResidualBlock

    def __post_init__(self) -> None:
        halvings = len(self.mults) - 1
        if not self.mults or min(self.mults) < 1 or self.blocks < 1 or self.width < 1:
            raise ValueError(f"mults={self.mults}, blocks={self.blocks}, width={self.width}: all must be at least 1")
        if self.size < 1 or self.size % 2**halvings:
            raise ValueError(
                f"size={self.size} cannot be halved {halvings} times (len(mults) - 1); use a multiple of {2**halvings}"
            )
        sizes = [self.size // 2**level for level in range(halvings + 1)]
        missing = [size for size in self.attention if size not in sizes]
        if missing:
            raise ValueError(
                f"attention={self.attention} asks for sizes that do not occur: {missing}; there are {sizes}"
            )

    def with_(self, **changes: Any) -> DDPMUNetConfig:
        """A copy in which some fields differ."""
        return replace(self, **changes)


CONFIGS = {
    # Ho et al. 2020: 35,746,307 and 113,673,219 parameters
    "cifar10": DDPMUNetConfig(32, 3, 128, (1, 2, 2, 2), dropout=0.1),
    "lsun256": DDPMUNetConfig(256, 3, 128, (1, 1, 2, 2, 4, 4)),
    # the course's own: any laptop trains them
    "grey28": DDPMUNetConfig(28, attention=(7,)),
    "grey32": DDPMUNetConfig(32, attention=(8,)),
    "rgb32": DDPMUNetConfig(32, 3, attention=(8,)),
}


def up_channels(width: int, mults: Sequence[int], blocks: int) -> list[int]:
    """Channels that go into each residual block on the way up, in order: those from below and those put aside."""
    put_aside = [width]
    for level, mult in enumerate(mults):
        put_aside += blocks * [mult * width]
        if level < len(mults) - 1:
            put_aside.append(mult * width)  # the halved picture
    found, below = [], mults[-1] * width
    for mult in reversed(mults):
        for _ in range(blocks + 1):
            found.append(below + put_aside.pop())
            below = mult * width
    return found


class DDPMUNet(nn.Module):
    """The network: (x_t, t, cond) -> prediction, shaped like x_t. Its output starts at 0, its loss near 1.

    Raises ValueError for pictures with other channels, or of a size that cannot be halved often enough.
    """

    decoder_parts = ("up", "norm_out", "conv_out")
    patch = 1

    def __init__(self, config: DDPMUNetConfig = CONFIGS["grey32"]) -> None:
        super().__init__()
        self.config, self.prediction = config, config.prediction
        self.halvings = len(config.mults) - 1
        widths = [config.width * m for m in config.mults]
        time_dim = 4 * config.width
        self.time = TimeMLP(config.width, time_dim)
        self.conv_in = nn.Conv2d(config.channels, config.width, 3, padding=1)

        def stage(channels: int, out: int, size: int) -> TimestepSequential:
            """A residual block, and attention where this size of feature map has it."""
            block = ResidualBlock(
                channels,
                out,
                time_dim,
                dropout=config.dropout,
                scale_shift=config.scale_shift,
                order=config.order,
                norm=config.norm,
                groups=config.groups,
                recompute=config.recompute,
            )
            attention = [SelfAttention2d(out, config.heads, config.groups)] if size in config.attention else []
            return TimestepSequential(block, *attention)

        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        channels, put_aside = config.width, [config.width]  # channels of each skip, as they are pushed
        for level, out in enumerate(widths):
            size = config.size >> level
            for _ in range(config.blocks):
                self.down.append(stage(channels, out, size))
                put_aside.append(channels := out)
            if level < self.halvings:
                self.down.append(TimestepSequential(Downsample(out)))
                put_aside.append(out)

        self.skip_channels, self.middle_channels, self.hint_channels = list(put_aside), channels, config.width
        first, last = (stage(channels, channels, size=0) for _ in range(2))  # size 0: attention stands between them
        self.middle = TimestepSequential(first, SelfAttention2d(channels, config.heads, config.groups), last)

        for level, out in reversed(list(enumerate(widths))):
            size = config.size >> level
            for k in range(config.blocks + 1):
                layers = stage(channels + put_aside.pop(), out, size)
                channels = out
                if level > 0 and k == config.blocks:
                    layers.append(Upsample(out))
                self.up.append(layers)
        self.norm_out = normalisation(channels, config.groups, config.norm)
        self.conv_out = zeroed(nn.Conv2d(channels, config.channels, 3, padding=1))

    def forward(
        self,
        x_t: Float[Tensor, "batch channel height width"],
        t: Shaped[Tensor, " batch"],
        cond: None = None,
    ) -> Float[Tensor, "batch channel height width"]:
        """Predict what `prediction` says from x_t and the step t, 0…T-1, of each picture. It takes no condition."""
        return self.decode(self.encode(x_t, t, cond))

    def encode(self, x_t: Tensor, t: Tensor, cond: None = None, hint: Tensor | None = None) -> Halfway:
        """The first half: on the way down, and the middle."""
        self._check(x_t, cond)
        embedding = self.time(timestep_embedding(t, self.config.width, self.config.embedding).to(x_t.dtype))
        h = self.conv_in(x_t)
        h = h if hint is None else h + hint
        skips = [h]
        for layers in self.down:
            skips.append(h := layers(h, embedding))
        return Halfway(tuple(skips), self.middle(h, embedding), (embedding,))

    def decode(self, halfway: Halfway) -> Tensor:
        """The second half: on the way up."""
        h, skips, (embedding,) = halfway.middle, list(halfway.skips), halfway.told
        for layers in self.up:
            h = layers(torch.cat([h, skips.pop()], dim=1), embedding)
        return self.conv_out(F.silu(self.norm_out(h)))

    def _check(self, x_t: Tensor, cond: object) -> None:
        if cond is not None:
            raise ValueError("this network takes no condition; call it with cond=None")
        unit = 2**self.halvings
        if x_t.shape[1] != self.config.channels or x_t.shape[2] % unit or x_t.shape[3] % unit:
            raise ValueError(
                f"x_t has shape {tuple(x_t.shape)}; this network takes {self.config.channels} channels, and a height "
                f"and width that are multiples of {unit}"
            )
