"""Attention from the pixels of a feature map to the tokens of a condition, in the two ways that are in use.

`CrossAttention2d`: pixels ask tokens only (Stable Diffusion). `JointAttention2d`: pixels ask the pixels and the tokens
at once, keys and values of both in one row (GLIDE, unCLIP). In both, padding is hidden by a mask, and `watch` records
who looked where without changing the network.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from course_lib.nn.attention import quick_attention
from course_lib.nn.residual import normalisation, zeroed


def _heads_of(x: Tensor, heads: int, parts: int) -> Tensor:
    """(batch, n, parts · width) to (parts, batch, head, n, width / head)."""
    return rearrange(x, "b n (parts head d) -> parts b head n d", parts=parts, head=heads)


def attention_weights(
    q: Float[Tensor, "batch head query dim"],
    k: Float[Tensor, "batch head key dim"],
    mask: Bool[Tensor, "..."] | None = None,
) -> Float[Tensor, "batch head query key"]:
    """softmax(q kᵀ / √dim): each row sums to 1, and is 0 where `mask` is False."""
    scores = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    return scores.softmax(dim=-1)


class AsksTokens(nn.Module):
    """A layer whose `weights(*inputs)` say how much each position looks at each token; `watch` records them."""

    @abstractmethod
    def weights(self, *inputs: Tensor) -> Float[Tensor, "batch head query key"]:
        """Rows sum to 1."""


class _TokenAttention2d(AsksTokens):
    """What both ways share: norm, queries from the pixels, a projection back that starts at 0, checked arguments."""

    def __init__(self, channels: int, token_dim: int, heads: int, groups: int) -> None:
        super().__init__()
        if heads < 1 or channels % heads:
            raise ValueError(f"heads={heads} must divide channels={channels}")
        self.heads, self.token_dim = heads, token_dim
        self.norm = normalisation(channels, groups)
        self.out = zeroed(nn.Conv2d(channels, channels, 1))

    def _back(self, x: Tensor, found: Tensor) -> Tensor:
        return x + self.out(rearrange(found, "b head (h w) d -> b (head d) h w", h=x.shape[2]))

    def _check(self, x: Tensor, tokens: Tensor, real: Tensor | None) -> None:
        if tokens.ndim != 3 or tokens.shape[0] != len(x) or tokens.shape[2] != self.token_dim:
            raise ValueError(
                f"tokens has shape {tuple(tokens.shape)}; for {len(x)} pictures this layer takes "
                f"({len(x)}, tokens, {self.token_dim})"
            )
        if real is not None and real.shape != tokens.shape[:2]:
            raise ValueError(f"real has shape {tuple(real.shape)}, but there are {tuple(tokens.shape[:2])} tokens")


class CrossAttention2d(_TokenAttention2d):
    """x + attention whose queries come from the pixels, keys and values from the tokens of a condition.

    The output has the shape of x whatever the number of tokens. Raises ValueError for shapes that don't go together.
    Rombach et al. 2022, arXiv:2112.10752, section 3.3.
    """

    def __init__(self, channels: int, token_dim: int, heads: int = 1, groups: int = 32) -> None:
        super().__init__(channels, token_dim, heads, groups)
        self.q = nn.Conv2d(channels, channels, 1)
        self.kv = nn.Linear(token_dim, 2 * channels)

    def _qkv(self, x: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q = _heads_of(self.q(self.norm(x)).flatten(2).transpose(1, 2), self.heads, 1)[0]
        k, v = _heads_of(self.kv(tokens), self.heads, 2)
        return q, k, v

    def weights(self, x: Tensor, tokens: Tensor, real: Tensor | None = None) -> Float[Tensor, "batch head query key"]:
        """How much each pixel (row) looks at each token (column)."""
        q, k, _ = self._qkv(x, tokens)
        return attention_weights(q, k, None if real is None else real[:, None, None, :])

    def forward(
        self,
        x: Float[Tensor, "batch channel height width"],
        tokens: Float[Tensor, "batch tokens dim"],
        real: Bool[Tensor, "batch tokens"] | None = None,
    ) -> Float[Tensor, "batch channel height width"]:
        """Features and tokens to features; `real` is False for padding, which is not looked at."""
        self._check(x, tokens, real)
        q, k, v = self._qkv(x, tokens)
        return self._back(x, quick_attention(q, k, v, None if real is None else real[:, None, None, :]))


class JointAttention2d(_TokenAttention2d):
    """x + attention of the pixels to pixels and tokens at once: the tokens' keys and values are appended.

    Without tokens it is self-attention, with the weights of `SelfAttention2d`. Raises ValueError for shapes that don't
    go together. Nichol et al. 2021 (GLIDE), arXiv:2112.10741, section 3.1.
    """

    def __init__(self, channels: int, token_dim: int, heads: int = 1, groups: int = 32) -> None:
        super().__init__(channels, token_dim, heads, groups)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.kv = nn.Linear(token_dim, 2 * channels)

    def _qkv(self, x: Tensor, tokens: Tensor | None, real: Tensor | None) -> tuple[Tensor | None, ...]:
        q, k, v = _heads_of(self.qkv(self.norm(x)).flatten(2).transpose(1, 2), self.heads, 3)
        if tokens is None:
            return q, k, v, None
        more_k, more_v = _heads_of(self.kv(tokens), self.heads, 2)
        mask = None
        if real is not None:
            pixels = real.new_ones(len(real), k.shape[2])
            mask = torch.cat([pixels, real], dim=1)[:, None, None, :]
        return q, torch.cat([k, more_k], dim=2), torch.cat([v, more_v], dim=2), mask

    def weights(
        self, x: Tensor, tokens: Tensor | None = None, real: Tensor | None = None
    ) -> Float[Tensor, "batch head query key"]:
        """How much each pixel (row) looks at each pixel, then at each token (columns)."""
        q, k, _, mask = self._qkv(x, tokens, real)
        return attention_weights(q, k, mask)

    def forward(
        self,
        x: Float[Tensor, "batch channel height width"],
        tokens: Float[Tensor, "batch tokens dim"] | None = None,
        real: Bool[Tensor, "batch tokens"] | None = None,
    ) -> Float[Tensor, "batch channel height width"]:
        """Features and tokens to features; `real` is False for padding, which is not looked at."""
        if tokens is not None:
            self._check(x, tokens, real)
        q, k, v, mask = self._qkv(x, tokens, real)
        return self._back(x, quick_attention(q, k, v, mask))


class Maps:
    """What `watch` recorded: for each call of the network and each attention layer, in order, the weights."""

    def __init__(self) -> None:
        self.layers: list[str] = []
        self.weights: list[Float[Tensor, "batch head query key"]] = []

    def of_words(
        self, side: int, tokens: int, head: tuple[str, int] | None = None
    ) -> Float[Tensor, "batch tokens side side"]:
        """Maps on side × side pixels of each token, averaged over heads, calls and the layers of that size.

        With a `head` (its layer's name, its number from 0) those of this one alone. A pixel's weights over the tokens
        sum to 1. Raises ValueError where no such layer was recorded.
        """
        found = []
        for name, weights in zip(self.layers, self.weights, strict=True):
            if weights.shape[2] == side**2 and (head is None or head[0] == name):
                heads = slice(None) if head is None else [head[1]]
                of_tokens = weights[:, heads, :, -tokens:].mean(dim=1)  # (batch, pixel, token)
                found.append(of_tokens / of_tokens.sum(dim=2, keepdim=True))
        if not found:
            sizes = sorted({int(weights.shape[2] ** 0.5) for weights in self.weights})
            if head is not None:
                raise ValueError(f"head={head} was not recorded at side={side}; there are: {sorted(set(self.layers))}")
            raise ValueError(f"side={side} was not recorded; there are maps of these sizes: {sizes}")
        return rearrange(torch.stack(found).mean(dim=0), "b (h w) n -> b n h w", h=side)


@contextmanager
def watch(model: nn.Module) -> Iterator[Maps]:
    """Record the weights of every attention to tokens inside `model`, which computes the same numbers as ever."""
    maps = Maps()

    def hook(layer: nn.Module, inputs: tuple, _: Tensor, name: str) -> None:
        with torch.no_grad():
            maps.layers.append(name)
            maps.weights.append(layer.weights(*inputs).float())

    handles = [
        layer.register_forward_hook(lambda layer, inputs, output, name=name: hook(layer, inputs, output, name))
        for name, layer in model.named_modules()
        if isinstance(layer, AsksTokens)
    ]
    try:
        yield maps
    finally:
        for handle in handles:
            handle.remove()
