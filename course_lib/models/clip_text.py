"""The text tower of OpenAI's CLIP, whose states Stable Diffusion 1 asks: the other half of lesson 13, as published.

Unlike the course's own text encoder it reads pieces of words, looks back only, and has QuickGELU in its layers. Radford
et al. 2021, arXiv:2103.00020, section 2.4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from course_lib.models.clip_tokenizer import CLIPTokenizer
from course_lib.models.conditions import TextCondition
from course_lib.models.prior import causal
from course_lib.nn import TransformerBlock
from course_lib.nn.frozen import Freezable
from course_lib.nn.transformer import QuickGELU


@dataclass(frozen=True)
class CLIPTextConfig:
    """Sizes of a `CLIPTextTower`."""

    vocabulary: int = 49_408
    length: int = 77
    width: int = 768
    layers: int = 12
    heads: int = 12

    @classmethod
    def stable_diffusion_v1(cls) -> CLIPTextConfig:
        """That of CLIP ViT-L/14, which Stable Diffusion 1 reads with: 123,060,480 parameters."""
        return cls()


class CLIPTextTower(Freezable):
    """Ids to one vector per token, after the last norm. Every token sees itself and those before it."""

    def __init__(self, config: CLIPTextConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or CLIPTextConfig()
        self.tokens = nn.Embedding(config.vocabulary, config.width)
        self.positions = nn.Embedding(config.length, config.width)
        self.blocks = nn.ModuleList(
            TransformerBlock(config.width, config.heads, activation=QuickGELU) for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(config.width)

    def forward(self, ids: Int[Tensor, "n length"]) -> Float[Tensor, "n length width"]:
        """Raises ValueError for more tokens than there are positions, or ids outside the vocabulary."""
        if ids.shape[1] > self.config.length:
            raise ValueError(f"ids has {ids.shape[1]} tokens; this tower reads {self.config.length} at most")
        if ids.device.type == "cpu" and ids.numel() and not 0 <= ids.min() <= ids.max() < self.config.vocabulary:
            raise ValueError(
                f"ids reaches from {ids.min()} to {ids.max()}; there are 0 to {self.config.vocabulary - 1}"
            )
        x = self.tokens(ids) + self.positions.weight[: ids.shape[1]]
        back_only = causal(ids.shape[1], ids.device)
        for block in self.blocks:
            x = block(x, back_only)
        return self.norm(x)


class PublishedReader(Freezable):
    """Tower and tokenizer as what a `LatentDiffusion` reads captions with. Nothing is said by the empty caption."""

    def __init__(self, tower: CLIPTextTower, tokenizer: CLIPTokenizer | None) -> None:
        super().__init__()
        self.tower, self.tokenizer = tower, tokenizer

    @torch.no_grad()
    def condition(self, captions: Sequence[str]) -> TextCondition:
        """Captions as the U-Net is told them. Raises ValueError where there is no tokenizer."""
        if self.tokenizer is None:
            raise ValueError("tokenizer is missing: CLIPTokenizer.from_folder(folder) reads the published files")
        ids = self.tokenizer.encode(captions).to(self.tower.positions.weight.device)
        states = self.tower(ids)
        everyone = torch.ones(ids.shape, dtype=torch.bool, device=ids.device)
        return TextCondition(states, everyone, states.new_zeros(len(ids), 0), everyone[:, 0])

    def nothing(self, cond: TextCondition) -> TextCondition:
        """As many empty captions."""
        return self.condition([""] * len(cond))
