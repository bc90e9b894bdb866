"""A diffusion U-Net that reads a sentence: the model of lesson 15.

The sentence comes in twice: the embedding of the whole is added to the embedding of time, and every attention layer
asks the encoded tokens. The encoder is a frozen CLIP, so all the U-Net has to learn is to draw.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from course_lib.models.conditioned_unet import Body, BodyConfig, OnBody
from course_lib.models.conditions import TextCondition, check_told
from course_lib.models.halfway import Halfway
from course_lib.nn import TimeMLP, timestep_embedding


@dataclass(frozen=True)
class TextUNetConfig:
    """Sizes of a `TextUNet`."""

    body: BodyConfig = field(default_factory=BodyConfig)
    text_width: int = 128  # of the tokens
    text_dim: int = 128  # of the sentence's embedding; 0: the network is told the tokens only
    vocabulary: int = 0  # words, where the network is to learn what each means; 0: the tokens come encoded
    longest: int = 12  # words
    prediction: Literal["noise", "v"] = "noise"

    def __post_init__(self) -> None:
        if self.prediction not in ("noise", "v"):
            raise ValueError(f"prediction={self.prediction!r} is not known; use 'noise' or 'v'")


class Words(nn.Module):
    """A vector for every word, and one for every place in the sentence, added."""

    def __init__(self, vocabulary: int, longest: int, width: int) -> None:
        super().__init__()
        self.table = nn.Embedding(vocabulary + 1, width)  # the last stands for padding
        self.places = nn.Parameter(0.5 * torch.randn(longest, width))

    def forward(self, ids: Int[Tensor, "n words"]) -> Float[Tensor, "n words width"]:
        """Numbers of words to vectors."""
        return self.table(ids) + self.places[: ids.shape[1]]


class Withheld(nn.Module):
    """What stands where a condition is withheld: one learned vector, or one learned token and nothing else."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.instead = nn.Parameter(0.02 * torch.randn(width))

    def vector(self, given: Float[Tensor, "n width"], keep: Tensor) -> Float[Tensor, "n width"]:
        """`given` where `keep`, else the learned vector."""
        return torch.where(keep[:, None], given, self.instead.to(given.dtype))

    def tokens(self, given: Float[Tensor, "n length width"], real: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens and mask; where withheld, the first token is the learned one and all others count as padding."""
        first = torch.zeros_like(real)
        first[:, 0] = True
        return torch.where(keep[:, None, None], given, self.instead.to(given.dtype)), torch.where(
            keep[:, None], real, first
        )


class TextUNet(OnBody, nn.Module):
    """(x_t, t, TextCondition) -> predicted noise, or v. Training learns what stands in for withheld sentences.

    Raises TypeError for a condition that is no `TextCondition`, ValueError for one of another batch size or width.
    """

    def __init__(self, config: TextUNetConfig) -> None:
        super().__init__()
        self.config, self.prediction, body = config, config.prediction, config.body
        self.time = TimeMLP(body.width, body.embedding_dim)
        if config.text_dim:
            self.sentence, self.no_sentence = nn.Linear(config.text_dim, body.embedding_dim), Withheld(config.text_dim)
        if config.vocabulary:
            self.tokens = Words(config.vocabulary, config.longest, body.token_dim)
        else:
            self.tokens = nn.Linear(config.text_width, body.token_dim)
        self.no_token = Withheld(body.token_dim)
        self.body = Body(body, ask="cross")

    def forward(
        self, x_t: Float[Tensor, "batch channel height width"], t: Int[Tensor, " batch"], cond: TextCondition
    ) -> Float[Tensor, "batch channel height width"]:
        """Predict the noise (or v) of x_t at steps t, 0…T-1, given one sentence per picture."""
        return self.decode(self.encode(x_t, t, cond))

    def encode(self, x_t: Tensor, t: Tensor, cond: TextCondition, hint: Tensor | None = None) -> Halfway:
        """The first half: encoder and bottleneck."""
        check_told(cond, TextCondition, len(x_t))
        self._check_widths(cond)
        embedding = self.time(timestep_embedding(t, self.config.body.width).to(x_t.dtype))
        if dim := self.config.text_dim:  # an embedding of length 1 has tiny numbers
            embedding = embedding + self.sentence(self.no_sentence.vector(dim**0.5 * cond.embedding, cond.keep))
        tokens, real = self.no_token.tokens(self.tokens(cond.tokens), cond.real, cond.keep)
        return self.body.encode(x_t, embedding, tokens, real, hint)

    def _check_widths(self, cond: TextCondition) -> None:
        config = self.config
        if config.vocabulary:
            if cond.tokens.ndim != 2 or cond.tokens.is_floating_point() or cond.tokens.shape[1] > config.longest:
                raise ValueError(
                    f"cond.tokens has shape {tuple(cond.tokens.shape)}; this network reads numbers of at most "
                    f"{config.longest} words: word_condition(captions) makes them"
                )
            return
        given = (cond.tokens.shape[-1], cond.embedding.shape[-1] if config.text_dim else 0)
        if given != (config.text_width, config.text_dim):
            raise ValueError(
                f"cond has tokens of width {given[0]} and embeddings of width {given[1]}; this network reads "
                f"{config.text_width} and {config.text_dim}: give it the CLIP it was trained with"
            )
