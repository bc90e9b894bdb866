"""The residual block of diffusion U-Nets, and its normalisation."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from course_lib.nn.norm import GroupNorm
from course_lib.nn.timestep import TimestepBlock, unsqueeze_to

Order = Literal["classic", "pyramid"]
Norm = Literal["group", "batch"]


def zeroed(module: nn.Module) -> nn.Module:
    """`module` with all its parameters set to 0, so that a branch which ends in it starts as no change at all."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


def normalisation(channels: int, groups: int = 32, kind: Norm = "group", eps: float = 1e-6) -> nn.Module:
    """GroupNorm, whose result for one image does not depend on the others in the batch; or BatchNorm, whose does.

    Raises ValueError where `groups` does not divide `channels`. Wu & He 2018, arXiv:1803.08494.
    """
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    if kind != "group":
        raise ValueError(f"norm={kind!r} is not known; use 'group' or 'batch'")
    if channels % groups:
        fits = [g for g in range(1, channels + 1) if channels % g == 0]
        raise ValueError(
            f"channels={channels} cannot be divided into groups={groups}; use a width that is a multiple of {groups}, "
            f"or one of these numbers of groups: {', '.join(map(str, fits))}"
        )
    return GroupNorm(groups, channels, eps=eps)


def group_norm(
    x: Float[Tensor, "batch channel height width"], groups: int, eps: float = 1e-6
) -> Float[Tensor, "batch channel height width"]:
    """The heart of GroupNorm: every group of channels of every picture gets mean 0 and variance 1."""
    parts = x.reshape(len(x), groups, -1)  # (batch, group, everything in the group)
    mean = parts.mean(dim=2, keepdim=True)
    variance = ((parts - mean) ** 2).mean(dim=2, keepdim=True)
    return ((parts - mean) / torch.sqrt(variance + eps)).reshape(x.shape)


def modulate(
    features: Float[Tensor, "batch channel ..."], told: Float[Tensor, "batch twice_channel"]
) -> Float[Tensor, "batch channel ..."]:
    """Scale-shift: features · (1 + scale) + shift; the first half of `told` is scale, the second shift, per channel."""
    scale, shift = unsqueeze_to(told, features).chunk(2, dim=1)
    return features * (1 + scale) + shift  # 1 + scale: a Linear that gives 0 changes nothing


class ResidualBlock(TimestepBlock):
    """x + convolutions of x that know the time: the block DDPM's U-Net is made of.

    `order`: "classic" (norm, SiLU, conv, time, norm, SiLU, dropout, conv; He et al. 2016 "pre-activation") or
    "pyramid" (norm, conv, time, norm, SiLU, dropout, conv, norm; Han et al. 2017: no first activation, a last norm).
    `scale_shift`: False adds a number per channel from the embedding (Ho et al. 2020); True multiplies by 1 + scale
    and adds shift, after the second norm (Dhariwal & Nichol 2021, "adaptive group normalisation").
    The last layer of the branch starts at 0, so a new block passes x on. Where channels differ, the shortcut is a 1×1
    convolution. `recompute` saves memory: activations are computed again in the backward pass.
    `time_dim=None` makes a block that is told no time, and called with the features alone (autoencoders).
    """

    def __init__(
        self,
        channels: int,
        out_channels: int,
        time_dim: int | None,
        *,
        dropout: float = 0.0,
        scale_shift: bool = False,
        order: Order = "classic",
        norm: Norm = "group",
        groups: int = 32,
        recompute: bool = False,
        eps: float = 1e-6,
    ) -> None:
        super().__init__()
        if order not in ("classic", "pyramid"):
            raise ValueError(f"order={order!r} is not known; use 'classic' or 'pyramid'")
        self.order, self.scale_shift, self.recompute = order, scale_shift, recompute
        self.norm1 = normalisation(channels, groups, norm, eps)
        self.conv1 = nn.Conv2d(channels, out_channels, 3, padding=1)
        if time_dim is not None:
            self.time = nn.Linear(time_dim, out_channels * (2 if scale_shift else 1))
        elif scale_shift:
            raise ValueError("scale_shift=True needs an embedding to take scale and shift from; give a time_dim")
        self.knows_time = time_dim is not None
        self.norm2 = normalisation(out_channels, groups, norm, eps)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.norm3 = normalisation(out_channels, groups, norm, eps) if order == "pyramid" else nn.Identity()
        self.shortcut = nn.Identity() if channels == out_channels else nn.Conv2d(channels, out_channels, 1)
        zeroed(self.norm3 if order == "pyramid" else self.conv2)

    def forward(
        self, x: Float[Tensor, "batch channel height width"], embedding: Float[Tensor, "batch dim"] | None = None
    ) -> Float[Tensor, "batch out height width"]:
        """Features and embedding of t to features of the same size, with `out_channels` channels."""
        if (embedding is not None) != self.knows_time:
            wanted = "needs the embedding of t" if self.knows_time else "was made with time_dim=None and takes none"
            raise ValueError(f"embedding is {'missing' if embedding is None else 'given'}, but this block {wanted}")
        if self.recompute and torch.is_grad_enabled():
            return checkpoint(self._forward, x, embedding, use_reentrant=False)
        return self._forward(x, embedding)

    def _forward(self, x: Tensor, embedding: Tensor | None) -> Tensor:
        h = self.norm1(x)
        h = self.conv1(F.silu(h) if self.order == "classic" else h)
        if embedding is None:
            h = self.norm2(h)
        else:
            told = self.time(F.silu(embedding))
            h = modulate(self.norm2(h), told) if self.scale_shift else self.norm2(h + unsqueeze_to(told, h))
        h = self.norm3(self.conv2(self.dropout(F.silu(h))))
        return self.shortcut(x) + h
