"""The U-Net under the text-to-image models: residual blocks that know a vector, attention that looks at tokens.

It is laid out as the course's sources lay out their unCLIP decoder. Each level has `blocks` residual blocks on the way
down and as many on the way up; each on the way up gets, beside what comes from below, what its partner gave. Attention
stands after each block of the inner levels (neither the first nor the last), and between the blocks of the bottleneck.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from course_lib.models.halfway import Halfway
from course_lib.nn import Downsample, ResidualBlock, SelfAttention2d, normalisation, zeroed
from course_lib.nn.cross_attention import CrossAttention2d, JointAttention2d
from course_lib.nn.resampling import Resize
from course_lib.nn.residual import Order


@dataclass(frozen=True)
class BodyConfig:
    """What a `Body` is made of."""

    channels: int = 3  # of the picture
    size: int = 32  # height and width of the pictures it is made for
    width: int = 32  # unit of `mults`
    mults: tuple[int, ...] = (1, 2, 4, 8)  # width of each level
    blocks: int = 2  # residual blocks per level, on either way
    attention: tuple[int, ...] | None = None  # levels with attention; None: all but the first and the last
    heads: int = 8
    groups: int = 8
    dropout: float | int = 0.1
    order: Order = "pyramid"
    embedding_dim: int = 128  # of the vector that every block is told
    token_dim: int = 256
    patch: int = 1  # squares of so many pixels become one position before the first convolution
    places: bool = False  # a learned number per position and channel is added first: convolutions hardly know where
    fine: int = 0  # channels of a last touch at full size, which sees x_t again; 0: none

    def __post_init__(self) -> None:
        for name in ("channels", "width", "blocks", "heads", "groups", "patch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        if not self.mults or min(self.mults) < 1:
            raise ValueError(f"mults={self.mults} must hold at least one number, none below 1")
        if self.size % self.unit:
            raise ValueError(f"size={self.size} must be a multiple of {self.unit}: patch · 2^(levels - 1)")
        if any(not 0 <= level < len(self.mults) for level in self.attended):
            raise ValueError(f"attention={self.attention} names levels; there are 0 to {len(self.mults) - 1}")

    @property
    def unit(self) -> int:
        """Height and width must be multiples of it."""
        return self.patch * 2 ** (len(self.mults) - 1)

    @property
    def attended(self) -> tuple[int, ...]:
        """The levels with attention."""
        return tuple(range(1, len(self.mults) - 1)) if self.attention is None else self.attention


class OnBody:
    """What a network around a `Body` shares with every U-Net of two halves: see `models.halfway`."""

    decoder_parts = ("body.decoder", "body.norm_out", "body.conv_out", "body.fine")
    body: Body

    @property
    def skip_channels(self) -> list[int]:
        """Channels of what the encoder puts aside."""
        config = self.body.config
        return [config.width * mult for mult in config.mults for _ in range(config.blocks)]

    @property
    def middle_channels(self) -> int:
        """Channels of the bottleneck."""
        return self.body.config.width * self.body.config.mults[-1]

    @property
    def hint_channels(self) -> int:
        """Channels behind the first convolution."""
        return self.body.config.width * self.body.config.mults[0]

    @property
    def patch(self) -> int:
        """How many times smaller the features are than x_t."""
        return self.body.config.patch

    def decode(self, halfway: Halfway) -> Tensor:
        """The second half: the decoder."""
        return self.body.decode(halfway)


class CrossStage(nn.Module):
    """Pixels ask each other, then they ask the tokens: two layers, as in Stable Diffusion."""

    def __init__(self, channels: int, config: BodyConfig) -> None:
        super().__init__()
        self.pixels = SelfAttention2d(channels, config.heads, config.groups)
        self.words = CrossAttention2d(channels, config.token_dim, config.heads, config.groups)

    def forward(self, x: Tensor, tokens: Tensor, real: Tensor | None) -> Tensor:
        """Features to features of the same shape."""
        return self.words(self.pixels(x), tokens, real)


class Up(nn.Module):
    """Copy each pixel to 2×2, then a convolution that also leads to the next level's width."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.larger, self.conv = Resize(2, "nearest"), nn.Conv2d(channels, out, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, h, w) to (batch, out, 2h, 2w)."""
        return self.conv(self.larger(x))


class FineTouch(nn.Module):
    """From coarse features back to pixels, with a look at x_t: the last convolution of U-ViT (arXiv:2209.12152)."""

    def __init__(self, config: BodyConfig) -> None:
        super().__init__()
        self.first = nn.Conv2d(config.fine + config.channels, config.fine, 3, padding=1)
        self.last = zeroed(nn.Conv2d(config.fine, config.channels, 3, padding=1))

    def forward(self, features: Tensor, x_t: Tensor) -> Tensor:
        """Features and x_t of the same size to a prediction."""
        return self.last(F.silu(self.first(torch.cat([features, x_t], dim=1))))


