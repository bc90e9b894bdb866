"""The block of Stable Diffusion in which pixels ask each other, then ask the words, then think.

A feature map becomes a sequence of pixels, passes through transformer layers (self-attention, cross-attention to the
tokens of a condition, a gated network), and is added to what it was. Rombach et al. 2022, arXiv:2112.10752, appendix
E.2.1; layers and sizes are those of the published Stable Diffusion 1.
"""

from __future__ import annotations

import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from course_lib.nn.attention import quick_attention
from course_lib.nn.cross_attention import AsksTokens, attention_weights
from course_lib.nn.residual import normalisation, zeroed


class SequenceAttention(nn.Module):
    """Queries from x, keys and values from `context`, or from x itself: (batch, n, width) to the same shape.

    Queries, keys and values have no bias. Raises ValueError where `heads` does not divide `width`.
    """

    def __init__(self, width: int, context_width: int, heads: int) -> None:
        super().__init__()
        if heads < 1 or width % heads:
            raise ValueError(f"heads={heads} must divide width={width}")
        self.heads = heads
        self.q = nn.Linear(width, width, bias=False)
        self.k = nn.Linear(context_width, width, bias=False)
        self.v = nn.Linear(context_width, width, bias=False)
        self.out = nn.Linear(width, width)

    def _split(self, x: Tensor) -> Tensor:
        return rearrange(x, "b n (head d) -> b head n d", head=self.heads)

    def attend(self, x: Tensor, context: Tensor, real: Tensor | None) -> Tensor:
        """What x finds in `context`, where `real` is True."""
        q, k, v = self._split(self.q(x)), self._split(self.k(context)), self._split(self.v(context))
        found = quick_attention(q, k, v, None if real is None else real[:, None, None, :])
        return self.out(rearrange(found, "b head n d -> b n (head d)"))

    def forward(self, x: Float[Tensor, "batch n width"]) -> Float[Tensor, "batch n width"]:
        """Self-attention."""
        return self.attend(x, x, None)


class SequenceCrossAttention(SequenceAttention, AsksTokens):
    """The same, asking the tokens of a condition: pixels are the queries, words the keys and values."""

    def forward(
        self,
        x: Float[Tensor, "batch n width"],
        context: Float[Tensor, "batch tokens context_width"],
        real: Bool[Tensor, "batch tokens"] | None = None,
    ) -> Float[Tensor, "batch n width"]:
        """Pixels to pixels; `real` is False for tokens that are padding."""
        return self.attend(x, context, real)

    def weights(self, x: Tensor, context: Tensor, real: Tensor | None = None) -> Float[Tensor, "batch head n tokens"]:
        """How much each pixel (row) looks at each token (column)."""
        mask = None if real is None else real[:, None, None, :]
        return attention_weights(self._split(self.q(x)), self._split(self.k(context)), mask)


class GEGLU(nn.Module):
    """value · GELU(gate), both linear in x: it decides what to let through. Shazeer 2020, arXiv:2002.05202."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.both = nn.Linear(width, 2 * out)

    def forward(self, x: Float[Tensor, "batch n width"]) -> Float[Tensor, "batch n out"]:
        """(batch, n, width) to (batch, n, out)."""
        value, gate = self.both(x).chunk(2, dim=-1)
        return value * F.gelu(gate)


class TransformerLayer(nn.Module):
    """x + self-attention, then + cross-attention, then + a gated network of four times the width; norms come first.

    `context_width=None` makes a layer without cross-attention, for models that are told nothing.
    """

    def __init__(self, width: int, context_width: int | None, heads: int) -> None:
        super().__init__()
        self.norm_pixels, self.pixels = nn.LayerNorm(width), SequenceAttention(width, width, heads)
        if context_width is not None:
            self.norm_words, self.words = nn.LayerNorm(width), SequenceCrossAttention(width, context_width, heads)
        self.asks = context_width is not None
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp = nn.Sequential(GEGLU(width, 4 * width), nn.Linear(4 * width, width))

    def forward(self, x: Tensor, context: Tensor | None, real: Tensor | None) -> Tensor:
        """(batch, n, width) to the same shape."""
        x = x + self.pixels(self.norm_pixels(x))
        if self.asks:
            x = x + self.words(self.norm_words(x), context, real)
        return x + self.mlp(self.norm_mlp(x))


class SpatialTransformer(nn.Module):
    """x + transformer layers over its pixels, which ask the tokens of a condition; starts as no change at all.

    The output has the shape of x whatever the number of tokens. Raises ValueError for tokens that don't fit.
    """

    def __init__(self, channels: int, context_width: int | None, heads: int, depth: int = 1, groups: int = 32) -> None:
        super().__init__()
        self.context_width = context_width
        self.norm = normalisation(channels, groups)
        self.proj_in = nn.Conv2d(channels, channels, 1)
        self.layers = nn.ModuleList(TransformerLayer(channels, context_width, heads) for _ in range(depth))
        self.proj_out = zeroed(nn.Conv2d(channels, channels, 1))

    def forward(
        self,
        x: Float[Tensor, "batch channel height width"],
        context: Float[Tensor, "batch tokens context_width"] | None = None,
        real: Bool[Tensor, "batch tokens"] | None = None,
    ) -> Float[Tensor, "batch channel height width"]:
        """Features and tokens to features; `real` is False for padding."""
        if self.context_width is not None and (
            context is None or context.ndim != 3 or context.shape[::2] != (len(x), self.context_width)
        ):
            given = None if context is None else tuple(context.shape)
            raise ValueError(f"context has shape {given}; it needs ({len(x)}, tokens, {self.context_width})")
        h = rearrange(self.proj_in(self.norm(x)), "b c h w -> b (h w) c")
        for layer in self.layers:
            h = layer(h, context, real)
        return x + self.proj_out(rearrange(h, "b (h w) c -> b c h w", h=x.shape[2]))
