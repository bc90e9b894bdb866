"""CLIP: one encoder for pictures, one for sentences, trained until a picture and its caption point the same way.

    model = CLIP(CLIPConfig())
    image = model.encode_image(images)                            # (n, dim), length 1
    text = model.encode_captions(["a small red circle at the left"])  # (1, dim), length 1
    image @ text.T                                                # cosine similarities

Radford et al. 2021, arXiv:2103.00020. The text is read byte by byte, so there is no vocabulary file.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from course_lib.data.tokenizer import ByteTokenizer
from course_lib.nn.frozen import Freezable
from course_lib.nn.residual import normalisation
from course_lib.nn.transformer import TransformerBlock, at_end, visible

MAX_SCALE = 100.0  # the inverse temperature never exceeds it
FIRST_SCALE = 1 / 0.07


@dataclass(frozen=True)
class CLIPConfig:
    """Sizes of both encoders. Raises ValueError for a picture that the patches don't fill."""

    dim: int = 128  # of the shared space
    image_size: int = 32
    channels: int = 3
    patch: int = 4
    stem: str = "patch"  # or "convolutions": three of them in place of the cut, which learns sooner from few pictures
    image_width: int = 128
    image_layers: int = 4
    image_heads: int = 2
    text_length: int = 64
    text_width: int = 128
    text_layers: int = 4
    text_heads: int = 2
    mlp_ratio: int = 4
    dropout: float | int = 0.0
    bias: bool = True

    def __post_init__(self) -> None:
        if self.patch < 1 or self.image_size % self.patch:
            raise ValueError(f"patch={self.patch} must divide image_size={self.image_size}")
        if self.stem not in ("patch", "convolutions"):
            raise ValueError(f"stem={self.stem!r} is not known; use 'patch' or 'convolutions'")
        if self.stem == "convolutions" and self.patch != 4:
            raise ValueError(f"patch={self.patch} does not go with stem='convolutions', which halves twice; use 4")

    @classmethod
    def sources(cls) -> CLIPConfig:
        """The size that the course's sources train on Fashion-MNIST: 256 wide, 6 layers, 8 heads, dropout .2."""
        return cls(
            dim=256, channels=1, image_width=256, image_layers=6, image_heads=8, text_width=256, text_layers=6,
            text_heads=8, dropout=0.2, bias=False,
        )  # fmt: skip


def _tower(width: int, layers: int, heads: int, config: CLIPConfig) -> nn.ModuleList:
    return nn.ModuleList(
        TransformerBlock(width, heads, config.mlp_ratio, config.dropout, config.bias) for _ in range(layers)
    )


def _stem(config: CLIPConfig) -> nn.Module:
    """From a picture to one vector per patch."""
    width = config.image_width
    if config.stem == "patch":
        return nn.Conv2d(config.channels, width, config.patch, stride=config.patch)
    return nn.Sequential(  # Xiao et al. 2021, arXiv:2106.14881
        nn.Conv2d(config.channels, 32, 3, padding=1), normalisation(32, 8), nn.GELU(),
        nn.Conv2d(32, 64, 3, stride=2, padding=1), normalisation(64, 8), nn.GELU(),
        nn.Conv2d(64, width, 3, stride=2, padding=1),
    )  # fmt: skip


class ImageEncoder(nn.Module):
    """A vision transformer: the picture is cut into patches, which become tokens beside one more that is read out."""

    def __init__(self, config: CLIPConfig) -> None:
        super().__init__()
        width, side = config.image_width, config.image_size // config.patch
        self.patches = _stem(config)
        self.readout = nn.Parameter(0.02 * torch.randn(width))
        self.positions = nn.Parameter(0.02 * torch.randn(1 + side**2, width))
        self.blocks = _tower(width, config.image_layers, config.image_heads, config)
        self.norm = nn.LayerNorm(width)
        self.project = nn.Linear(width, config.dim, bias=False)

    def forward(self, images: Float[Tensor, "batch channel side side"]) -> Float[Tensor, "batch dim"]:
        """Pictures in [-1, 1] to embeddings of any length."""
        patches = self.patches(images).flatten(2).transpose(1, 2)  # (batch, patches, width)
        x = torch.cat([self.readout.expand(len(images), 1, -1), patches], dim=1) + self.positions
        for block in self.blocks:
            x = block(x)
        return self.project(self.norm(x[:, 0]))


class TextEncoder(nn.Module):
    """A transformer over the bytes of a sentence. Padding is never looked at; the end token is read out."""

    def __init__(self, config: CLIPConfig) -> None:
        super().__init__()
        width = config.text_width
        self.bytes = nn.Embedding(ByteTokenizer.vocabulary, width)
        nn.init.normal_(self.bytes.weight, std=0.02)
        self.positions = nn.Parameter(0.02 * torch.randn(config.text_length, width))
        self.blocks = _tower(width, config.text_layers, config.text_heads, config)
        self.norm = nn.LayerNorm(width)
        self.project = nn.Linear(width, config.dim, bias=False)

    def states(
        self, ids: Int[Tensor, "batch tokens"], real: Bool[Tensor, "batch tokens"]
    ) -> Float[Tensor, "batch tokens width"]:
        """One vector per token, after the last norm: what a decoder may attend to (hide padding with `real`)."""
        x, mask = self.bytes(ids) + self.positions[: ids.shape[1]], visible(real)
        for block in self.blocks:
            x = block(x, mask)
        return self.norm(x)

    def forward(
        self, ids: Int[Tensor, "batch tokens"], real: Bool[Tensor, "batch tokens"]
    ) -> Float[Tensor, "batch dim"]:
        """Tokens and their mask (True: real) to embeddings of any length."""
        longest = int(real.sum(dim=1).amax())  # what is padding in all of them need not be computed
        return self.both(ids[:, :longest], real[:, :longest])[1]

    def both(
        self, ids: Int[Tensor, "batch tokens"], real: Bool[Tensor, "batch tokens"]
    ) -> tuple[Float[Tensor, "batch tokens width"], Float[Tensor, "batch dim"]]:
        """One vector per token (`states`), and the embedding of the whole, of any length."""
        states = self.states(ids, real)
        return states, self.project(at_end(states, real))