class Body(nn.Module):
    """x_t, a vector per picture and tokens to a prediction shaped like x_t, which starts at 0.

    `ask`: "joint" appends the tokens to the keys and values of self-attention (unCLIP, GLIDE), "cross" asks them in a
    layer of their own (Stable Diffusion).
    """

    def __init__(self, config: BodyConfig, ask: Literal["joint", "cross"] = "joint") -> None:
        super().__init__()
        self.config = config
        widths = [config.width * mult for mult in config.mults]
        last = len(widths) - 1

        def block(channels: int, out: int) -> ResidualBlock:
            return ResidualBlock(
                channels, out, config.embedding_dim, dropout=config.dropout, scale_shift=True, order=config.order,
                groups=config.groups,
            )  # fmt: skip

        def asking(channels: int) -> nn.Module:
            if ask == "cross":
                return CrossStage(channels, config)
            return JointAttention2d(channels, config.token_dim, config.heads, config.groups)

        pixels = config.channels * config.patch**2
        self.conv_in = nn.Conv2d(pixels, config.width * config.mults[0], 3, padding=1)
        if config.places:
            side = config.size // config.patch
            self.places = nn.Parameter(0.02 * torch.randn(config.width * config.mults[0], side, side))
        self.encoder, self.bottleneck, self.decoder = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        channels = widths[0]
        for level, out in enumerate(widths):
            for _ in range(config.blocks):
                self.encoder.append(block(channels, out))
                channels = out
                if level in config.attended:
                    self.encoder.append(asking(out))
            if level < last:
                self.encoder.append(Downsample(out))
        for k in range(config.blocks):
            self.bottleneck.append(block(channels, channels))
            if k < config.blocks - 1:
                self.bottleneck.append(asking(channels))
        for level in range(last, -1, -1):
            for _ in range(config.blocks):
                self.decoder.append(block(2 * channels, channels))
                if level in config.attended:
                    self.decoder.append(asking(channels))
            if level:
                self.decoder.append(Up(channels, channels := widths[level - 1]))
        self.norm_out = normalisation(channels, config.groups)
        if config.fine:
            self.conv_out = nn.Conv2d(channels, config.fine * config.patch**2, 3, padding=1)
            self.fine = FineTouch(config)
        else:
            self.conv_out = zeroed(nn.Conv2d(channels, pixels, 3, padding=1))

    def layers(self) -> Iterator[tuple[str, nn.Module]]:
        """The layers in order, each with a letter: R residual block, A attention, D halving, U doubling."""
        for part in (self.encoder, self.bottleneck, self.decoder):
            for layer in part:
                yield {ResidualBlock: "R", Downsample: "D", Up: "U"}.get(type(layer), "A"), layer

    def forward(
        self,
        x_t: Float[Tensor, "batch channel height width"],
        embedding: Float[Tensor, "batch dim"],
        tokens: Float[Tensor, "batch tokens token_dim"] | None,
        real: Bool[Tensor, "batch tokens"] | None = None,
    ) -> Float[Tensor, "batch channel height width"]:
        """`real` is False for tokens that are padding. Raises ValueError for other channels or an uneven size."""
        return self.decode(self.encode(x_t, embedding, tokens, real))

    def encode(
        self, x_t: Tensor, embedding: Tensor, tokens: Tensor | None, real: Tensor | None = None,
        hint: Tensor | None = None,
    ) -> Halfway:  # fmt: skip
        """The first half: encoder and bottleneck."""
        unit = self.config.unit
        if x_t.shape[1] != self.config.channels or x_t.shape[2] % unit or x_t.shape[3] % unit:
            raise ValueError(
                f"x_t has shape {tuple(x_t.shape)}; this network takes {self.config.channels} channels, and a height "
                f"and width that are multiples of {unit}"
            )
        if self.config.places and x_t.shape[2:] != (self.config.size, self.config.size):
            raise ValueError(f"x_t has shape {tuple(x_t.shape)}; this network knows {self.config.size}² positions only")
        h = self.conv_in(F.pixel_unshuffle(x_t, self.config.patch))
        h = h + self.places if self.config.places else h
        h = h if hint is None else h + hint
        told, put_aside = (embedding, tokens, real), []
        for layer in self.encoder:
            h = self._run(layer, h, *told)
            if isinstance(layer, ResidualBlock):
                put_aside.append(h)
        for layer in self.bottleneck:
            h = self._run(layer, h, *told)
        return Halfway(tuple(put_aside), h, (*told, x_t))

    def decode(self, halfway: Halfway) -> Tensor:
        """The second half: the decoder."""
        *told, x_t = halfway.told
        h, put_aside = halfway.middle, list(halfway.skips)
        for layer in self.decoder:
            joined = torch.cat([h, put_aside.pop()], dim=1) if isinstance(layer, ResidualBlock) else h
            h = self._run(layer, joined, *told)
        h = F.pixel_shuffle(self.conv_out(F.silu(self.norm_out(h))), self.config.patch)
        return self.fine(h, x_t) if self.config.fine else h

    @staticmethod
    def _run(layer: nn.Module, h: Tensor, embedding: Tensor, tokens: Tensor | None, real: Tensor | None) -> Tensor:
        if isinstance(layer, ResidualBlock):
            return layer(h, embedding)
        return layer(h) if isinstance(layer, Downsample | Up) else layer(h, tokens, real)
