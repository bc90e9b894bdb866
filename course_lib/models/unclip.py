"""The unCLIP decoder: from a CLIP image embedding, and a caption if there is one, to a picture.

The embedding comes in twice: added to the embedding of time, which every residual block is told, and as four tokens
beside those of the caption. Ramesh et al. 2022, arXiv:2204.06125, section 2.1; laid out as in the course's sources.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from course_lib.data.tokenizer import ByteTokenizer
from course_lib.models.conditioned_unet import Body, BodyConfig, OnBody
from course_lib.models.conditions import DecoderCondition, check_told
from course_lib.models.halfway import Halfway
from course_lib.models.text_unet import Withheld
from course_lib.nn import TimeMLP, TransformerBlock, timestep_embedding, visible


@dataclass(frozen=True)
class DecoderConfig:
    """Sizes of an `UnclipDecoder`."""

    body: BodyConfig = field(default_factory=BodyConfig)
    image_dim: int = 128  # of the CLIP embedding
    image_tokens: int = 4
    reads: Literal["nothing", "states", "bytes"] = "states"  # captions: none, encoded by CLIP, or by its own encoder
    text_width: int = 128  # of CLIP's token states ("states")
    text_layers: int = 4  # of its own encoder ("bytes")
    text_length: int = 64
    text_heads: int = 8
    prediction: Literal["noise", "v"] = "noise"

    def __post_init__(self) -> None:
        if self.reads not in ("nothing", "states", "bytes"):
            raise ValueError(f"reads={self.reads!r} is not known; use 'nothing', 'states' or 'bytes'")
        if self.prediction not in ("noise", "v"):
            raise ValueError(f"prediction={self.prediction!r} is not known; use 'noise' or 'v'")

    @classmethod
    def sources(cls) -> DecoderConfig:
        """The configuration of the course's sources for Fashion-MNIST; its U-Net has 12,550,817 parameters."""
        return cls(BodyConfig(channels=1, token_dim=256), image_dim=256, reads="bytes")


class CaptionEncoder(nn.Module):
    """A transformer over the bytes of a caption, with learned positions: the decoder's own reader.

    Padding is never looked at. Nichol et al. 2021 (GLIDE), section 3.1.
    """

    def __init__(self, width: int, layers: int, heads: int, length: int, dropout: float | int = 0.0) -> None:
        super().__init__()
        self.bytes = nn.Embedding(ByteTokenizer.vocabulary, width)
        self.positions = nn.Parameter(torch.randn(length, width) * width**-0.5)
        self.blocks = nn.ModuleList(TransformerBlock(width, heads, dropout=dropout, bias=False) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, ids: Int[Tensor, "n length"], real: Bool[Tensor, "n length"]) -> Float[Tensor, "n length width"]:
        """Tokens and their mask (True: real) to one vector per token."""
        x, mask = self.bytes(ids) + self.positions[: ids.shape[1]], visible(real)
        for block in self.blocks:
            x = block(x, mask)
        return self.norm(x)


class ImageTokens(nn.Linear):
    """A CLIP embedding as `count` tokens: one full projection, cut into pieces, so the tokens can say different things.

    A Linear(1, count) on each number, as in the course's sources, gives `count` multiples of one vector.
    """

    def __init__(self, dim: int, count: int, width: int) -> None:
        super().__init__(dim, count * width)
        self.count = count

    def forward(self, image: Float[Tensor, "n dim"]) -> Float[Tensor, "n count width"]:
        """Embeddings to tokens."""
        return super().forward(image).unflatten(1, (self.count, -1))


class UnclipDecoder(OnBody, nn.Module):
    """(x_t, t, DecoderCondition) -> predicted noise, or v.

    Raises TypeError for a condition that is no `DecoderCondition`, ValueError for one that doesn't fit the network.
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config, self.prediction, body = config, config.prediction, config.body
        self.time = TimeMLP(body.width, body.embedding_dim)
        self.image = nn.Sequential(
            nn.Linear(config.image_dim, body.embedding_dim),
            nn.SiLU(),
            nn.Linear(body.embedding_dim, body.embedding_dim),
        )
        self.image_tokens = ImageTokens(config.image_dim, config.image_tokens, body.token_dim)
        self.no_image = Withheld(config.image_dim)
        if config.reads == "bytes":
            self.captions = CaptionEncoder(
                body.token_dim, config.text_layers, config.text_heads, config.text_length, body.dropout
            )
        elif config.reads == "states":
            self.captions = nn.Linear(config.text_width, body.token_dim)
        if config.reads != "nothing":
            self.no_token = Withheld(body.token_dim)
        self.body = Body(body, ask="joint")

    def told(self, cond: DecoderCondition) -> tuple[Tensor, Tensor, Tensor]:
        """What the body is told: a vector per picture, tokens (caption, then image), and which of them are real."""
        scale = self.config.image_dim**0.5  # an embedding of length 1 has tiny numbers
        image = self.no_image.vector(scale * cond.image, cond.keep)
        tokens = self.image_tokens(image)
        real = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        if self.config.reads != "nothing":
            text = cond.text
            given = (text.tokens, text.real) if self.config.reads == "bytes" else (text.tokens,)
            words, mask = self.no_token.tokens(self.captions(*given), text.real, text.keep)
            tokens, real = torch.cat([words, tokens], dim=1), torch.cat([mask, real], dim=1)
        return self.image(image), tokens, real

    def forward(
        self, x_t: Float[Tensor, "batch channel height width"], t: Int[Tensor, " batch"], cond: DecoderCondition
    ) -> Float[Tensor, "batch channel height width"]:
        """Predict the noise (or v) of x_t at steps t, 0…T-1, given one embedding (and caption) per picture."""
        return self.decode(self.encode(x_t, t, cond))

    def encode(self, x_t: Tensor, t: Tensor, cond: DecoderCondition, hint: Tensor | None = None) -> Halfway:
        """The first half: encoder and bottleneck."""
        self._check(x_t, cond)
        image, tokens, real = self.told(cond)
        time = self.time(timestep_embedding(t, self.config.body.width).to(x_t.dtype))
        return self.body.encode(x_t, time + image, tokens, real, hint)

    def _check(self, x_t: Tensor, cond: object) -> None:
        check_told(cond, DecoderCondition, len(x_t))
        if cond.image.shape[1] != self.config.image_dim:
            raise ValueError(
                f"cond holds embeddings of width {cond.image.shape[1]}; this decoder takes {self.config.image_dim}: "
                "give it the CLIP it was trained with"
            )
        if self.config.reads != "nothing" and cond.text is None:
            raise ValueError("cond has no captions, but this decoder reads them; withhold them with kept(True, False)")
        if self.config.reads == "states":
            wanted = (len(x_t), self.config.text_width)
            tokens = cond.text.tokens
            if tokens.ndim != 3 or (len(tokens), tokens.shape[2]) != wanted:
                raise ValueError(f"cond.text.tokens has shape {tuple(tokens.shape)}; this decoder reads CLIP's states")
