"""The U-Net of Stable Diffusion: residual blocks that know the time, spatial transformers that ask the text.

Twelve blocks down, one in the middle, twelve up, with the published configuration. The first block is a convolution,
and each halving is a block of its own; going up, doubling belongs to the last block of a level. What every block down
gives is put aside for its partner. Rombach et al. 2022, arXiv:2112.10752, section 3.3 and table 15.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from course_lib.models.conditions import TextCondition, check_told
from course_lib.models.halfway import Halfway
from course_lib.models.text_unet import Withheld
from course_lib.nn import ResidualBlock, TimeMLP, Upsample, normalisation, timestep_embedding, zeroed
from course_lib.nn.spatial_transformer import SpatialTransformer


@dataclass(frozen=True)
class LatentUNetConfig:
    """What a `LatentUNet` is made of. A plain `LatentUNetConfig()` is the course's own, for latents of 4×8×8."""

    size: int = 8  # height and width of the latents it is made for
    channels: int = 4  # of the latents
    more_channels: int = 0  # of a map given beside x_t, see `Concatenated`
    width: int = 64
    mults: tuple[int, ...] = (1, 2)  # width of each level, in units of `width`
    blocks: int = 1  # residual blocks per level on the way down; one more on the way up
    attention: tuple[int, ...] = (0, 1)  # levels with spatial transformers; the middle always has one
    heads: int = 4
    depth: int = 1  # layers in each spatial transformer
    context_width: int | None = 128  # of the text's tokens; None: it is told nothing
    text_dim: int = 128  # of the sentence's embedding, which joins that of time; 0: the tokens are all there is
    withheld: Literal["learned", "empty"] = "learned"  # what stands where no prompt is given: see `tell`
    groups: int = 16
    eps: float = 1e-6  # of the norms, except in the transformers
    places: bool = True  # a learned number per position and channel is added first
    prediction: Literal["noise", "v"] = "v"

    def __post_init__(self) -> None:
        for name in ("channels", "width", "blocks", "heads", "depth", "groups"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        if not self.mults or min(self.mults) < 1:
            raise ValueError(f"mults={self.mults} must hold at least one number, none below 1")
        if self.size % self.unit:
            raise ValueError(f"size={self.size} must be a multiple of {self.unit}: 2^(levels - 1)")
        if any(not 0 <= level < len(self.mults) for level in self.attention):
            raise ValueError(f"attention={self.attention} names levels; there are 0 to {len(self.mults) - 1}")
        if self.withheld not in ("learned", "empty") or self.prediction not in ("noise", "v"):
            raise ValueError(
                f"withheld={self.withheld!r} must be 'learned' or 'empty', prediction={self.prediction!r} "
                "'noise' or 'v'"
            )

    @property
    def unit(self) -> int:
        """Height and width must be multiples of it."""
        return 2 ** (len(self.mults) - 1)

    @classmethod
    def stable_diffusion_v1(cls) -> LatentUNetConfig:
        """The published one of Stable Diffusion 1, for latents of 4×64×64: 859,520,964 parameters."""
        return cls(
            64, 4, 0, 320, (1, 2, 4, 4), blocks=2, attention=(0, 1, 2), heads=8, context_width=768, text_dim=0,
            withheld="empty", groups=32, eps=1e-5, places=False, prediction="noise",
        )  # fmt: skip

    def with_(self, **changes: Any) -> LatentUNetConfig:
        """A copy in which some fields differ."""
        return replace(self, **changes)


class Routed(nn.Sequential):
    """Layers one after the other: residual blocks get the time, spatial transformers the text, others neither."""

    def forward(
        self,
        x: Float[Tensor, "batch channel height width"],
        embedding: Float[Tensor, "batch dim"],
        context: Float[Tensor, "batch tokens context_width"] | None,
        real: Bool[Tensor, "batch tokens"] | None,
    ) -> Float[Tensor, "batch out tall wide"]:
        """Features through all layers."""
        for layer in self:
            if isinstance(layer, ResidualBlock):
                x = layer(x, embedding)
            elif isinstance(layer, SpatialTransformer):
                x = layer(x, context, real)
            else:
                x = layer(x)
        return x


class LatentUNet(nn.Module):
    """(x_t, t, TextCondition) -> predicted noise, or v, of latents. Its output starts at 0.

    Raises TypeError for a condition that is no `TextCondition`, ValueError for one that doesn't fit the network.
    """

    decoder_parts = ("decoder", "norm_out", "conv_out")
    patch = 1

    def __init__(self, config: LatentUNetConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or LatentUNetConfig()
        self.prediction, time_dim = config.prediction, 4 * config.width
        widths = [config.width * mult for mult in config.mults]
        self.time = TimeMLP(config.width, time_dim)
        if config.text_dim:
            self.sentence, self.no_sentence = nn.Linear(config.text_dim, time_dim), Withheld(config.text_dim)
        if config.context_width is not None and config.withheld == "learned":
            self.no_token = Withheld(config.context_width)
        if config.places:
            self.places = nn.Parameter(0.02 * torch.randn(config.width, config.size, config.size))

        def residual(channels: int, out: int) -> ResidualBlock:
            return ResidualBlock(channels, out, time_dim, groups=config.groups, eps=config.eps)

        def transformer(channels: int) -> SpatialTransformer:
            return SpatialTransformer(channels, config.context_width, config.heads, config.depth, config.groups)

        def stage(channels: int, out: int, level: int) -> Routed:
            return Routed(residual(channels, out), *([transformer(out)] if level in config.attention else []))

        first = nn.Conv2d(config.channels + config.more_channels, config.width, 3, padding=1)
        self.encoder, self.decoder = nn.ModuleList([Routed(first)]), nn.ModuleList()
        channels, put_aside = config.width, [config.width]
        for level, out in enumerate(widths):
            for _ in range(config.blocks):
                self.encoder.append(stage(channels, out, level))
                put_aside.append(channels := out)
            if level < len(widths) - 1:
                self.encoder.append(Routed(nn.Conv2d(out, out, 3, stride=2, padding=1)))
                put_aside.append(out)
        self.skip_channels, self.middle_channels, self.hint_channels = list(put_aside), channels, config.width
        self.middle = Routed(residual(channels, channels), transformer(channels), residual(channels, channels))
        for level, out in reversed(list(enumerate(widths))):
            for k in range(config.blocks + 1):
                block = stage(channels + put_aside.pop(), out, level)
                channels = out
                if level > 0 and k == config.blocks:
                    block.append(Upsample(out))
                self.decoder.append(block)
        self.norm_out = normalisation(channels, config.groups, eps=config.eps)
        self.conv_out = zeroed(nn.Conv2d(channels, config.channels, 3, padding=1))

    def forward(
        self, x_t: Float[Tensor, "batch channel height width"], t: Int[Tensor, " batch"], cond: Any
    ) -> Float[Tensor, "batch out height width"]:
        """Predict the noise (or v) of latents x_t at steps t, 0…T-1, given one sentence for each."""
        return self.decode(self.encode(x_t, t, cond))

    def tell(self, cond: TextCondition | None, embedding: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Embedding, tokens and their mask. A withheld sentence becomes one learned token.

        With `withheld="empty"` there is none, as in Stable Diffusion: there the empty sentence is encoded like any.
        """
        config = self.config
        if config.context_width is None:
            if cond is not None:
                raise ValueError("this network is told nothing; call it with cond=None")
            return embedding, None, None
        check_told(cond, TextCondition, len(embedding))
        widths = (cond.tokens.shape[-1] if cond.tokens.ndim == 3 else 0, cond.embedding.shape[-1])
        if widths[0] != config.context_width or (config.text_dim and widths[1] != config.text_dim):
            raise ValueError(
                f"cond has tokens of width {widths[0]} and embeddings of width {widths[1]}; this network reads "
                f"{config.context_width} and {config.text_dim}: give it the text encoder it was trained with"
            )
        if config.text_dim:  # an embedding of length 1 has tiny numbers
            vector = self.no_sentence.vector(config.text_dim**0.5 * cond.embedding, cond.keep)
            embedding = embedding + self.sentence(vector)
        if config.withheld == "learned":
            return embedding, *self.no_token.tokens(cond.tokens, cond.real, cond.keep)
        if not cond.keep.is_meta and not cond.keep.all():  # on the meta device there is nothing to look at
            raise ValueError("cond withholds sentences, but this network was trained with empty ones: encode [''] * n")
        return embedding, cond.tokens, cond.real

    def encode(self, x_t: Tensor, t: Tensor, cond: Any, hint: Tensor | None = None) -> Halfway:
        """The first half: the blocks down, and the middle."""
        self._check(x_t)
        time = self.time(timestep_embedding(t, self.config.width).to(x_t.dtype))
        told = self.tell(cond, time)
        first, *others = self.encoder
        h = first(x_t, *told)
        h = h + self.places if self.config.places else h
        h = h if hint is None else h + hint
        skips = [h]
        for block in others:
            skips.append(h := block(h, *told))
        return Halfway(tuple(skips), self.middle(h, *told), told)

    def decode(self, halfway: Halfway) -> Tensor:
        """The second half: the blocks up."""
        h, skips = halfway.middle, list(halfway.skips)
        for block in self.decoder:
            h = block(torch.cat([h, skips.pop()], dim=1), *halfway.told)
        return self.conv_out(F.silu(self.norm_out(h)))

    def _check(self, x_t: Tensor) -> None:
        config, wanted = self.config, self.config.channels + self.config.more_channels
        if x_t.shape[1] != wanted or x_t.shape[2] % config.unit or x_t.shape[3] % config.unit:
            raise ValueError(
                f"x_t has shape {tuple(x_t.shape)}; this network takes {wanted} channels, and a height and width that "
                f"are multiples of {config.unit}"
            )
        if config.places and x_t.shape[2:] != (config.size, config.size):
            raise ValueError(f"x_t has shape {tuple(x_t.shape)}; this network knows {config.size}² positions only")


class Concatenated(nn.Module):
    """A U-Net with `more_channels`, and the map that it sees beside every x_t: a layout, a picture to continue.

    The other way to condition, for what has the shape of a picture (Rombach et al. 2022, section 3.3); Stable
    Diffusion's inpainting model sees a mask and the masked picture so. Raises ValueError for a map that doesn't fit.
    """

    def __init__(self, model: LatentUNet, maps: Float[Tensor, "batch more height width"]) -> None:
        super().__init__()
        if maps.ndim != 4 or maps.shape[1] != model.config.more_channels:
            raise ValueError(
                f"maps has shape {tuple(maps.shape)}; this network takes {model.config.more_channels} more channels"
            )
        self.model, self.maps, self.prediction = model, maps, model.prediction

    def forward(self, x_t: Tensor, t: Tensor, cond: Any) -> Tensor:
        """The prediction for x_t alone."""
        return self.model(torch.cat([x_t, self.maps.to(x_t)], dim=1), t, cond)
