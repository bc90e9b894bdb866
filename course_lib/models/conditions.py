"""What a sentence, or an embedding, is to a network: small records that travel as the third argument of a model.

Each may say, example by example, that a part of it is withheld (`keep` False): training drops conditions that way, and
guidance asks the model with everything withheld. What stands in the gap is the model's own business.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from course_lib.data.shapes_words import word_ids
from course_lib.models.clip import CLIP


def _check_rows(**parts: Tensor | None) -> None:
    counts = {name: len(part) for name, part in parts.items() if part is not None}
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{name} {n}" for name, n in counts.items())
        raise ValueError(f"the parts of a condition must have one batch size, but: {told}")


@dataclass(frozen=True, eq=False)
class TextCondition:
    """n sentences: encoded tokens, which of them are real, the embedding of the whole, and who is told at all."""

    tokens: Shaped[Tensor, "n length *width"]  # encoded, or the bytes themselves; padding included
    real: Bool[Tensor, "n length"]
    embedding: Float[Tensor, "n dim"]  # length 1
    keep: Bool[Tensor, " n"]  # False: this sentence is withheld

    def __post_init__(self) -> None:
        _check_rows(tokens=self.tokens, real=self.real, embedding=self.embedding, keep=self.keep)
        if self.real.shape != self.tokens.shape[:2] or self.tokens.ndim not in (2, 3):
            raise ValueError(f"real has shape {tuple(self.real.shape)}, tokens {tuple(self.tokens.shape)}")

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, some: Any) -> TextCondition:
        return TextCondition(self.tokens[some], self.real[some], self.embedding[some], self.keep[some])

    def kept(self, keep: Shaped[Tensor, " n"] | bool) -> TextCondition:
        """The same sentences, told only where `keep` is True."""
        return replace(self, keep=torch.ones_like(self.keep) & keep)

    def null(self) -> TextCondition:
        """The condition that says nothing: all sentences withheld."""
        return self.kept(False)


@dataclass(frozen=True, eq=False)
class DecoderCondition:
    """What the unCLIP decoder is told of n pictures: their image embeddings, and their captions if there are any."""

    image: Float[Tensor, "n dim"]  # CLIP image embeddings, length 1
    keep: Bool[Tensor, " n"]  # False: this image embedding is withheld
    text: TextCondition | None = None

    def __post_init__(self) -> None:
        _check_rows(image=self.image, keep=self.keep, text=None if self.text is None else self.text.tokens)

    def __len__(self) -> int:
        return len(self.image)

    def __getitem__(self, some: Any) -> DecoderCondition:
        return DecoderCondition(self.image[some], self.keep[some], None if self.text is None else self.text[some])

    def kept(self, image: Shaped[Tensor, " n"] | bool, text: Shaped[Tensor, " n"] | bool = True) -> DecoderCondition:
        """The same, with the embedding told only where `image` is True, and the caption where `text` is."""
        keep = torch.ones_like(self.keep) & image
        return DecoderCondition(self.image, keep, None if self.text is None else self.text.kept(text))

    def null(self) -> DecoderCondition:
        """The condition that says nothing."""
        return self.kept(False, False)


def check_told(cond: object, kind: type, n: int) -> None:
    """Raise TypeError for a condition that is no `kind`, ValueError for one of other than n examples."""
    if not isinstance(cond, kind):
        maker = "text_condition(clip, captions)" if kind is TextCondition else "decoder_condition(image_embeddings)"
        raise TypeError(
            f"cond must be a {kind.__name__}, not {type(cond).__name__}; {maker} makes one, and its null() is the "
            "condition that says nothing"
        )
    if len(cond) != n:
        raise ValueError(f"cond holds {len(cond)} conditions, but there are {n} examples; give one for each")


@torch.no_grad()
def text_condition(clip: CLIP, captions: Sequence[str]) -> TextCondition:
    """Sentences as a frozen CLIP sees them; raises what `CLIP.tokens` raises. Padding common to all is cut away."""
    return encoded(clip, *clip.tokens(captions))


def word_condition(captions: Sequence[str], device: torch.device | str = "cpu") -> TextCondition:
    """Captions of shapes as numbers of words, without an embedding of the whole; raises what `word_ids` raises."""
    ids, real = (part.to(device) for part in word_ids(captions))
    keep = torch.ones(len(ids), dtype=torch.bool, device=device)
    return TextCondition(ids, real, torch.zeros(len(ids), 0, device=device), keep)


def encoded(clip: CLIP, ids: Tensor, real: Tensor) -> TextCondition:
    """Tokens and their mask as a condition; what is padding in all sentences is cut away."""
    longest = int(real.sum(dim=1).amax())
    ids, real = ids[:, :longest], real[:, :longest]
    states, embedding = clip.text.both(ids, real)
    keep = torch.ones(len(ids), dtype=torch.bool, device=ids.device)
    return TextCondition(states, real, torch.nn.functional.normalize(embedding, dim=-1), keep)


def decoder_condition(image: Float[Tensor, "n dim"], text: TextCondition | None = None) -> DecoderCondition:
    """Image embeddings, and captions if given, as a condition that withholds nothing."""
    return DecoderCondition(image, torch.ones(len(image), dtype=torch.bool, device=image.device), text)
