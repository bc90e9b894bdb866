"""The transformer block: tokens ask each other, then each one thinks for itself."""

from __future__ import annotations

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from course_lib.nn.attention import quick_attention


class QuickGELU(nn.Module):
    """x · sigmoid(1.702 x), near GELU: OpenAI's CLIP has it. Hendrycks & Gimpel 2016, arXiv:1606.08415."""

    def forward(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Elementwise."""
        return x * torch.sigmoid(1.702 * x)


class TransformerBlock(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)): tokens (batch, tokens, width) to tokens of the same shape.

    `dropout` acts on both branches' results, in training mode only. Raises ValueError where `heads` does not divide
    `width`. Vaswani et al. 2017, section 3, with the norms first (Radford et al. 2019).
    """

    def __init__(
        self,
        width: int,
        heads: int,
        mlp_ratio: int = 4,
        dropout: float | int = 0.0,
        bias: bool = True,
        activation: type[nn.Module] = nn.GELU,
    ) -> None:
        super().__init__()
        if heads < 1 or width % heads:
            raise ValueError(f"heads={heads} must divide width={width}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout={dropout} must be at least 0 and below 1")
        self.heads = heads
        self.norm_attention, self.norm_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=bias)
        self.out = nn.Linear(width, width, bias=bias)
        self.mlp = nn.Sequential(
            nn.Linear(width, mlp_ratio * width, bias=bias),
            activation(),
            nn.Linear(mlp_ratio * width, width, bias=bias),
        )
        self.dropout = nn.Dropout(dropout)

    def attend(self, x: Float[Tensor, "batch tokens width"], mask: Bool[Tensor, "..."] | None) -> Tensor:
        """What the tokens tell each other; `mask` is True where a token (row) may look at another (column)."""
        q, k, v = rearrange(self.qkv(x), "b n (three head d) -> three b head n d", three=3, head=self.heads)
        found = quick_attention(q, k, v, mask)
        return self.out(rearrange(found, "b head n d -> b n (head d)"))

    def forward(
        self, x: Float[Tensor, "batch tokens width"], mask: Bool[Tensor, "..."] | None = None
    ) -> Float[Tensor, "batch tokens width"]:
        """Tokens to tokens. `mask` broadcasts to (batch, head, token, token seen): `visible(real)` makes one."""
        x = x + self.dropout(self.attend(self.norm_attention(x), mask))
        return x + self.dropout(self.mlp(self.norm_mlp(x)))


def visible(real: Bool[Tensor, "batch tokens"]) -> Bool[Tensor, "batch 1 1 tokens"]:
    """The mask for `TransformerBlock` that hides padding from every token. `real` is True for real tokens.

    Raises ValueError for a row without a single real token: nothing could be looked at.
    """
    if real.device.type == "cpu" and not torch.all(real.any(dim=1)):
        raise ValueError("real has a row without a single True: a text needs at least one real token")
    return real[:, None, None, :]


def at_end(
    states: Float[Tensor, "batch tokens width"], real: Bool[Tensor, "batch tokens"]
) -> Float[Tensor, "batch width"]:
    """The vector of each text's last real token, however much padding follows. `real` is True for real tokens.

    Counting real tokens needs no number of a token: the highest id, which some codes look for, may be padding.
    """
    ends = real.sum(dim=1) - 1
    return states[torch.arange(len(states), device=states.device), ends]


def patches(images: Float[Tensor, "batch channel height width"], size: int) -> Float[Tensor, "batch patches values"]:
    """Pictures cut into squares of `size` pixels, row by row; each square's values channel by channel, row by row.

    Times a matrix it is what a convolution with kernel and stride `size` gives. Raises ValueError where the squares
    do not fill the picture. Dosovitskiy et al. 2021, arXiv:2010.11929, section 3.1.
    """
    if size < 1 or images.shape[-2] % size or images.shape[-1] % size:
        raise ValueError(f"size={size} must divide the height and the width of {tuple(images.shape[-2:])}")
    return rearrange(images, "b c (h s1) (w s2) -> b (h w) (c s1 s2)", s1=size, s2=size)
