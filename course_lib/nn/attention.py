"""Attention, and self-attention between the pixels of a feature map."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from course_lib.nn.residual import normalisation, zeroed


def attention(
    q: Float[Tensor, "... query dim"],
    k: Float[Tensor, "... key dim"],
    v: Float[Tensor, "... key value"],
    mask: Bool[Tensor, "..."] | None = None,
) -> Float[Tensor, "... query value"]:
    """softmax(q kᵀ / √dim) v, written out. PyTorch's scaled_dot_product_attention gives the same with less memory.

    `mask`, which broadcasts to (..., query, key), is True where a query may look at a key.
    """
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    return scores.softmax(dim=-1) @ v


def quick_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """`attention` by the quicker of two ways: PyTorch's, but by hand where a CPU trains in bfloat16.

    There the gradient of PyTorch's takes five times as long (256 × 2 heads × 64 tokens: 224 ms against 47 ms).
    """
    if q.device.type == "cpu" and q.dtype == torch.bfloat16 and q.requires_grad:
        return attention(q, k, v, mask)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


class SelfAttention2d(nn.Module):
    """x + attention over all height · width positions: each pixel asks every other one.

    A 1×1 convolution gives queries, keys and values; softmax(q·k / √d) weighs the values; another 1×1 convolution,
    which starts at 0, leads back. Knows no positions: permuting the pixels permutes the result.
    Raises ValueError where `heads` does not divide `channels`. Vaswani et al. 2017, equation 1; Ho et al. 2020, app. B.
    """

    def __init__(self, channels: int, heads: int = 1, groups: int = 32) -> None:
        super().__init__()
        if heads < 1 or channels % heads:
            raise ValueError(f"heads={heads} must divide channels={channels}")
        self.heads = heads
        self.norm = normalisation(channels, groups)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = zeroed(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch channel height width"]:
        """Features to features of the same shape."""
        q, k, v = rearrange(
            self.qkv(self.norm(x)), "b (three head d) h w -> three b head (h w) d", three=3, head=self.heads
        )
        found = F.scaled_dot_product_attention(q, k, v)
        return x + self.out(rearrange(found, "b head (h w) d -> b (head d) h w", h=x.shape[2]))