class CLIP(Freezable):
    """Both encoders and the learned scale of their similarities."""

    def __init__(self, config: CLIPConfig | None = None) -> None:
        super().__init__()
        self.config = config or CLIPConfig()
        self.tokenizer = ByteTokenizer(self.config.text_length)
        self.image, self.text = ImageEncoder(self.config), TextEncoder(self.config)
        self.log_scale = nn.Parameter(torch.tensor(math.log(FIRST_SCALE)))

    @property
    def scale(self) -> Float[Tensor, ""]:
        """What cosine similarities are multiplied with before the softmax: one over a temperature, at most 100."""
        return self.log_scale.exp().clamp(max=MAX_SCALE)

    def encode_image(self, images: Float[Tensor, "batch channel side side"]) -> Float[Tensor, "batch dim"]:
        """Pictures in [-1, 1] to embeddings of length 1. Raises ValueError for another size, channels or range."""
        config = self.config
        expected = (config.channels, config.image_size, config.image_size)
        if images.ndim != 4 or tuple(images.shape[1:]) != expected:
            raise ValueError(f"images has shape {tuple(images.shape)}; this CLIP looks at (n, {str(expected)[1:]}")
        if len(images) and not -1.001 <= images.amin() <= images.amax() <= 1.001:
            raise ValueError(
                f"images reaches from {images.amin().item():.3g} to {images.amax().item():.3g}; give pictures in "
                "[-1, 1] (course_lib.data.from_uint8 makes them; a sampler's clip=(-1, 1) keeps them)"
            )
        return F.normalize(self.image(images), dim=-1)

    def encode_text(
        self, ids: Int[Tensor, "batch tokens"], real: Bool[Tensor, "batch tokens"]
    ) -> Float[Tensor, "batch dim"]:
        """Tokens and their mask (True: real), as the tokenizer gives them, to embeddings of length 1."""
        return F.normalize(self.text(ids, real), dim=-1)

    def tokens(self, captions: Sequence[str]) -> tuple[Int[Tensor, "batch tokens"], Bool[Tensor, "batch tokens"]]:
        """Tokens and mask of captions, on the model's device.

        Raises TypeError for something other than a list of strings, ValueError for a caption that is empty, does not
        fit, or is not ASCII: the encoder was never shown other letters, so its answer would mean nothing.
        """
        ids, real = self.tokenizer.encode(captions)
        if not len(captions):
            raise ValueError("captions is empty; give at least one sentence")
        for i, caption in enumerate(captions):
            if not caption.strip():
                raise ValueError(f"captions[{i}] is empty; write a sentence")
            if not caption.isascii():
                strange = next(letter for letter in caption if not letter.isascii())
                raise ValueError(f"captions[{i}] holds {strange!r}; this CLIP reads plain ASCII text only: {caption!r}")
        return ids.to(self.log_scale.device), real.to(self.log_scale.device)

    def encode_captions(self, captions: Sequence[str]) -> Float[Tensor, "batch dim"]:
        """Sentences to embeddings of length 1; raises what `tokens` raises."""
        return self.encode_text(*self.tokens(captions))

    def forward(
        self,
        images: Float[Tensor, "batch channel side side"],
        ids: Int[Tensor, "batch2 tokens"],
        real: Bool[Tensor, "batch2 tokens"],
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, "batch2 dim"], Float[Tensor, ""]]:
        """Image embeddings, text embeddings (both of length 1) and the scale: what `clip_loss` takes."""
        return F.normalize(self.image(images), dim=-1), self.encode_text(ids, real), self.scale


def clip_loss(
    image_emb: Float[Tensor, "batch dim"],
    text_emb: Float[Tensor, "batch dim"],
    scale: Float[Tensor, ""] | float | int,
    same: Bool[Tensor, "batch batch"] | None = None,
) -> Float[Tensor, ""]:
    """Cross-entropy of finding each picture's caption in the batch, and each caption's picture, averaged: nats.

    Embeddings have length 1. `same[i, j]` is True where caption j is right for picture i; a batch that holds a caption
    twice has several right answers, which share the target. None: caption i belongs to picture i only.
    Raises ValueError for shapes that differ, or a `same` in which a picture or a caption has no partner.
    Radford et al. 2021, figure 3; several positives: Khosla et al. 2020, arXiv:2004.11362.
    """
    if image_emb.shape != text_emb.shape:
        raise ValueError(f"image_emb has shape {tuple(image_emb.shape)}, text_emb {tuple(text_emb.shape)}; pair them")
    logits = scale * image_emb @ text_emb.T
    if same is None:
        target = torch.arange(len(logits), device=logits.device)
        return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
    if same.shape != logits.shape:
        raise ValueError(f"same has shape {tuple(same.shape)}, but there are {len(logits)} pairs")
    target = same.to(logits)
    if same.device.type == "cpu" and not (same.any(dim=0).all() and same.any(dim=1).all()):
        raise ValueError(
            "same has a row or a column without a True: every picture needs a caption, and every caption one"
        )
    by_image = F.cross_entropy(logits, target / target.sum(dim=1, keepdim=True))
    by_text = F.cross_entropy(logits.T, target.T / target.T.sum(dim=1, keepdim=True))
    return (by_image + by_text) / 2
